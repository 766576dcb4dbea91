"""A run is judged: whether what a scenario demands holds of its figures, at its end or under way,
and what its answers alone prove of the rules of the sale. Pure.

Without samples, or with too few for its percentile, a threshold does not hold: silence is no pass.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

from flashsale.model import Ending, Verdict
from flashsale.run.attempts import Attempts
from flashsale.run.histogram import SAMPLES_BEYOND, Histogram
from flashsale.run.summary import Check
from flashsale.scenario.load import Stage
from flashsale.scenario.thresholds import (
    DATABASE,
    Figure,
    Metric,
    Threshold,
    beside,
    parse_expression,
)
from flashsale.storm.figures.figures import Loads, RunningFigures
from flashsale.storm.figures.sale import BuyAttempts

_OPERATORS: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


@dataclass(frozen=True)
class ThresholdResult:
    """What became of a threshold. `value` has its metric's own unit, None without samples.

    `at_end` is of a condition that was true only when the storm had run its course.
    """

    threshold: Threshold
    verdict: Verdict
    value: float | None
    detail: str
    at_end: bool = False


class Endpoint(Protocol):
    """What became of the attempts that asked one endpoint."""

    @property
    def planned(self) -> int:
        """How many were to be made."""

    @property
    def outcomes(self) -> Mapping[Ending, int]:
        """How they ended."""

    def latency(self, clock: str, outcome: Ending | None) -> Histogram:
        """Latencies of all answers, or of those with `outcome`; empty where there are none."""


class Measured(Endpoint, Protocol):
    """What thresholds are judged by: the whole run, and each endpoint by itself."""

    rate_per_s: Fraction
    start_lag: Histogram
    loads: Loads | None

    def of(self, endpoint: str, stage: Stage | None = None) -> Endpoint:
        """The figures of one endpoint, or of those of its attempts that were due in a stage; of no
        attempt where the plan did not ask it."""


def judge(threshold: Threshold, figures: Measured, stages: Sequence[Stage] = ()) -> ThresholdResult:
    """Whether `threshold` holds; `stages` are those of the load. Without samples it fails: silence
    is not a pass."""
    own, *others = threshold.figures
    value, missing = _value(own, figures, stages)
    limit, beside_it = threshold.limit, ""
    for other in others:
        there, why = _value(other, figures, stages)
        if there is None:
            return ThresholdResult(threshold, Verdict.FAIL, None, f"{other.name}: {why}")
        limit *= Fraction(there)
        beside_it = f", beside {_shown(threshold, Fraction(there), limit)}"
    if value is None:
        return ThresholdResult(threshold, Verdict.FAIL, None, missing)
    exact = Fraction(value)
    holds = _OPERATORS[threshold.comparison](exact, limit)
    verdict = Verdict.PASS if holds else Verdict.FAIL
    return ThresholdResult(
        threshold, verdict, float(exact), _shown(threshold, exact, limit) + beside_it
    )


_Number = int | Fraction | None


def _value(figure: Figure, figures: Measured, stages: Sequence[Stage]) -> tuple[_Number, str]:
    """What it is; where it is nothing, None and why."""
    metric = figure.metric
    if metric.clock == DATABASE:
        return _loads(metric, figures.loads)
    if metric.kind == "rate":
        return figures.rate_per_s, ""
    if metric.clock == "start_lag":
        return _statistic(metric, figures.start_lag)
    due_in = stages[figure.stage - 1] if figure.stage else None
    asked = figures.of(metric.endpoint, due_in) if metric.endpoint else figures
    if metric.kind == "latency":
        return _statistic(metric, asked.latency(metric.clock, metric.outcome))
    return _count(metric, asked)


def _loads(metric: Metric, loads: Loads | None) -> tuple[_Number, str]:
    if loads is None:
        return None, "the database's own statistics were not to be had"
    if loads.count is None:
        return None, f"unknown: {loads.why}"
    match metric.statistic:
        case "loads":
            return loads.count, ""
        case "loads_per_shop":
            return loads.per_shop, "no shop was asked for"
        case _:
            return loads.per_unknown, "no unknown id was asked for"


def _count(metric: Metric, asked: Endpoint) -> tuple[_Number, str]:
    if not asked.planned:
        return None, "no samples"
    if metric.outcome is None:
        count = sum(n for end, n in asked.outcomes.items() if not end.is_expected)
    else:
        count = asked.outcomes.get(metric.outcome, 0)
    return count if metric.kind == "count" else Fraction(count, asked.planned), ""


def _statistic(metric: Metric, histogram: Histogram) -> tuple[_Number, str]:
    """The statistic in µs; where there is none, None and why."""
    if not histogram.count:
        return None, "no samples"
    if metric.statistic in ("mean", "max"):
        return histogram.mean if metric.statistic == "mean" else histogram.max_us, ""
    percentile = float(metric.statistic.removeprefix("p"))
    (value,) = histogram.percentiles_us(percentile)
    needed = round(SAMPLES_BEYOND / (1 - percentile / 100))
    return value, f"{histogram.count:,} samples, and {metric.statistic} needs {needed:,}"


_SHOWN = {
    "latency": (Fraction(1, 1000), 1, " ms"),
    "share": (Fraction(100), 2, "%"),
    "rate": (Fraction(1), 0, "/s"),
    "count": (Fraction(1), 0, ""),
}
"""How a figure is shown: in which unit, with how many digits after the point at least."""


def _shown(threshold: Threshold, value: Fraction, limit: Fraction) -> str:
    scale, digits, unit = _SHOWN[threshold.metric.kind]
    return beside(value * scale, limit * scale, digits) + unit


LOOK_S = 0.25
SETTLING_S = 1.0
"""A rate is not judged before: nothing has been answered when the barrier opens."""

ENDED_MIN, ENDED_SHARE_MIN = 100, 0.1
"""So many attempts, or such a share of a small plan, have to have ended before shares and latencies
are judged: the first answers of a storm are no sample of it."""


def parse_abort(text: str, where: str) -> Threshold:
    """The condition written as `metric condition`. Raises ValueError with one line."""
    condition = parse_expression(text, where)
    if condition.metric.clock == DATABASE or condition.stage:
        raise ValueError(f"{where}: {condition.name!r} is known only when the storm is over")
    if condition.metric.kind == "count" and condition.comparison not in (">", ">="):
        raise ValueError(
            f"{where}: a count is too small when a storm begins: found {text!r}, expected > or >="
        )
    return condition


class AbortWatch:
    """Looks whether some of its conditions have become true. `judgements` says what became of each:
    FAIL for those that ended the storm, or that were true when it was over.

    A condition is that of `--abort-if 'buy.indeterminate.share>20%'`: a metric like those of
    thresholds, but of the attempts that have ended so far, and it is to become true, where a
    threshold has to hold. It is judged a few times a second beside the storm, and once more on all
    of it when it is over; without a condition there is nothing to count.
    """

    def __init__(
        self, conditions: Sequence[Threshold], attempts: Attempts, asks: Sequence[int]
    ) -> None:
        self._conditions = conditions
        metrics = [condition.metric for condition in conditions]
        self._figures = RunningFigures(attempts, asks, metrics)
        self._next_s = 0.0
        self._ended_min = max(1, min(ENDED_MIN, round(ENDED_SHARE_MIN * len(attempts.answers))))
        self.met: dict[int, ThresholdResult] = {}

    def __repr__(self) -> str:
        return f"<AbortWatch {len(self._conditions)} conditions met={[*self.met.values()]}>"

    def look(self, elapsed_s: float) -> bool:
        """Whether the storm is to end now; True at most once."""
        if not self._conditions or self.met:
            return False
        self._figures.take_new(elapsed_s)  # every time: less at once keeps nobody waiting
        if elapsed_s < self._next_s:
            return False
        self._next_s = elapsed_s + LOOK_S
        ended = f"{self._figures.planned:,} attempts had ended after {elapsed_s:.1f} s"
        for number, condition in enumerate(self._conditions):
            if self._can_be_told(condition):
                self._judge(number, f"when {ended}")
        return bool(self.met)

    def end(self, elapsed_s: float) -> None:
        """The storm has ended by itself after so long: judge the whole of it, however short."""
        if not self._conditions or self.met:
            return
        self._figures.take_new(elapsed_s)
        for number in range(len(self._conditions)):
            self._judge(number, "when the storm was over", at_end=True)

    @property
    def judgements(self) -> list[ThresholdResult]:
        """One for each condition."""
        early = any(not judgement.at_end for judgement in self.met.values())
        untrue = "was not true when another ended the storm" if early else "did not become true"
        return [
            self.met.get(number) or ThresholdResult(condition, Verdict.PASS, None, untrue)
            for number, condition in enumerate(self._conditions)
        ]

    def _judge(self, number: int, when: str, at_end: bool = False) -> None:
        found = judge(self._conditions[number], self._figures)
        if found.verdict is Verdict.PASS:
            detail = f"{found.detail} {when}"
            self.met[number] = replace(found, verdict=Verdict.FAIL, detail=detail, at_end=at_end)

    def _can_be_told(self, condition: Threshold) -> bool:
        match condition.metric.kind:
            case "count":
                return True
            case "rate":
                return self._figures.elapsed_s >= SETTLING_S
            case _:
                endpoint = condition.metric.endpoint
                part = self._figures.of(endpoint) if endpoint else self._figures
                return part.planned >= self._ended_min


EXAMPLES_MAX = 3
"""Breaches of a rule that are told one by one."""


def answer_checks(claimed: Sequence[BuyAttempts]) -> list[Check]:
    """The rules of the sale that HTTP alone can find broken, by the names that `verify` has for
    them; none where nothing was claimed.

    Who knows the stores knows better: of units that came back meanwhile, or of what was restocked.
    """
    if not claimed:
        return []
    orders = sum(claims.sold for claims in claimed)
    found = {
        "no_oversell": list(_oversold(claimed)),
        "one_per_user": list(_sold_twice(claimed)),
        "unique_ids": list(_given_twice(claimed)),
    }
    unknown = {"no_oversell": "of how many units is not known"} if _units(claimed) is None else {}
    return [_check(name, orders, told, unknown.get(name, "")) for name, told in found.items()]


def _check(name: str, orders: int, breaches: Sequence[str], unknown: str) -> Check:
    told = f"{orders:,} order{'' if orders == 1 else 's'}, by the answers alone"
    if breaches:
        more = len(breaches) - EXAMPLES_MAX
        shown = [*breaches[:EXAMPLES_MAX], *([f"{more:,} more"] if more > 0 else [])]
        return Check(name=name, verdict=Verdict.FAIL, detail=f"{told}: {'; '.join(shown)}")
    if unknown or not orders:
        detail = f"{told}; {unknown}" if orders else "no answer told of an order"
        return Check(name=name, verdict=Verdict.UNKNOWN, detail=detail)
    return Check(name=name, verdict=Verdict.PASS, detail=told)


def _units(claimed: Sequence[BuyAttempts]) -> int | None:
    known = [claims.units for claims in claimed if claims.units is not None]
    return sum(known) if len(known) == len(claimed) else None


def _oversold(claimed: Sequence[BuyAttempts]) -> Iterator[str]:
    for claims in claimed:
        if claims.units is not None and claims.units_sold > claims.units:
            each = f" with {claims.quantity:,} units each" if claims.quantity > 1 else ""
            told = f"{claims.sold:,} orders{each} of {claims.units:,} units"
            yield f"voucher {claims.voucher}: {told}"


def _sold_twice(claimed: Sequence[BuyAttempts]) -> Iterator[str]:
    for claims in claimed:
        for user, ids in claims.orders.items():
            if len(ids) > claims.limit:
                told = " and ".join(sorted(ids)[:EXAMPLES_MAX])
                yield f"voucher {claims.voucher}: user {user} was told of orders {told}"


def _given_twice(claimed: Sequence[BuyAttempts]) -> Iterator[str]:
    owners: dict[str, tuple[int, int]] = {}
    for claims in claimed:
        for user, ids in claims.orders.items():
            for order in ids:
                other, voucher = owners.setdefault(order, (user, claims.voucher))
                if (other, voucher) != (user, claims.voucher):
                    yield (
                        f"order {order} was given to user {user} (voucher {claims.voucher}) "
                        f"and to user {other} (voucher {voucher})"
                    )
