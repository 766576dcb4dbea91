"""Capacity: the highest rate at which a scenario holds, by bisection: of a fresh stack each time,
or of somebody's shop that runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import Any

import orjson

from flashsale.campaign.campaign import SILENT, JudgedRun, StormRun, Teller
from flashsale.campaign.judging import judge_run
from flashsale.campaign.rehearsal import RehearsalRequest, rehearse
from flashsale.campaign.storming import StoppedError, StormRequest, run_storm
from flashsale.errors import ExitCode, UsageError
from flashsale.model import Verdict
from flashsale.run.folder import write_file
from flashsale.run.summary import Summary
from flashsale.scenario.load import ARRIVALS_MAX, Stage
from flashsale.scenario.scenario import Scenario

RATE_MIN, RATE_MAX = 1.0, 1_000_000.0
_DIGITS = 2  # of a rate in a stage, after the point
_WHY = {
    ExitCode.VIOLATION: "a rule of the sale is broken",
    ExitCode.INVALID_RUN: "the generator cannot be believed",
    ExitCode.NOTHING_JUDGED: "nothing was judged",
}


@dataclass(frozen=True)
class CapacityRequest:
    """What is asked for: the highest arrivals a second of `scenario`, whose stages are scaled so
    that its highest is the one tried. The first is `begin_per_s`, else the scenario's own.

    A rate holds where more than half of `repeats` trials do. It ends where the highest that holds
    and the lowest that does not are no further apart than `precision`, of 1.

    With a `shop` each trial is a storm on it, so long after the one before, of users who have not
    come yet; where its stores are known it is judged, too. Else it is a rehearsal.
    """

    scenario: Scenario
    name: str
    out: Path
    begin_per_s: float | None = None
    most_per_s: float = RATE_MAX
    precision: float = 0.1
    repeats: int = 3
    exercised: tuple[str, ...] = ()
    processes: int = 1
    shop: StormRequest | None = None
    rest_s: float = 0.0


@dataclass(frozen=True)
class RateTrial:
    """One storm at a rate: whether all held, and what it came to."""

    per_s: float
    code: ExitCode
    why: str = ""
    answered_per_s: float | None = None
    p99_ms: float | None = None
    run: str = ""

    @property
    def holds(self) -> bool:
        """Whether thresholds, generator and judge have nothing against it."""
        return self.code is ExitCode.PASS

    def to_json(self) -> dict[str, Any]:
        """As capacity.json has it."""
        return {
            "rate_per_s": self.per_s,
            "holds": self.holds,
            "exit_code": int(self.code),
            "why": self.why,
            "answered_per_s": self.answered_per_s,
            "p99_ms": self.p99_ms,
            "run": self.run,
        }


@dataclass(frozen=True)
class Capacity:
    """What all trials together say. The capacity is at least `holds_per_s` and below
    `fails_per_s`; either is None where no such rate was found."""

    holds_per_s: float | None
    fails_per_s: float | None
    limit: str = ""
    """Why the lowest rate that does not hold does not."""
    repeats: int = 1

    @property
    def told(self) -> str:
        """A line of it."""
        tries = f"; more than half of {self.repeats} trials decide" * (self.repeats > 1)
        if self.holds_per_s is None:
            return f"no rate holds: {self.limit}" if self.limit else "nothing was tried"
        holds = f"{_rate(self.holds_per_s)} holds"
        if self.fails_per_s is None:
            return f"capacity: at least {_rate(self.holds_per_s)}; no higher rate was tried"
        return f"capacity: {holds}, {_rate(self.fails_per_s)} does not ({self.limit}){tries}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}/s" if per_s >= 100 or per_s == round(per_s) else f"{per_s:.1f}/s"


# What to try next. Pure ---------------------------------------------------------------------------


def verdict_of(trials: Sequence[RateTrial], repeats: int) -> bool | None:
    """Whether the rate of these trials holds; None where that is not decided yet. Pure.

    Where the generator cannot be believed nobody knows, and it is tried again; more often than
    that, it is the generator that cannot send so much.
    """
    told = [trial for trial in trials if trial.code is not ExitCode.INVALID_RUN]
    held = sum(trial.holds for trial in told)
    if 2 * held > repeats:
        return True
    if 2 * (len(told) - held) >= repeats or len(trials) - len(told) > repeats:
        return False
    return None


def found_by(trials: Sequence[RateTrial], repeats: int) -> Capacity:
    """What trials say. A rate above one that does not hold says nothing more. Pure."""
    verdicts = _verdicts(trials, repeats)
    fails = min((rate for rate, holds in verdicts.items() if holds is False), default=None)
    holding = [rate for rate, holds in verdicts.items() if holds and (not fails or rate < fails)]
    why = next((it.why for it in trials if it.per_s == fails and not it.holds), "")
    return Capacity(max(holding, default=None), fails, why, repeats)


def next_rate(request: CapacityRequest, trials: Sequence[RateTrial]) -> float | None:
    """The rate of the next trial, None where there is none to be made. Pure.

    1. A rate that is not decided is tried again.
    2. While all rates hold, twice the highest; while none does, half of the lowest.
    3. Between the two, their geometric mean, until they are close enough.
    """
    if not trials:
        return min(request.begin_per_s or peak_of(request.scenario), request.most_per_s)
    if trials[-1].code is ExitCode.VIOLATION:
        return None  # found worse than a limit
    if verdict_of([it for it in trials if it.per_s == trials[-1].per_s], request.repeats) is None:
        return trials[-1].per_s
    found = found_by(trials, request.repeats)
    if found.fails_per_s is None:
        assert found.holds_per_s is not None
        doubled = min(2 * found.holds_per_s, request.most_per_s)
        return doubled if doubled > found.holds_per_s else None
    if found.holds_per_s is None:
        halved = max(RATE_MIN, found.fails_per_s / 2)
        return halved if halved < found.fails_per_s else None
    if found.fails_per_s <= found.holds_per_s * (1 + request.precision):
        return None
    between = round(sqrt(found.holds_per_s * found.fails_per_s), _DIGITS)
    return between if found.holds_per_s < between < found.fails_per_s else None


def _verdicts(trials: Sequence[RateTrial], repeats: int) -> dict[float, bool | None]:
    rates = dict.fromkeys(trial.per_s for trial in trials)
    return {rate: verdict_of([t for t in trials if t.per_s == rate], repeats) for rate in rates}


def peak_of(scenario: Scenario) -> float:
    """The highest rate of a scenario's stages. Raises UsageError where it has none."""
    if scenario.load.model != "rate":
        raise UsageError(
            "capacity scales a rate: give load.model = 'rate' with load.stages, as the built-in "
            "scenario `chaos` does"
        )
    stages = scenario.load.parsed_stages
    peak = max(max(stage.first_per_s, stage.last_per_s) for stage in stages)
    if not peak:
        raise UsageError("load.stages: nobody comes, so there is no rate to scale")
    return float(peak)


def at_rate(scenario: Scenario, per_s: float, repeat: int = 0) -> Scenario:
    """The same scenario with its stages scaled so that the highest rate is this one, and another
    seed for each repeat. Raises UsageError where nobody would come, or too many. Pure."""
    load = scenario.load
    factor = Fraction(per_s) / Fraction(peak_of(scenario))
    stages = tuple(_written(stage, factor) for stage in load.parsed_stages)
    given = load.model_dump(exclude_unset=True) | {"stages": stages, "seed": load.seed + repeat}
    try:
        scaled = type(load).model_validate(given)
    except ValueError as error:
        raise UsageError(
            f"at {per_s:,.0f}/s the stages of {scenario.name!r} have no arrivals, or more than "
            f"{ARRIVALS_MAX:,}: make them longer or shorter, or give --from and --most"
        ) from error
    return scenario.model_copy(update={"load": scaled})


def _written(stage: Stage, factor: Fraction) -> str:
    first, last = (float(rate * factor) for rate in (stage.first_per_s, stage.last_per_s))
    return f"{stage.length_us // 1000}ms:{first:.{_DIGITS}f}..{last:.{_DIGITS}f}"


# Trials -------------------------------------------------------------------------------------------


def run_capacity(request: CapacityRequest, teller: Teller = SILENT) -> tuple[Capacity, ExitCode]:
    """What was found, and what the process that asked is to exit with: that of a violation where
    one was found, 8 where no rate holds. Raises UsageError before anything is started.

    capacity.json and capacity.md are written after each trial: whoever stops it has what there is.
    """
    at_rate(request.scenario, next_rate(request, []) or RATE_MIN)
    trials: list[RateTrial] = []
    while (per_s := next_rate(request, trials)) is not None:
        trial = _tried(request, per_s, trials)
        trials.append(trial)
        _write(request, trials)
        teller.say(told(trial))
    found = found_by(trials, request.repeats)
    if trials[-1].code is ExitCode.VIOLATION:
        return found, ExitCode.VIOLATION
    return found, ExitCode.PASS if found.holds_per_s is not None else ExitCode.NOTHING_JUDGED


def told(trial: RateTrial) -> str:
    """A trial in a line."""
    p99 = "" if trial.p99_ms is None else f", p99 {trial.p99_ms:,.1f} ms"
    verdict = "holds" if trial.holds else f"does not hold: {trial.why}"
    return f"{_rate(trial.per_s)} {verdict}{p99}"


class _LastRun(Teller):
    """Keeps the summary of a run, as it was judged last."""

    summary: Summary | None = None

    def stormed(self, run: StormRun) -> None:
        self.summary = run.summary

    def judged(self, found: JudgedRun) -> None:
        self.summary = found.summary or self.summary


def _tried(request: CapacityRequest, per_s: float, before: Sequence[RateTrial]) -> RateTrial:
    repeat = sum(trial.per_s == per_s for trial in before)
    named = f"{per_s:.{_DIGITS}f}".rstrip("0").rstrip(".")
    out = request.out / f"rate-{named}-{repeat + 1}"
    scenario, last = at_rate(request.scenario, per_s, repeat), _LastRun()
    if request.shop is None:
        storm = StormRequest(scenario, out=out, processes=request.processes)
        code = rehearse(RehearsalRequest(storm, exercised=request.exercised), last)
    else:
        had = sum(at_rate(request.scenario, it.per_s).load.user_count for it in before)
        if before:
            time.sleep(request.rest_s)
        storm = replace(request.shop, scenario=scenario, out=out, users_before=had)
        code = _stormed(storm, request.exercised, last)
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        raise StoppedError(f"interrupted; what was found is in {request.out}", code)
    summary = last.summary
    if summary is None:
        return RateTrial(per_s, code, _WHY.get(code, "the storm left no summary"), run=str(out))
    return RateTrial(
        per_s,
        code,
        _why(code, summary),
        round(summary.load.rate_per_s, 1),
        summary.latency_ms.response.p99,
        str(out),
    )


def _stormed(storm: StormRequest, exercised: tuple[str, ...], teller: Teller) -> ExitCode:
    """The exit code of a storm, and of its judge where the books are known."""
    run = run_storm(storm, teller)
    code = ExitCode(run.summary.exit_code)
    if storm.stores is None or storm.scenario.sale is None or run.summary.load.interrupted_by:
        return code
    judged = judge_run(
        run.folder.path, storm.stores, teller, stormed=run.summary, required=exercised
    )
    return judged.exit_code


def _why(code: ExitCode, summary: Summary) -> str:
    if code is ExitCode.PASS:
        return ""
    failed = [it for it in summary.thresholds if it.verdict is not Verdict.PASS]
    if code is ExitCode.THRESHOLD and failed:
        return ", ".join(f"{it.metric} {it.condition}: {it.detail or it.value}" for it in failed)
    return _WHY.get(code, f"exit code {int(code)}")


def _write(request: CapacityRequest, trials: Sequence[RateTrial]) -> None:
    found = found_by(trials, request.repeats)
    document = {
        "schema": 1,
        "scenario": request.name,
        "holds_per_s": found.holds_per_s,
        "fails_per_s": found.fails_per_s,
        "limit": found.limit,
        "precision": request.precision,
        "repeats": request.repeats,
        "trials": [trial.to_json() for trial in trials],
    }
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    write_file(request.out / "capacity.json", text + b"\n")
    lines = [f"# flashsale capacity {request.name}", "", found.told, ""]
    head, rows = table(trials)
    lines += [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    write_file(request.out / "capacity.md", "\n".join([*lines, ""]).encode())


def table(trials: Sequence[RateTrial]) -> tuple[list[str], list[list[str]]]:
    """Head and rows, a trial each, by rate. Pure."""
    rows = [
        [
            _rate(it.per_s),
            "holds" if it.holds else "does not",
            "" if it.answered_per_s is None else f"{it.answered_per_s:,.0f}/s",
            "" if it.p99_ms is None else f"{it.p99_ms:,.1f} ms",
            it.why.replace("|", "/"),
        ]
        for it in sorted(trials, key=lambda it: it.per_s)
    ]
    return ["rate", "verdict", "answered", "p99", "why"], rows
