"""Thresholds: what a scenario demands of the figures of a run, and how that is written.

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
    "stage2.buy.shed.count" = "== 0"    # of those due in the second stage of the load
    "stage2.buy.sold.p99" = "<= 3x stage1.buy.sold.p99"    # a multiple of another figure

On the command line the same is one expression, such as 'buy.p99<500ms'. A threshold has to hold: a
run in which it does not fails.

`error.share` is demanded of every run, unless its scenario says otherwise of it: where most claims
fail, no rule of the sale is broken, and still the sale was not held.

Limits are the decimal fractions that were written, and figures are compared with them exactly: 19
of 20 is `>= 95%`.

A metric that does not exist is refused before anything is sent. One that has no samples when the
run is over, or too few for its percentile, does not hold.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import cache

from flashsale.model import Doing, Ending, Outcome, Reading, Signing
from flashsale.scenario.table import shown, unquoted

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
    "login": (*Doing, *_UNSERVED),
    "cart": (*Doing, *_UNSERVED),
    "pay": (*Doing, *_UNSERVED),
    "cancel": (*Doing, *_UNSERVED),
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

_EXPRESSION = re.compile(r"\s*([\w.]+)\s*([<>=].*)")
_CONDITION = re.compile(
    r"\s*(<=|>=|==|<|>)\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(us|µs|ms|s|%|/s|)\s*"
)
_STAGED = re.compile(r"stage([1-9][0-9]{0,3})\.(.+)")
_MULTIPLE = re.compile(r"\s*(<=|>=|<|>)\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)x\s+([\w.]+)\s*")
_ONE = Fraction(1)
_LATENCY_UNITS = {"us": _ONE, "µs": _ONE, "ms": Fraction(1000), "s": Fraction(1_000_000)}
_FORMS = {
    "latency": ("a duration such as '< 500ms'", _LATENCY_UNITS),
    "count": ("a number such as '== 100'", {"": _ONE}),
    "share": ("a share such as '< 1%'", {"%": Fraction(1, 100)}),
    "rate": ("a rate such as '>= 10000/s'", {"/s": _ONE}),
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
class Figure:
    """A metric by its full name, of the whole run or of what was due in a stage (from 1 on)."""

    name: str
    metric: Metric
    stage: int = 0


@dataclass(frozen=True)
class Threshold:
    """One demand: a metric compared with `limit`, in µs, samples, shares of 1 or per second; where
    there is another figure `beside` it, with so many times that."""

    name: str
    condition: str
    metric: Metric
    comparison: str
    limit: Fraction
    stage: int = 0
    beside: Figure | None = None

    @property
    def figures(self) -> list[Figure]:
        """What it asks for."""
        own = Figure(self.name, self.metric, self.stage)
        return [own] if self.beside is None else [own, self.beside]


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
    if isinstance(condition, dict):
        raise ValueError(unquoted(where, name, condition))
    figure = _figure(name, where)
    name, metric, stage = figure.name, figure.metric, figure.stage
    if isinstance(condition, str) and (match := _MULTIPLE.fullmatch(condition)):
        comparison, number, text = match.groups()
        other = _figure(text, where)
        if other.metric.kind != metric.kind:
            raise ValueError(
                f"{where}: {name!r} is a {metric.kind}, {text!r} a {other.metric.kind}"
            )
        told = f"{comparison} {number}x {other.name}"
        return Threshold(name, told, metric, comparison, Fraction(number), stage, other)
    form, units = _FORMS[metric.kind]
    match = _CONDITION.fullmatch(condition) if isinstance(condition, str) else None
    if match is None or match[3] not in units:
        raise ValueError(f'{where}: "{name}": found {shown(condition)}, expected {form}')
    comparison, number, unit = match.groups()
    limit = Fraction(number) * units[unit]
    return Threshold(name, f"{comparison} {number}{unit}", metric, comparison, limit, stage)


def _figure(text: str, where: str) -> Figure:
    """The figure of this name. Raises ValueError with one line."""
    staged = _STAGED.fullmatch(text)
    stage, name = (int(staged[1]), staged[2]) if staged else (0, text)
    known, short = metrics(), short_names()
    name = short.get(name, name)
    if name not in known:
        close = get_close_matches(name, [*short, *known], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "expected such as 'buy.response.p99'"
        raise ValueError(f"{where}: no metric {text!r}, {hint}")
    metric = known[name]
    if stage and (not metric.endpoint or metric.clock == DATABASE):
        raise ValueError(f"{where}: {text!r}: {name!r} is of the whole run, and of no stage")
    return Figure(f"stage{stage}.{name}" if stage else name, metric, stage)


def beside(figure: Fraction, limit: Fraction, digits: int) -> str:
    """A figure in decimals, with `digits` after the point or as many more as show on which side of
    `limit` it is. Pure."""
    while _side(round(figure, digits), limit) != _side(figure, limit):
        digits += 1
    whole, part = divmod(round(figure * 10**digits), 10**digits)
    return f"{whole:,}.{part:0{digits}d}" if digits else f"{whole:,}"


def _side(figure: Fraction, limit: Fraction) -> int:
    return (figure > limit) - (figure < limit)
