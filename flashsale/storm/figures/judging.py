"""Thresholds are judged: whether what a scenario demands holds of the figures of a run. Pure.

Without samples, or with too few for its percentile, a threshold does not hold: silence is no pass.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from flashsale.model import Ending, Verdict
from flashsale.run.histogram import SAMPLES_BEYOND, Histogram
from flashsale.scenario.thresholds import DATABASE, Metric, Threshold

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
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
    def per_shop(self) -> float | None:
        """Loads for each shop that was asked for; None where none was, or none was counted."""
        return None if self.count is None or not self.shops else self.count / self.shops

    @property
    def per_unknown(self) -> float | None:
        """Loads for each read of an unknown id; None where there was none, too."""
        return None if self.count is None or not self.unknown else self.count / self.unknown


@dataclass(frozen=True)
class Judgement:
    """What became of a threshold. `value` has its metric's own unit, None without samples."""

    threshold: Threshold
    verdict: Verdict
    value: float | None
    detail: str


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

    rate_per_s: float
    start_lag: Histogram
    loads: Loads | None

    def of(self, endpoint: str) -> Endpoint:
        """The figures of one endpoint; of no attempt where the plan did not ask it."""


def judge(threshold: Threshold, figures: Figures) -> Judgement:
    """Whether `threshold` holds. Without samples it fails: silence is not a pass."""
    metric = threshold.metric
    if metric.kind == "latency":
        value, missing = _latency(metric, figures)
    elif metric.clock == DATABASE:
        value, missing = _loads(metric, figures.loads)
    else:
        value, missing = _figure(metric, figures)
    if value is None:
        return Judgement(threshold, Verdict.FAIL, None, missing)
    holds = _OPERATORS[threshold.comparison](value, threshold.limit)
    verdict = Verdict.PASS if holds else Verdict.FAIL
    return Judgement(threshold, verdict, value, _shown(metric.kind, value))


def _loads(metric: Metric, loads: Loads | None) -> tuple[float | None, str]:
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


def _figure(metric: Metric, figures: Figures) -> tuple[float | None, str]:
    if metric.kind == "rate":
        return figures.rate_per_s, ""
    asked = figures.of(metric.endpoint) if metric.endpoint else figures
    if not asked.planned:
        return None, "no samples"
    if metric.outcome is None:
        count = sum(n for end, n in asked.outcomes.items() if not end.is_expected)
    else:
        count = asked.outcomes.get(metric.outcome, 0)
    return count if metric.kind == "count" else count / asked.planned, ""


def _latency(metric: Metric, figures: Figures) -> tuple[float | None, str]:
    """The statistic in µs; where there is none, None and why."""
    if metric.clock == "start_lag":
        histogram = figures.start_lag
    else:
        histogram = figures.of(metric.endpoint).latency(metric.clock, metric.outcome)
    if not histogram.count:
        return None, "no samples"
    if metric.statistic in ("mean", "max"):
        return histogram.mean_us if metric.statistic == "mean" else histogram.max_us, ""
    percentile = float(metric.statistic.removeprefix("p"))
    (value,) = histogram.percentiles_us(percentile)
    needed = round(SAMPLES_BEYOND / (1 - percentile / 100))
    return value, f"{histogram.count:,} samples, and {metric.statistic} needs {needed:,}"


def _shown(kind: str, value: float) -> str:
    match kind:
        case "latency":
            return f"{value / 1000:,.1f} ms"
        case "share":
            return f"{value:.2%}"
        case "rate":
            return f"{value:,.0f}/s"
        case _:
            return f"{value:,.0f}"
