"""Thresholds: what a scenario demands of the figures of a run.

    [thresholds]
    "buy.response.p99" = "< 500ms"      # all answers to claims, from the planned instant
    "buy.sold.service.p50" = "<= 20ms"  # those that sold, from the send
    "buy.sold.count" = "== 100"
    "buy.unknown.share" = "< 0.1%"      # of the planned attempts
    "start_lag.p99" = "< 50ms"
    "rate" = ">= 10000/s"               # answers per second
    "browse.hit.share" = ">= 95%"       # of planned reads, by what `x-cache` said
    "database.loads" = "== 1"           # SELECTs of a shop, as the database counted them
    "database.loads_per_shop" = "== 100%"     # for each distinct shop that was asked for
    "database.loads_per_unknown" = "<= 1%"    # for each read of an id that does not exist

A metric that does not exist is refused before anything is sent. One that has no samples when the
run is over, or too few for its percentile, does not hold.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Protocol

from flashsale.model import Ending, Outcome, Reading, Verdict
from flashsale.storm.histogram import SAMPLES_BEYOND, Histogram
from flashsale.storm.loads import Loads

ENDPOINTS: Mapping[str, Sequence[Ending]] = {
    "buy": tuple(Outcome),
    "browse": (
        *Reading,
        Outcome.RATE_LIMITED,
        Outcome.SHED,
        Outcome.REFUSED,
        Outcome.UNSENT,
        Outcome.INDETERMINATE,
    ),
}
"""What can be asked for, and how that can end."""

CLOCKS = ("response", "service")
STATISTICS = ("p50", "p90", "p95", "p99", "p99.9", "mean", "max")

DATABASE = "database"
_LOADS = {"loads": "count", "loads_per_shop": "share", "loads_per_unknown": "share"}

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_CONDITION = re.compile(r"\s*(<=|>=|==|<|>)\s*([0-9]+(?:\.[0-9]+)?)\s*(us|µs|ms|s|%|/s|)\s*")
_LATENCY_UNITS = {"us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}
_FORMS = {
    "latency": ("a duration such as '< 500ms'", _LATENCY_UNITS),
    "count": ("a number such as '== 100'", {"": 1.0}),
    "share": ("a share such as '< 1%'", {"%": 0.01}),
    "rate": ("a rate such as '>= 10000/s'", {"/s": 1.0}),
}


@dataclass(frozen=True)
class Metric:
    """A figure that can be demanded: its kind, and what it is taken from."""

    kind: str  # latency, count, share, rate
    outcome: Ending | None = None
    clock: str = ""  # response, service, start_lag, database
    statistic: str = ""
    endpoint: str = ""  # none: of the whole run


@dataclass(frozen=True)
class Threshold:
    """One demand: a metric compared with `limit`, in µs, samples, shares of 1 or per second."""

    name: str
    condition: str
    metric: Metric
    comparison: str
    limit: float


@dataclass(frozen=True)
class Judgement:
    """What became of a threshold. `value` has its metric's own unit, None without samples."""

    threshold: Threshold
    verdict: Verdict
    value: float | None
    detail: str


class Figures(Protocol):
    """What thresholds are judged by."""

    planned: int
    outcomes: Mapping[Ending, int]
    rate_per_s: float
    start_lag: Histogram
    loads: Loads | None

    def latency(self, clock: str, outcome: Ending | None) -> Histogram:
        """Latencies of all answers, or of those with `outcome`; empty where there are none."""


@cache
def metrics() -> Mapping[str, Metric]:
    """Every metric there is, by name."""
    known = {"rate": Metric("rate")}
    for name, kind in _LOADS.items():
        known[f"{DATABASE}.{name}"] = Metric(kind, None, DATABASE, name, "browse")
    known |= {
        f"start_lag.{stat}": Metric("latency", None, "start_lag", stat) for stat in STATISTICS
    }
    for endpoint, endings in ENDPOINTS.items():
        for outcome in (None, *endings):
            subject = f"{endpoint}.{outcome}" if outcome else endpoint
            for clock in CLOCKS:
                for stat in STATISTICS:
                    name = f"{subject}.{clock}.{stat}"
                    known[name] = Metric("latency", outcome, clock, stat, endpoint)
            if outcome:
                known[f"{subject}.count"] = Metric("count", outcome, endpoint=endpoint)
                known[f"{subject}.share"] = Metric("share", outcome, endpoint=endpoint)
    return known


def parse_threshold(name: str, condition: object) -> Threshold:
    """The threshold written as `name = "condition"`. Raises ValueError with one line."""
    known = metrics()
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"thresholds: no metric {name!r}{hint} (such as 'buy.response.p99')")
    metric = known[name]
    form, units = _FORMS[metric.kind]
    match = _CONDITION.fullmatch(condition) if isinstance(condition, str) else None
    if match is None or match[3] not in units:
        raise ValueError(f'thresholds."{name}": found {condition!r}, expected {form}')
    return Threshold(name, match[0].strip(), metric, match[1], float(match[2]) * units[match[3]])


def judge(threshold: Threshold, figures: Figures) -> Judgement:
    """Whether `threshold` holds. Without samples it fails: silence is not a pass."""
    metric = threshold.metric
    if metric.kind == "latency":
        value, missing = _latency(metric, figures)
    elif metric.clock == DATABASE:
        value, missing = _loads(metric, figures.loads)
    else:
        value, missing = _figure(metric, figures), ""
    if value is None:
        return Judgement(threshold, Verdict.FAIL, None, missing)
    holds = _OPERATORS[threshold.comparison](value, threshold.limit)
    verdict = Verdict.PASS if holds else Verdict.FAIL
    return Judgement(threshold, verdict, value, _shown(metric.kind, value))


def _loads(metric: Metric, loads: Loads | None) -> tuple[float | None, str]:
    if loads is None:
        return None, "the database's own statistics were not to be had"
    match metric.statistic:
        case "loads":
            return loads.count, ""
        case "loads_per_shop":
            return loads.per_shop, "no shop was asked for"
        case _:
            return loads.per_unknown, "no unknown id was asked for"


def _figure(metric: Metric, figures: Figures) -> float:
    if metric.outcome is None:
        return figures.rate_per_s
    count = figures.outcomes.get(metric.outcome, 0)
    return count if metric.kind == "count" else count / figures.planned


def _latency(metric: Metric, figures: Figures) -> tuple[float | None, str]:
    """The statistic in µs; where there is none, None and why."""
    if metric.clock == "start_lag":
        histogram = figures.start_lag
    else:
        histogram = figures.latency(metric.clock, metric.outcome)
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
