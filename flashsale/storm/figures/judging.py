"""A run is judged: whether what a scenario demands holds of its figures, and what its answers alone
prove of the rules of the sale. Pure.

Without samples, or with too few for its percentile, a threshold does not hold: silence is no pass.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from flashsale.model import Ending, Verdict
from flashsale.run.histogram import SAMPLES_BEYOND, Histogram
from flashsale.run.summary import Check
from flashsale.scenario.load import Stage
from flashsale.scenario.thresholds import DATABASE, Figure, Metric, Threshold, beside
from flashsale.storm.figures.sale import Claims

_OPERATORS: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Loads:
    """Loads of shops, as the database itself counted them, beside what was asked for.

    A count that would not be exact is None, and `why` says so: it fails what is demanded of it.
    """

    count: int | None
    shops: int  # distinct shops that were asked for and exist
    unknown: int  # reads of ids that do not exist
    why: str = ""

    @property
    def per_shop(self) -> Fraction | None:
        """Loads for each shop that was asked for; None where none was, or none was counted."""
        return None if self.count is None or not self.shops else Fraction(self.count, self.shops)

    @property
    def per_unknown(self) -> Fraction | None:
        """Loads for each read of an unknown id; None where there was none, too."""
        if self.count is None or not self.unknown:
            return None
        return Fraction(self.count, self.unknown)


@dataclass(frozen=True)
class Judgement:
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


class Figures(Endpoint, Protocol):
    """What thresholds are judged by: the whole run, and each endpoint by itself."""

    rate_per_s: Fraction
    start_lag: Histogram
    loads: Loads | None

    def of(self, endpoint: str, stage: Stage | None = None) -> Endpoint:
        """The figures of one endpoint, or of those of its attempts that were due in a stage; of no
        attempt where the plan did not ask it."""


def judge(threshold: Threshold, figures: Figures, stages: Sequence[Stage] = ()) -> Judgement:
    """Whether `threshold` holds; `stages` are those of the load. Without samples it fails: silence
    is not a pass."""
    own, *others = threshold.figures
    value, missing = _value(own, figures, stages)
    limit, beside_it = threshold.limit, ""
    for other in others:
        there, why = _value(other, figures, stages)
        if there is None:
            return Judgement(threshold, Verdict.FAIL, None, f"{other.name}: {why}")
        limit *= Fraction(there)
        beside_it = f", beside {_shown(threshold, Fraction(there), limit)}"
    if value is None:
        return Judgement(threshold, Verdict.FAIL, None, missing)
    exact = Fraction(value)
    holds = _OPERATORS[threshold.comparison](exact, limit)
    verdict = Verdict.PASS if holds else Verdict.FAIL
    return Judgement(threshold, verdict, float(exact), _shown(threshold, exact, limit) + beside_it)


_Number = int | Fraction | None


def _value(figure: Figure, figures: Figures, stages: Sequence[Stage]) -> tuple[_Number, str]:
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


EXAMPLES_MAX = 3
"""Breaches of a rule that are told one by one."""


def answer_checks(claimed: Sequence[Claims]) -> list[Check]:
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


def _units(claimed: Sequence[Claims]) -> int | None:
    known = [claims.units for claims in claimed if claims.units is not None]
    return sum(known) if len(known) == len(claimed) else None


def _oversold(claimed: Sequence[Claims]) -> Iterator[str]:
    for claims in claimed:
        if claims.units is not None and claims.units_sold > claims.units:
            each = f" with {claims.quantity:,} units each" if claims.quantity > 1 else ""
            told = f"{claims.sold:,} orders{each} of {claims.units:,} units"
            yield f"voucher {claims.voucher}: {told}"


def _sold_twice(claimed: Sequence[Claims]) -> Iterator[str]:
    for claims in claimed:
        for user, ids in claims.orders.items():
            if len(ids) > claims.limit:
                told = " and ".join(sorted(ids)[:EXAMPLES_MAX])
                yield f"voucher {claims.voucher}: user {user} was told of orders {told}"


def _given_twice(claimed: Sequence[Claims]) -> Iterator[str]:
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
