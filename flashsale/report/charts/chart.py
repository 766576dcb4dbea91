"""A chart: what plotly draws, and the same in words and in a table for who cannot see it; and the
series it draws: a whole run in a few hundred points, however long it was. Pure.

Colours are names of the page's own, such as `--accent`: the page's script puts in what they stand
for in the light and in the dark. Nothing is drawn attempt by attempt. What runs along time is
counted in slots, what runs along the order of arrival is cut into bins of equally many attempts; of
each bin the median, the band between the 10th and the 90th percentile and the extreme are kept, so
that an outlier never vanishes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from flashsale.model import ENDINGS, Doing, Ending, Outcome, Reading, Signing, ending
from flashsale.run.attempts import Attempts
from flashsale.run.parts import FaultRecord
from flashsale.run.summary import Summary
from flashsale.storm.figures.figures import Figures

Trace = dict[str, Any]
"""A trace as plotly.js reads it."""

ROWS_MAX = 10
"""In a chart's table: it is there to be read."""

COLOURS: dict[Ending, str] = {
    Outcome.SOLD: "--accent",
    Outcome.SOLD_OUT: "--slate",
    Outcome.DUPLICATE: "--purple",
    Outcome.NOT_OPEN: "--sky",
    Outcome.ENDED: "--sky",
    Outcome.PAUSED: "--yellow",
    Outcome.RATE_LIMITED: "--yellow",
    Outcome.SHED: "--rust",
    Reading.HIT: "--green",
    Reading.STALE: "--sky",
    Reading.LOAD: "--orange",
    Reading.WAIT: "--yellow",
    Reading.NULL: "--purple",
    Reading.BLOOM: "--slate",
    Reading.ANSWERED: "--green",
    Signing.SIGNED: "--purple",
    Doing.DONE: "--green",
}
"""From a palette that the colour-blind can tell apart; whatever is missing here is trouble."""

TROUBLE = "--red"


def colour_of(name: str) -> str:
    """The colour of an outcome, by the name that a summary gives it."""
    try:
        return COLOURS.get(ending(name), TROUBLE)
    except ValueError:
        return TROUBLE


class Run(NamedTuple):
    """A run as its charts need it."""

    summary: Summary
    figures: Figures
    faults: Sequence[FaultRecord] = ()


@dataclass(frozen=True)
class FigureTable:
    """The figures behind a chart, as text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    """One chart. `key` names it on the page, `reading` says what it shows."""

    key: str
    title: str
    reading: str
    table: FigureTable
    traces: list[Trace]
    layout: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What the page's script hands to plotly."""
        return {"key": self.key, "data": self.traces, "layout": self.layout}


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title."""
    return {"title": {"text": title}, **more}


def seconds_axis() -> dict[str, Any]:
    """Time since the barrier."""
    return axis("seconds after the barrier", rangemode="tozero")


def line(name: str, colour: str, points: Sequence[tuple[float, float]], **more: Any) -> Trace:
    """A line through (x, y); `more` replaces what is set here."""
    style = {"color": colour, "width": 2} | more.pop("line", {})
    return {
        "type": "scatter",
        "mode": "lines"
        if len(points) > 1
        else "lines+markers",  # a line of one point shows nothing
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": style,
        **more,
    }


def thinned(count: int, most: int = ROWS_MAX) -> list[int]:
    """Indices of at most `most` of `count` rows, the last one always among them."""
    if count <= most:
        return list(range(count))
    return [(n + 1) * count // most - 1 for n in range(most)]


def with_bands(layout: dict[str, Any], faults: Sequence[FaultRecord]) -> dict[str, Any]:
    """The layout of a chart along time with a band for each fault, from its making to its healing.

    One that was healed at once is as wide as a line.
    """
    made = [fault for fault in faults if fault.done_ms is not None]
    if not made:
        return layout
    shapes, texts = list(layout.get("shapes", ())), list(layout.get("annotations", ()))
    for number, fault in enumerate(made):
        begin = (fault.done_ms or 0.0) / 1000
        end = begin if fault.healed_ms is None else fault.healed_ms / 1000
        at = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
        fill = {"fillcolor": TROUBLE, "opacity": 0.12, "line": {"width": 1, "color": TROUBLE}}
        shapes.append({"type": "rect", "x0": begin, "x1": end, **at, **fill})
        text = {"x": begin, "y": 1 - 0.07 * number, "yref": "paper", "showarrow": False}
        name = f"{fault.what} {fault.whom}"
        texts.append({**text, "text": name, "xanchor": "left", "yanchor": "top", "xshift": 2})
    return {**layout, "shapes": shapes, "annotations": texts}


# Series ------------------------------------------------------------------------------------------

POINTS_MAX = 400
"""Slots or steps in one series."""

BINS_MAX = 150
_FINEST_US = 1_000


@dataclass(frozen=True)
class Slots:
    """Counts by kind, in slots of `width_us` after the barrier. Kinds are in order of display."""

    width_us: int
    counts: dict[Ending, list[int]]

    @property
    def middles_s(self) -> list[float]:
        """Where each slot stands, in seconds after the barrier."""
        length = max(map(len, self.counts.values()), default=0)
        return [round((slot + 0.5) * self.width_us / 1e6, 6) for slot in range(length)]


@dataclass(frozen=True)
class Bin:
    """Some neighbours along an axis: where they end on it, and how their values spread."""

    until: float
    size: int
    p10: int
    p50: int
    p90: int
    p99: int
    max: int


def width_us(span_us: int, slots: int) -> int:
    """1, 2 or 5 times a power of ten, 1 ms at least, so that at most `slots` of them fill the
    span."""
    width = _FINEST_US
    while True:
        for factor in (1, 2, 5):
            if span_us < width * factor * slots:
                return width * factor
        width *= 10


def endings(attempts: Attempts, slots: int = 100) -> Slots:
    """How attempts ended, by when they did."""
    span_us = _span_us(attempts)
    width = width_us(span_us, slots)
    done, origin, width_ns = attempts.done_ns, attempts.origin_ns, width * 1000
    found = Counter(
        (answer.outcome, (done[i] - origin) // width_ns) for i, answer in attempts.settled()
    )
    there = {ending for ending, _ in found}
    every = range(span_us // width + 1)
    return Slots(width, {end: [found[end, s] for s in every] for end in ENDINGS if end in there})


def stock(attempts: Attempts, units: int) -> list[tuple[float, int]]:
    """(seconds after the barrier, units left) as buyers' orders arrived, from all units on. One
    that was told again arrived when it was told first; of orders without an id none is."""
    first: dict[str | int, int] = {}
    for i, answer in attempts.settled():
        if answer.outcome is Outcome.SOLD:
            at_us = (attempts.done_ns[i] - attempts.origin_ns) // 1000
            order = i if answer.order is None else answer.order
            first[order] = min(at_us, first.get(order, at_us))
    arrived = sorted(first.values())
    every = max(1, -(-len(arrived) // POINTS_MAX))
    sold = sorted({*range(every, len(arrived) + 1, every), len(arrived)} - {0})
    steps = [(arrived[n - 1] / 1e6, units - n) for n in sold]
    end = (_span_us(attempts) / 1e6, units - len(arrived))
    return [(0.0, units), *steps, end]


def latency_by_rank(attempts: Attempts, chosen: Iterable[int]) -> list[Bin]:
    """Response latency of `attempts`, in the order in which they were sent."""
    order = sorted(chosen, key=attempts.sent_ns.__getitem__)
    values = attempts.latencies_us(order, attempts.due_ns)
    edges = _edges(len(values))
    return [_bin(values[start:end], end) for start, end in pairwise(edges)]


def latency_by_time(attempts: Attempts, chosen: Iterable[int], slots: int = 60) -> list[Bin]:
    """Response latency of `attempts`, by the slot of time (in seconds) in which each ended."""
    width = width_us(_span_us(attempts), slots)
    bins: dict[int, list[int]] = {}
    ended = list(chosen)
    for i, value in zip(ended, attempts.latencies_us(ended, attempts.due_ns), strict=True):
        at_us = (attempts.done_ns[i] - attempts.origin_ns) // 1000
        bins.setdefault(at_us // width, []).append(value)
    return [_bin(values, (slot + 1) * width / 1e6) for slot, values in sorted(bins.items())]


def start_lag(attempts: Attempts) -> list[Bin]:
    """How late attempts were sent, by the instant (in seconds) at which they were."""
    origin = attempts.origin_ns
    lags = sorted((attempts.sent_ns[i] - origin, lag) for i, lag in attempts.start_lags_us())
    if not lags:
        return []
    first, last = lags[0][0] // 1000, lags[-1][0] // 1000
    width = width_us(max(0, last - first), BINS_MAX)
    bins: dict[int, list[int]] = {}
    for at_ns, lag in lags:
        bins.setdefault(at_ns // 1000 // width, []).append(lag)
    return [_bin(values, (slot + 1) * width / 1e6) for slot, values in sorted(bins.items())]


def _edges(count: int) -> list[int]:
    bins = min(BINS_MAX, count)
    return [n * count // bins for n in range(bins + 1)] if bins else []


def _bin(values: Sequence[int], until: float) -> Bin:
    ordered = sorted(values)

    def at(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Bin(until, len(ordered), at(0.1), at(0.5), at(0.9), at(0.99), ordered[-1])


def _span_us(attempts: Attempts) -> int:
    return (attempts.last_done_ns() - attempts.origin_ns) // 1000
