"""summary.json: the figures of a run and its verdict, in a versioned form that others build on.

The storm writes it; `verify` fills in what it found (`with_verify`) and the verdict is drawn again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, Field

from flashsale.errors import ExitCode, worst
from flashsale.files import resource
from flashsale.model import ENDINGS, Verdict, ending
from flashsale.run.folder import read_file, write_file
from flashsale.run.parts import (
    Anything,
    Count,
    GeneratorFigures,
    Health,
    Latency,
    Machine,
    Part,
    PersistedLatency,
    ReadFigures,
    SaleFigures,
    Whole,
)
from flashsale.scenario.load import Step

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PUBLISHED = resource("run/summary.schema.json")
"""The JSON Schema of a summary as a file beside the code; a test holds the two together."""

Asked = Literal["claims", "reads", "sign-ins", "steps"]


def _known(code: int) -> int:
    return int(ExitCode(code))


KnownCode = Annotated[int, AfterValidator(_known)]
"""An exit code that a process of this version ends with."""


def _named(value: str) -> str:
    return ending(value).value


Outcomes = dict[Annotated[str, AfterValidator(_named)], Count]
"""How many attempts ended so, by the ending's name."""


class SaidFigures(Part):
    """What a server said so often in answers that could not be read or mapped: their first bytes,
    or the message of a rejection that nobody has given a meaning (`error` is then `message`)."""

    error: str
    status: Whole | None
    text: str
    count: Count


class LoadFigures(Part):
    """What was planned and what came of it. `errors` counts what went wrong, by kind; `said` is
    the evidence for those that were answers, the most frequent first."""

    asked: Asked = "claims"
    users: Count
    connections: Count
    closed: bool
    planned: Count
    spared: Count = 0  # conditional attempts (retries, refreshes) for which there was no need
    sent: Count
    duration_s: float
    rate_per_s: float
    outcomes: Outcomes
    errors: dict[str, Count]
    said: list[SaidFigures] = []
    indeterminate: Count
    resolved: Count
    late: Count = 0  # of those resolved, claims that had sold after all
    interrupted_by: KnownCode | None = None  # an exit code: 130 or 143


class LatencyFigures(Part):
    """Response runs from the planned instant, service from the send; `persisted` is verify's.

    Attempts that the storm stopped waiting for are in both, as long as they were waited for:
    `censored` of them, so that a percentile that reaches them is a lower bound.
    """

    response: Latency
    service: Latency
    persisted: PersistedLatency | None = None
    by_outcome: dict[str, Latency]
    censored: Count
    lost: Count


class EndpointSummary(Part):
    """One endpoint of a run: `buy`, `browse` or `sign`."""

    planned: Count
    sent: Count
    outcomes: Outcomes
    response: Latency
    service: Latency
    by_outcome: dict[str, Latency]
    censored: Count


class OrderFigures(Part):
    """Orders acknowledged, found as rows, and refused for a reason of the sale."""

    accepted: Count
    persisted: Count | None = None
    rejected: Count
    drain_s: float | None = None


class Check(Part):
    """One invariant of the sale; `findings` is verify's own, in detail. `exercised` counts what the
    check met, first of all of what it guards; `history` is a part of the run, claim by claim, that
    no sale can have gone through."""

    name: str
    verdict: Verdict
    detail: str = ""
    exercised: dict[str, Count] = {}
    findings: Anything = []
    history: Anything = []


class VerifyFigures(Part):
    """What the judge found; `unknown` and no checks until it was asked."""

    verdict: Verdict = Verdict.UNKNOWN
    reason: str | None = None
    checks: list[Check] = []
    rests_on: list[str] = []
    """Of somebody else's shop: what of its books was read."""
    awaited: bool = False
    """Whoever ran the storm goes on to verify it: until then nothing has been judged."""


class DatabaseFigures(Part):
    """Loads of shops by the database's own count, and what was asked for."""

    loads: Count
    shops: Count
    unknown: Count


class ThresholdFigures(Part):
    """One demand of the scenario; `value` in µs, samples, shares of 1 or per second."""

    metric: str
    condition: str
    verdict: Verdict
    value: float | None
    detail: str


class AbortFigures(ThresholdFigures):
    """A condition that ends a run early; `fail` where it became true."""

    at_end: bool = False
    """It was true only of the whole, when the run had gone through its plan."""


class ShardFigures(Part):
    """Which part of the plan a run fired. Its thresholds are those of all shards together."""

    number: Count
    of: Count


class MergedShard(Part):
    """One of the runs that a run was put together from.

    Where its clock was compared with that of a rendezvous, `barrier_unix_us` is by the latter,
    which was `clock_offset_ms` ahead, give or take `clock_error_ms`.
    """

    number: Count
    run: str
    base_url: str
    barrier_unix_us: Whole | None
    clock_offset_ms: float | None = None
    clock_error_ms: float | None = None


class MergedFigures(Part):
    """What a run was put together from. `caveats` says what no merging can know."""

    shards: list[MergedShard]
    barrier_spread_ms: float
    caveats: list[str]


class Change(Part):
    """One figure of two runs. `unknown` where one of them has too few samples for it."""

    metric: str
    unit: str
    """`ms`, `/s` or `%` (of the planned attempts, written as a share of 1)."""

    before: float | None
    after: float | None
    change: float | None
    """Relative to the figure before: 0.15 is 15 % more. None where there is nothing to relate."""

    verdict: Verdict
    detail: str


class Comparison(Part):
    """A run beside the one that it was compared with."""

    run: str
    """The earlier run's name."""

    folder: str
    """Where that run lies, seen from this run's folder."""

    max_regress: float
    """How much worse a figure may have become, as a share of 1."""

    warnings: list[str]
    """Why the two may differ for another reason than the target."""

    changes: list[Change]

    @property
    def verdict(self) -> Verdict:
        """Fail where one figure has become too bad, unknown where none could be compared."""
        verdicts = {change.verdict for change in self.changes}
        if Verdict.FAIL in verdicts:
            return Verdict.FAIL
        return Verdict.PASS if Verdict.PASS in verdicts else Verdict.UNKNOWN

    @property
    def exit_code(self) -> ExitCode:
        """What the comparison alone amounts to."""
        match self.verdict:
            case Verdict.FAIL:
                return ExitCode.REGRESSION
            case Verdict.PASS:
                return ExitCode.PASS
            case _:
                return ExitCode.NOTHING_JUDGED


class Summary(Part):
    """A run, whole. Two are comparable when their `plan_hash` is equal."""

    schema_version: Literal[1] = Field(
        default=1, validation_alias="schema", serialization_alias="schema"
    )
    run: str
    scenario: str
    question: str
    seed: Whole
    plan_hash: str
    base_url: str
    started_at: str
    verdict: Verdict
    exit_code: KnownCode
    load: LoadFigures
    latency_ms: LatencyFigures
    endpoints: dict[str, EndpointSummary] = {}
    generator: GeneratorFigures
    orders: OrderFigures
    reads: ReadFigures | None = None
    sale: SaleFigures | None = None
    database: DatabaseFigures | None = None
    shard: ShardFigures | None = None
    merged: MergedFigures | None = None
    verify: VerifyFigures = VerifyFigures()
    answers: list[Check] = []
    """Rules of the sale as far as the answers alone prove them broken, by verify's names. One that
    verify has judged, too, counts no longer: it knows the stores."""

    thresholds: list[ThresholdFigures]
    hints: list[str] = []  # what the figures suggest to look at; no part of the verdict
    aborts: list[AbortFigures] = []
    """Conditions that end a run early; where one that `fail`s did, the run is a part."""

    baseline: Comparison | None = None
    machine: Machine | None = None

    @property
    def aborted(self) -> bool:
        """Whether a condition has ended the run before its plan was through."""
        return any(it.verdict is Verdict.FAIL and not it.at_end for it in self.aborts)

    @property
    def standing_answers(self) -> list[Check]:
        """What the answers alone tell of rules that verify has not judged."""
        judged = {it.name for it in self.verify.checks if it.verdict is not Verdict.UNKNOWN}
        return [check for check in self.answers if check.name not in judged]

    @property
    def rules(self) -> list[Check]:
        """What is known of the rules of the sale: by verify, and by the answers alone."""
        return [*self.verify.checks, *self.standing_answers]

    @property
    def doubtful_rules(self) -> list[Check]:
        """The rules that are broken, or that verify could not judge. Where it passed a run all the
        same, the shop has no data for them, and nobody asked for any."""
        settled = [
            Verdict.PASS,
            *([Verdict.UNKNOWN] if self.verify.verdict is Verdict.PASS else []),
        ]
        return [
            *(check for check in self.verify.checks if check.verdict not in settled),
            *(check for check in self.standing_answers if check.verdict is Verdict.FAIL),
        ]

    @property
    def sold_nothing(self) -> bool:
        """Whether claims were made and no unit can have gone: nothing of a sale can be judged.

        One shard of a storm may have come too late for any.
        """
        claimed = self.load.asked == "claims" or Step.BUY.endpoint in self.endpoints
        sold = self.orders.accepted or self.load.late or self.load.indeterminate
        return claimed and not (sold or self.shard)

    def judged(self) -> Self:
        """The same figures with the verdict and exit code that follow from them."""
        code = exit_code_of(self)
        return self.model_copy(update={"exit_code": int(code), "verdict": verdict_of(self, code)})

    def with_verify(self, judgement: Mapping[str, Any]) -> Self:
        """The run as the judge found it, judged again; `judgement` is verify's document.

        Raises ValueError where it is not one.
        """
        verify = VerifyFigures(
            verdict=judgement["verdict"],
            reason=judgement["reason"],
            checks=judgement["checks"],
            rests_on=judgement.get("rests_on", []),
        )
        found = judgement["orders"]
        orders = {"persisted": found["persisted"], "drain_s": found["drain_s"]}
        persisted = judgement["latency_ms"]["persisted"]
        latency = {"persisted": persisted and PersistedLatency.model_validate(persisted)}
        return self.model_copy(
            update={
                "verify": verify,
                "orders": self.orders.model_copy(update=orders),
                "latency_ms": self.latency_ms.model_copy(update=latency),
            }
        ).judged()

    def with_baseline(self, comparison: Comparison) -> Self:
        """The run beside an earlier one, judged again."""
        return self.model_copy(update={"baseline": comparison}).judged()

    def write(self, path: Path) -> None:
        """Write summary.json. Raises NotWrittenError."""
        document = self.model_dump(mode="json", by_alias=True)
        write_file(path, orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The summary at `path`. Raises OSError, and ValueError where it is not one."""
        return cls.model_validate_json(read_file(path))


def exit_code_of(summary: Summary) -> ExitCode:
    """What the process that made or judged this run is to exit with. Pure."""
    codes = [ExitCode.PASS]
    broken = any(check.verdict is Verdict.FAIL for check in summary.standing_answers)
    if broken or summary.verify.verdict is Verdict.FAIL:
        codes.append(ExitCode.VIOLATION)
    if summary.load.interrupted_by is not None:
        codes.append(ExitCode(summary.load.interrupted_by))
    verify = summary.verify
    unjudged = verify.verdict is Verdict.UNKNOWN and (verify.checks or verify.awaited)
    is_invalid = summary.generator.verdict is Health.INVALID
    is_empty = summary.sold_nothing or not _answered(summary.load.outcomes)
    # Shards that did not fire are why there is nothing, and that is what is to be told.
    if unjudged or (is_empty and not (is_invalid and summary.merged)):
        codes.append(ExitCode.NOTHING_JUDGED)
    if is_invalid:
        codes.append(ExitCode.INVALID_RUN)
    demanded = (*summary.thresholds, *summary.aborts)
    if any(it.verdict is not Verdict.PASS for it in demanded):
        codes.append(ExitCode.THRESHOLD)
    if summary.baseline is not None:
        codes.append(summary.baseline.exit_code)
    return worst(*codes)


def verdict_of(summary: Summary, code: ExitCode) -> Verdict:
    """The verdict in one word; an invalid or interrupted run is never a pass."""
    match code:
        case ExitCode.PASS:
            return Verdict.PASS
        case ExitCode.VIOLATION | ExitCode.THRESHOLD | ExitCode.REGRESSION:
            return Verdict.FAIL
        case ExitCode.INVALID_RUN | ExitCode.INTERRUPTED | ExitCode.TERMINATED:
            return Verdict.INVALID
        case _:
            return Verdict.UNKNOWN


def _answered(outcomes: Mapping[str, int]) -> bool:
    return any(outcomes.get(end.value) for end in ENDINGS if end.is_expected)


def summary_schema() -> dict[str, Any]:
    """The JSON Schema of a summary. What one of this version's predecessors lacks is optional."""
    schema = Summary.model_json_schema(by_alias=True, mode="validation")
    title = {"$schema": DIALECT, "title": "summary.json of a flashsale run"}
    return {**title, **{name: part for name, part in schema.items() if name != "title"}}
