"""A chart: what plotly draws, and the same in words and in a table for who cannot see it.

Colours are names of the page's own, such as `--accent`: the page's script puts in what they stand
for in the light and in the dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flashsale.model import Doing, Ending, Outcome, Reading, Signing, ending
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
class Table:
    """The figures behind a chart, as text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    """One chart. `key` names it on the page, `reading` says what it shows."""

    key: str
    title: str
    reading: str
    table: Table
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
