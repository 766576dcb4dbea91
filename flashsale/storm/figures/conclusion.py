"""The conclusion of a storm: its figures, its health and its thresholds become one summary."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flashsale.errors import ExitCode
from flashsale.model import ENDINGS, Outcome, Verdict
from flashsale.run.folder import RunFolder, telling, write_file
from flashsale.run.histogram import Histogram
from flashsale.run.parts import (
    CalibrationFigures,
    GeneratorFigures,
    Latency,
    Machine,
    ReadFigures,
    SampleFigures,
    WorkerFigures,
)
from flashsale.run.summary import (
    AbortFigures,
    Asked,
    DatabaseFigures,
    EndpointSummary,
    LatencyFigures,
    LoadFigures,
    MergedFigures,
    OrderFigures,
    SaidFigures,
    ShardFigures,
    Summary,
    ThresholdFigures,
    VerifyFigures,
)
from flashsale.scenario.answer import TARGETS_DOING
from flashsale.scenario.load import Step
from flashsale.scenario.scenario import Scenario
from flashsale.storm.figures.figures import EndpointFigures, Figures, Loads
from flashsale.storm.figures.generator import (
    Conduct,
    Effort,
    ProcessEffort,
    Room,
    SelfReport,
    doubts,
    faults,
    health_of,
)
from flashsale.storm.figures.judging import ThresholdResult, answer_checks, judge
from flashsale.storm.figures.sale import BuyAttempts, sale_figures
from flashsale.storm.plan.plan import Plan

SAID_LISTED = 20
"""Different answers that a summary shows of those that could not be read; the record has more."""

NOT_VERIFIED = "not verified yet: `flashsale verify` judges the sale"
NEVER_VERIFIED = "not verified: the rehearsal ended before its sale was judged"
"""While `verify` is awaited: it replaces this, or the stack that it would read is gone."""


@dataclass(frozen=True)
class Finished:
    """A storm that is over: its summary, and the figures that charts are drawn from.

    `unwritten` has a line for each of its files that could not be written.
    """

    summary: Summary
    figures: Figures
    plan: Plan
    unwritten: tuple[str, ...] = ()


def write_results(folder: RunFolder, summary: Summary, figures: Figures) -> list[str]:
    """Write the verdict and the latencies; a line for each file that could not be written."""
    unwritten: list[str] = []
    with telling(unwritten.append):
        summary.write(folder.summary)
    with telling(unwritten.append):
        write_file(folder.hgrm, figures.latency("response").hgrm().encode())
    with telling(unwritten.append):
        write_file(folder.hlog, figures.hlog().encode())
    return unwritten


@dataclass(frozen=True)
class Circumstances:
    """What the figures do not say of themselves."""

    run: str
    base_url: str
    plan_hash: str
    started_at: str
    resolved: int
    interrupted_by: ExitCode | None
    shard: ShardFigures | None = None
    merged: MergedFigures | None = None
    claims: Sequence[BuyAttempts] = ()
    machine: Machine | None = None
    room: Room | None = None
    late: int = 0
    aborts: Sequence[ThresholdResult] = ()
    verify_awaited: bool = False


def conclude(
    scenario: Scenario, figures: Figures, effort: Effort, circumstances: Circumstances
) -> Summary:
    """The summary of a run, judged by what the storm alone can know. Pure."""
    return Summary(
        run=circumstances.run,
        scenario=scenario.name,
        question=scenario.question,
        seed=scenario.load.seed,
        plan_hash=circumstances.plan_hash,
        base_url=circumstances.base_url,
        started_at=circumstances.started_at,
        verdict=Verdict.UNKNOWN,
        exit_code=ExitCode.NOTHING_JUDGED,
        load=_load(scenario, figures, circumstances),
        latency_ms=_latency(figures),
        endpoints={name: _endpoint(found) for name, found in figures.endpoints.items()},
        generator=_generator(scenario, figures, effort, circumstances),
        orders=_orders(figures.of(Step.BUY.endpoint), circumstances.claims),
        reads=ReadFigures.of(figures.outcomes),
        hints=_hints(scenario, figures, effort, circumstances),
        verify=_unverified(scenario, circumstances),
        answers=answer_checks(circumstances.claims),
        sale=None if circumstances.shard else sale_figures(circumstances.claims),
        shard=circumstances.shard,
        merged=circumstances.merged,
        thresholds=_thresholds(scenario, figures),
        machine=circumstances.machine,
        aborts=[
            AbortFigures(**_threshold(judgement), at_end=judgement.at_end)
            for judgement in circumstances.aborts
        ],
    ).judged()


def with_loads(scenario: Scenario, figures: Figures, summary: Summary, loads: Loads) -> Summary:
    """The same run with what the database counted, judged again."""
    figures.loads = loads
    counted = None
    if loads.count is not None:
        counted = DatabaseFigures(loads=loads.count, shops=loads.shops, unknown=loads.unknown)
    found = {
        "database": counted,
        "thresholds": _thresholds(scenario, figures),
    }
    return summary.model_copy(update=found).judged()


_REFUSALS = [outcome for outcome in Outcome if outcome.is_expected and outcome is not Outcome.SOLD]


def _orders(found: EndpointFigures, claimed: Sequence[BuyAttempts]) -> OrderFigures:
    return OrderFigures(
        accepted=found.outcomes.get(Outcome.SOLD, 0) - sum(claims.told_again for claims in claimed),
        rejected=sum(found.outcomes.get(outcome, 0) for outcome in _REFUSALS),
    )


def _unverified(scenario: Scenario, circumstances: Circumstances) -> VerifyFigures:
    """What verify knows of the sale's rules before it was asked: nothing."""
    if Step.BUY not in scenario.steps:
        return VerifyFigures()
    awaited = circumstances.verify_awaited
    return VerifyFigures(reason=NEVER_VERIFIED if awaited else NOT_VERIFIED, awaited=awaited)


def _hints(
    scenario: Scenario, figures: Figures, effort: Effort, circumstances: Circumstances
) -> list[str]:
    claims = figures.of(Step.BUY.endpoint).outcomes
    sold = any(n for end, n in claims.items() if end is Outcome.SOLD or end.is_indeterminate)
    unsold = (
        None
        if sold or circumstances.late or circumstances.shard
        else _unsold_hint(scenario, figures)
    )
    hints = (unsold, _messages_hint(figures.said), listen_queue_hint(effort.connect))
    return [hint for hint in hints if hint]


def _messages_hint(said: Mapping[tuple[str, int, str], int]) -> str | None:
    """That messages of rejections are not known, and how to say what they mean; None where there
    are none. Pure."""
    unknown = Counter({text: n for (error, _, text), n in said.items() if error == "message"})
    if not unknown:
        return None
    ((text, _),) = unknown.most_common(1)
    quoted = text.replace('"', '\\"')
    return (
        f"messages: {unknown.total():,} answers said what the scenario gives no meaning to; "
        f'write such a message under [messages], as in "{quoted}" = "sold_out"'
    )


def _unsold_hint(scenario: Scenario, figures: Figures) -> str | None:
    """Why a sale sold nothing, and its cure; None where the answers do not tell. Pure."""
    claims, sale = figures.of(Step.BUY.endpoint), scenario.sale
    told = [outcome for outcome in _UNSOLD if claims.outcomes.get(outcome)]
    if sale is None or not told:
        return None
    why = max(told, key=lambda outcome: claims.outcomes[outcome])
    if why is Outcome.NOT_LOADED:
        return f"nothing was sold: {_UNSOLD[why]}; run `flashsale warm`, then storm again"
    first = f" --first-voucher {sale.first_voucher}" if sale.first_voucher != 1 else ""
    return (
        f"nothing was sold: {_UNSOLD[why]}; for a fresh sale run `flashsale seed --reset --yes "
        f"--users {scenario.load.user_count} --vouchers {sale.vouchers} --units {sale.units}"
        f"{first}`, then `flashsale warm`"
    )


_UNSOLD = {
    Outcome.NOT_LOADED: "the sale is not loaded",
    Outcome.SOLD_OUT: "it was sold out before",
    Outcome.DUPLICATE: "these users hold orders already",
    Outcome.ENDED: "the sale has ended",
    Outcome.NOT_OPEN: "the sale has not begun",
}


def _asked(steps: Collection[Step]) -> Asked:
    return _ASKED.get(min(steps), "steps") if len(steps) == 1 else "steps"


_ASKED: dict[Step, Asked] = {Step.BUY: "claims", Step.BROWSE: "reads", Step.SIGN: "sign-ins"}


def _load(scenario: Scenario, figures: Figures, circumstances: Circumstances) -> LoadFigures:
    return LoadFigures(
        asked=_asked(scenario.asks),
        users=scenario.load.user_count if scenario.needs_users else scenario.load.users,
        connections=scenario.load.connections,
        closed=scenario.load.closed,
        planned=figures.planned,
        spared=figures.spared,
        sent=figures.sent,
        duration_s=round(figures.duration_s, 6),
        rate_per_s=round(float(figures.rate_per_s), 1),
        outcomes={end.value: n for end in ENDINGS if (n := figures.outcomes[end])},
        errors=dict(sorted(figures.errors.items())),
        said=[
            SaidFigures(error=error, status=status or None, text=text, count=count)
            for (error, status, text), count in figures.said.most_common(SAID_LISTED)
        ],
        indeterminate=sum(n for outcome, n in figures.outcomes.items() if outcome.is_indeterminate),
        resolved=circumstances.resolved,
        late=circumstances.late,
        interrupted_by=circumstances.interrupted_by,
    )


def _latency(figures: Figures) -> LatencyFigures:
    return LatencyFigures(
        response=Latency.of(figures.latency("response")),
        service=Latency.of(figures.latency("service")),
        by_outcome=_by_outcome(figures),
        censored=figures.censored,
        lost=figures.lost,
    )


def _endpoint(figures: EndpointFigures) -> EndpointSummary:
    return EndpointSummary(
        planned=figures.planned,
        sent=figures.sent,
        outcomes={end.value: n for end in ENDINGS if (n := figures.outcomes.get(end, 0))},
        response=Latency.of(figures.latency("response")),
        service=Latency.of(figures.latency("service")),
        by_outcome=_by_outcome(figures),
        censored=figures.censored,
    )


def _by_outcome(figures: Figures | EndpointFigures) -> dict[str, Latency]:
    found = {end.value: figures.latency("response", end) for end in ENDINGS}
    return {name: Latency.of(histogram) for name, histogram in found.items() if histogram.count}


def _generator(
    scenario: Scenario, figures: Figures, effort: Effort, circumstances: Circumstances
) -> GeneratorFigures:
    report = effort.watch
    # What was not sent because a condition ended the run was kept back on purpose.
    aborted = any(it.verdict is Verdict.FAIL and not it.at_end for it in circumstances.aborts)
    conduct = Conduct(
        planned=figures.sent if aborted else figures.planned,
        sent=figures.sent,
        open_run=scenario.load.open,
        closed_run=scenario.load.closed,
        start_lag=figures.start_lag,
        response=figures.latency("response"),
        watches={process.name: process.watch for process in effort.processes}
        or {"the generator": report},
        headroom=circumstances.room.headroom if circumstances.room else None,
        refused=0 if aborted else sum(figures.errors[error] for error in TARGETS_DOING),
    )
    found, doubted = [*faults(conduct), *effort.losses], doubts(conduct)
    return GeneratorFigures(
        verdict=health_of(found, doubted),
        complaints=found,
        doubts=doubted,
        cpu_us_per_request=_per_request_us(report.cpu_ns, figures.sent),
        cpu_share=round(report.cpu_share, 3),
        start_lag_ms=Latency.of(figures.start_lag),
        loop_lag_ms=Latency.of(report.loop_lag),
        connect_ms=Latency.of(effort.connect),
        descriptors_limit=report.descriptors_limit,
        workers=[_worker(process) for process in effort.processes],
        samples=_samples(report),
        calibration=_calibration(circumstances.room) if circumstances.room else None,
    )


def _worker(process: ProcessEffort) -> WorkerFigures:
    return WorkerFigures(
        name=process.name,
        connections=process.connections,
        planned=process.planned,
        sent=process.sent,
        cpu_us_per_request=_per_request_us(process.watch.cpu_ns, process.sent),
        cpu_share=round(process.watch.cpu_share, 3),
        start_lag_ms=Latency.of(process.start_lag),
        loop_lag_ms=Latency.of(process.watch.loop_lag),
        connect_ms=Latency.of(process.connect),
        samples=_samples(process.watch),
    )


def _calibration(room: Room) -> CalibrationFigures:
    calibration = room.calibration
    return CalibrationFigures(
        requests=calibration.requests,
        took_ms=calibration.took_ms,
        us_per_request=calibration.us_per_request,
        capacity_per_s=round(room.capacity_per_s),
        peak_per_s=room.peak_per_s,
        headroom=None if room.headroom is None else round(room.headroom, 2),
        burst_ms=None if room.burst_ms is None else round(room.burst_ms, 1),
    )


def _samples(report: SelfReport) -> list[SampleFigures]:
    return [SampleFigures.model_validate(each._asdict()) for each in report.samples]


def _per_request_us(cpu_ns: int, sent: int) -> float | None:
    return round(cpu_ns / 1000 / sent, 2) if sent else None


def _thresholds(scenario: Scenario, figures: Figures) -> list[ThresholdFigures]:
    stages = scenario.load.parsed_stages
    judged = (judge(threshold, figures, stages) for threshold in scenario.thresholds)
    return [ThresholdFigures(**_threshold(judgement)) for judgement in judged]


def _threshold(judgement: ThresholdResult) -> dict[str, Any]:
    return {
        "metric": judgement.threshold.name,
        "condition": judgement.threshold.condition,
        "verdict": judgement.verdict,
        "value": judgement.value,
        "detail": judgement.detail,
    }


RETRIES_S = (1, 2, 3, 4, 5, 7, 11, 15, 31)
CLUSTER_US = 250_000
"""How long after a retry its answer counts as one: a round trip, and the loop's own lag."""


def retried(connect: Histogram) -> dict[int, int]:
    """Seconds of a retry → the connections that stood just after it; empty where none did."""
    found = {s: connect.between(s * 1_000_000, s * 1_000_000 + CLUSTER_US) for s in RETRIES_S}
    return {seconds: count for seconds, count in found.items() if count}


def listen_queue_hint(connect: Histogram) -> str | None:
    """Trouble with the target's listen queue, and its cure; None where there is none.

    Handshakes tell by their times of a full one, which drops them for another try. A SYN without an
    answer is sent again after a second, then after ever longer (RFC 6298: 1, 3, 7 s after the
    first), or, as Linux does since 6.5, first every second (tcp_syn_linear_timeouts). So handshakes
    that were dropped take whole seconds, and a little: a cluster behind each.
    """
    clusters = retried(connect)
    if not clusters:
        return None
    times = ", ".join(f"{n:,} took about {seconds} s" for seconds, n in clusters.items())
    return (
        f"listen queue: of {connect.count:,} connections {times}, as where a SYN was dropped "
        "and sent again; raise the target's listen backlog and net.core.somaxconn"
    )
