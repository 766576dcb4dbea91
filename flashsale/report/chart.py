"""Charts as plain geometry: figures in, coordinates out. The template only draws them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from flashsale.report.number import ms
from flashsale.storm.figures import Timeline
from flashsale.storm.histogram import Histogram

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 12, 30
_TICKS = 4


@dataclass(frozen=True)
class Tick:
    """A label at a coordinate of its axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A named series as the points of an SVG polyline."""

    name: str
    points: str


@dataclass(frozen=True)
class Chart:
    """Lines within axes, on a canvas of WIDTH × HEIGHT."""

    x_ticks: list[Tick]
    y_ticks: list[Tick]
    y_title: str
    lines: list[Line]


def spectrum_chart(series: Mapping[str, Histogram]) -> Chart:
    """Latency by percentile; the horizontal axis stretches the tail, a decade to each nine."""
    most = max((histogram.count for histogram in series.values()), default=0)
    nines = log10(max(10, most))
    top = _nice_top(max((histogram.max_us for histogram in series.values()), default=0) / 1000)

    def x(share: float) -> float:
        decades = nines if share >= 1 else min(nines, -log10(1 - share))
        return LEFT + (WIDTH - LEFT - RIGHT) * decades / nines

    lines = [
        Line(name, _points((x(share), _y(us / 1000, top)) for share, us, _ in found.spectrum()))
        for name, found in series.items()
    ]
    shares = [0.5, *(1 - 10.0**-n for n in range(1, ceil(nines)))]
    x_ticks = [Tick(x(share), f"{100 * share:.10g} %") for share in shares]
    return Chart(x_ticks, _y_ticks(top), "in ms", lines)


def timeline_chart(timeline: Timeline) -> Chart:
    """Claims sent and answers received per slot, against the time since the barrier."""
    slots = len(timeline.sent)
    span_s = slots * timeline.slot_us / 1e6
    top = _nice_top(max([*timeline.sent, *timeline.answered], default=0))
    right = _nice_step(span_s)

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * second / span_s

    def steps(counts: Sequence[int]) -> str:
        edges = [x(slot * timeline.slot_us / 1e6) for slot in range(slots + 1)]
        heights = [_y(count, top) for count in counts]
        flat = ((edges[slot + side], heights[slot]) for slot in range(slots) for side in (0, 1))
        return _points(flat)

    x_ticks = [
        Tick(x(n * right), f"{n * right:.3g} s") for n in range(floor(span_s / right + 1e-9) + 1)
    ]
    lines = [Line("sent", steps(timeline.sent)), Line("answered", steps(timeline.answered))]
    y_title = f"per {timeline.slot_us // 1000} ms"
    return Chart(x_ticks, _y_ticks(top), y_title, lines)


def _points(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _y_ticks(top: float) -> list[Tick]:
    step = _nice_step(top)
    return [Tick(_y(n * step, top), _short(n * step)) for n in range(round(top / step) + 1)]


def _nice_step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that about four of them fill `span`."""
    rough = span / _TICKS
    power = 10.0 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _nice_top(largest: float) -> float:
    """The first whole step at or above `largest`."""
    step = _nice_step(max(largest, 1e-3))
    return step * ceil(max(largest, 1e-3) / step - 1e-9)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else ms(value)
