"""Thresholds: what a scenario demands of the figures of a run.

    [thresholds]
    "buy.response.p99" = "< 500ms"      # all answers to claims, from the planned instant
    "buy.p99" = "< 500ms"               # the same: response is the clock where none is named
    "buy.sold.service.p50" = "<= 20ms"  # those that sold, from the send
    "buy.sold.count" = "== 100"
    "buy.unknown.share" = "< 0.1%"      # of the planned attempts
    "buy.error.share" = "< 1%"          # whatever a healthy sale does not answer
    "start_lag.p99" = "< 50ms"
    "rate" = ">= 10000/s"               # answers per second
    "error.share" = "<= 10%"            # the same of the whole run, whatever it asks for
    "browse.hit.share" = ">= 95%"       # of planned reads, by what `x-cache` said
    "sign.signed.share" = "== 100%"     # of planned sign-ins
    "database.loads" = "== 1"           # SELECTs of a shop, as the database counted them
    "database.loads_per_shop" = "== 100%"     # for each distinct shop that was asked for
    "database.loads_per_unknown" = "<= 1%"    # for each read of an id that does not exist

On the command line the same is one expression, such as 'buy.p99<500ms'. A threshold has to hold: a
run in which it does not fails.

`error.share` is demanded of every run, unless its scenario says otherwise of it: where most claims
fail, no rule of the sale is broken, and still the sale was not held.

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

from flashsale.model import Ending, Outcome, Reading, Signing, Verdict
from flashsale.storm.figures.histogram import SAMPLES_BEYOND, Histogram
from flashsale.storm.figures.loads import Loads

_UNSERVED = (
    Outcome.RATE_LIMITED,
    Outcome.SHED,
    Outcome.REFUSED,
    Outcome.UNSENT,
    Outcome.INDETERMINATE,
)
ENDPOINTS: Mapping[str, Sequence[Ending]] = {
    "buy": tuple(Outcome),
    "browse": (*Reading, *_UNSERVED),
    "sign": (*Signing, *_UNSERVED),
}
"""What can be asked for, and how that can end."""

CLOCKS = ("response", "service")
STATISTICS = ("p50", "p90", "p95", "p99", "p99.9", "mean", "max")

ERROR = "error"
"""Any ending that a healthy sale or storefront does not have."""

DEFAULTS: Mapping[str, str] = {"error.share": "<= 10%"}
"""What every scenario demands that does not say otherwise.

A tenth, since a system that loses one of three replicas fails what was in flight there, once: far
less of a storm that lasts longer than a few of its answers. Above that, a p90 tells of errors.
"""

DATABASE = "database"
_LOADS = {"loads": "count", "loads_per_shop": "share", "loads_per_unknown": "share"}

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_EXPRESSION = re.compile(r"\s*([\w.]+)\s*([<>=].*)")
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


@cache
def metrics() -> Mapping[str, Metric]:
    """Every metric there is, by name."""
    known = {"rate": Metric("rate")}
    known |= {f"{ERROR}.{kind}": Metric(kind, statistic=ERROR) for kind in ("count", "share")}
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
        for kind in ("count", "share"):
            known[f"{endpoint}.{ERROR}.{kind}"] = Metric(kind, statistic=ERROR, endpoint=endpoint)
    return known


@cache
def short_names() -> Mapping[str, str]:
    """Metrics of the response latency by a name that leaves the clock out, with their full one."""
    clock = f".{CLOCKS[0]}."
    return {name.replace(clock, ".", 1): name for name in metrics() if clock in name}


def parse_expression(text: str, where: str) -> Threshold:
    """The threshold written as `name condition`: 'buy.p99<50ms'.

    Raises ValueError with one line, in which `where` says what was read.
    """
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise ValueError(f"{where}: found {text!r}, expected such as 'buy.p99<50ms'")
    return parse_threshold(match[1], match[2], where)


def parse_threshold(name: str, condition: object, where: str = "thresholds") -> Threshold:
    """The threshold written as `name = "condition"`. Raises ValueError as parse_expression does."""
    known, short = metrics(), short_names()
    name = short.get(name, name)
    if name not in known:
        close = get_close_matches(name, [*short, *known], n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{where}: no metric {name!r}{hint} (such as 'buy.response.p99')")
    metric = known[name]
    form, units = _FORMS[metric.kind]
    match = _CONDITION.fullmatch(condition) if isinstance(condition, str) else None
    if match is None or match[3] not in units:
        raise ValueError(f'{where}: "{name}": found {condition!r}, expected {form}')
    comparison, number, unit = match.groups()
    limit = float(number) * units[unit]
    return Threshold(name, f"{comparison} {number}{unit}", metric, comparison, limit)


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
