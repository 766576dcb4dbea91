"""The charts of a run: what was asked and answered when, how it ended, how its stock went and who
got of it, how the generator did; and all charts in order of display."""

from collections.abc import Sequence
from dataclasses import replace

from flashsale.report.charts.chart import (
    COLOURS,
    TROUBLE,
    Chart,
    FigureTable,
    Run,
    Trace,
    axis,
    endings,
    line,
    seconds_axis,
    stock,
    thinned,
    with_bands,
)
from flashsale.report.charts.latency import by_rank, lag, over_time, spectrum
from flashsale.report.wording import lapse, ms, percent, plural
from flashsale.run.parts import SaleFigures
from flashsale.storm.figures.figures import Timeline
from flashsale.storm.figures.sale import DECILES


def arrivals(run: Run, baseline: Run | None) -> Chart | None:
    """Attempts sent and answers received in each slot."""
    if not run.figures.sent:
        return None
    found = run.figures.timeline()
    slot = _width(found.slot_us)
    peak = max(range(len(found.answered)), key=found.answered.__getitem__)
    traces = [
        _steps(found, found.sent, "sent", "--orange"),
        _steps(found, found.answered, "answered", "--accent"),
    ]
    if baseline is not None and baseline.figures.sent:
        other = baseline.figures.timeline()
        per_slot = [n * found.slot_us / other.slot_us for n in other.answered]
        trace = _steps(other, per_slot, "answered, baseline", "--purple")
        trace["line"]["dash"] = "dash"
        traces.append(trace)
    return Chart(
        "arrivals",
        f"Arrivals and completions per {slot}",
        f"{plural(run.figures.sent, 'attempt')} left within {_last(found, found.sent):.2f} s, the "
        f"last answer came after {run.figures.duration_s:.2f} s; at most "
        f"{found.answered[peak]:,} answers came within {slot}.",
        _timetable(found),
        traces,
        {"xaxis": seconds_axis(), "yaxis": axis(f"per {slot}", rangemode="tozero")},
    )


def outcomes(run: Run, _: Run | None) -> Chart | None:
    """How attempts ended, stacked along time."""
    found = endings(run.figures.attempts)
    if not found.counts:
        return None
    middles, width_s = found.middles_s, found.width_us / 1e6
    names = {end: end.value.replace("_", " ") for end in found.counts}
    rows = thinned(len(middles))
    starts = [0, *(n + 1 for n in rows)]
    reads = run.summary.load.asked == "reads"
    return Chart(
        "outcomes",
        "How reads were answered" if reads else "Outcomes over time",
        f"Every answer in the {_width(found.width_us)} in which it came, stacked by how the "
        f"attempt ended: {', '.join(names.values())}.",
        FigureTable(
            ("until s", *names.values()),
            [
                (
                    f"{middles[end] + width_s / 2:.3f}",
                    *(f"{sum(counts[start : end + 1]):,}" for counts in found.counts.values()),
                )
                for start, end in zip(starts, rows, strict=False)
            ],
        ),
        [
            {
                "type": "bar",
                "name": names[end],
                "x": middles,
                "y": counts,
                "width": width_s,
                "marker": {"color": COLOURS.get(end, TROUBLE), "line": {"width": 0}},
                "hovertemplate": "%{y:,}",
            }
            for end, counts in found.counts.items()
        ],
        {
            "barmode": "stack",
            "bargap": 0,
            "xaxis": seconds_axis(),
            "yaxis": axis(f"per {_width(found.width_us)}", rangemode="tozero"),
        },
    )


def _width(slot_us: int) -> str:
    return f"{slot_us / 1e6:g} s" if slot_us >= 1_000_000 else f"{slot_us / 1000:g} ms"


def _steps(timeline: Timeline, counts: "list[int] | list[float]", name: str, colour: str) -> Trace:
    """A staircase: the count of a slot stands over all of it."""
    width_s = timeline.slot_us / 1e6
    points = [(round(n * width_s, 6), count) for n, count in enumerate([*counts, counts[-1]])]
    return line(name, colour, points, line={"shape": "hv"}, hovertemplate="%{y:,.0f}")


def _last(timeline: Timeline, counts: list[int]) -> float:
    """The end of the last slot with a count in it, in seconds."""
    return max(n for n, count in enumerate([1, *counts]) if count) * timeline.slot_us / 1e6


def _timetable(timeline: Timeline) -> FigureTable:
    rows = thinned(len(timeline.sent))
    starts = [0, *(n + 1 for n in rows)]
    return FigureTable(
        ("until s", "sent", "answered"),
        [
            (
                f"{(end + 1) * timeline.slot_us / 1e6:.2f}",
                f"{sum(timeline.sent[start : end + 1]):,}",
                f"{sum(timeline.answered[start : end + 1]):,}",
            )
            for start, end in zip(starts, rows, strict=False)
        ],
    )


_HEIGHT = 440
_WAITED_WORTH_TELLING = 5.0


def health(run: Run, _: Run | None) -> Chart | None:
    """Three rows over one axis of time; None where no samples were taken."""
    samples = run.summary.generator.samples
    if not samples:
        return None
    at = [sample.at_ms / 1000 for sample in samples]
    shares = [100 * sample.cpu_share for sample in samples]
    waits = [100 * sample.waited_share for sample in samples]
    lags = [sample.loop_lag_ms for sample in samples]
    flying = [float(sample.in_flight) for sample in samples]
    rows = (
        ("CPU", "--accent", shares, "y", "%{y:.0f} % of a core"),
        ("waited for a core", "--purple", waits, "y", "%{y:.0f} % of the time"),
        ("loop lag", "--orange", lags, "y2", "%{y:.2f} ms late"),
        ("in flight", "--slate", flying, "y3", "%{y:,} in flight"),
    )
    return Chart(
        "health",
        "Generator health",
        f"{_who(run)}: at most {max(shares):.0f} % of a core, its loop late by "
        f"{ms(max(lags))} ms at worst, {max(flying):,.0f} requests open at once.{_starved(waits)}",
        FigureTable(
            ("at s", "CPU %", "waited %", "loop lag ms", "in flight"),
            [
                (
                    f"{at[n]:.2f}",
                    f"{shares[n]:.0f}",
                    f"{waits[n]:.0f}",
                    ms(lags[n]),
                    f"{flying[n]:,.0f}",
                )
                for n in thinned(len(samples))
            ],
        ),
        [
            line(name, colour, list(zip(at, values, strict=True)), yaxis=y, hovertemplate=hover)
            for name, colour, values, y, hover in rows
        ],
        {
            "height": _HEIGHT,
            "xaxis": seconds_axis() | {"anchor": "y3"},
            "yaxis": axis("% of a core", rangemode="tozero", domain=[0.72, 1]),
            "yaxis2": axis("loop lag ms", rangemode="tozero", domain=[0.36, 0.64]),
            "yaxis3": axis("in flight", rangemode="tozero", domain=[0, 0.28]),
        },
    )


def _starved(waits: Sequence[float]) -> str:
    """What it means that another process had its core, where that was much."""
    if max(waits) < _WAITED_WORTH_TELLING:
        return ""
    return f" For up to {max(waits):.0f} % of a moment it waited for a core, and read answers late."


def _who(run: Run) -> str:
    workers = len(run.summary.generator.workers)
    return f"The busiest of {workers} processes" if workers > 1 else "The storm's own process"


# The sale ----------------------------------------------------------------------------------------

_TENTHS = tuple(str(tenth + 1) for tenth in range(DECILES))


def stock_left(run: Run, baseline: Run | None) -> Chart | None:
    """Units left against time, as orders reached their buyers."""
    sale = run.summary.sale
    if sale is None or not sale.units:
        return None
    steps = stock(run.figures.attempts, sale.units)
    traces = [_fall(steps, "left", "--accent")]
    traces[0] |= {"fill": "tozeroy", "fillcolor": "--accent-faint"}
    other = baseline.summary.sale if baseline is not None else None
    if baseline is not None and other is not None and other.units:
        traces.append(_fall(stock(baseline.figures.attempts, other.units), "baseline", "--purple"))
        traces[-1]["line"]["dash"] = "dash"
    return Chart(
        "stock",
        "Stock against time",
        _stock_in_words(sale),
        FigureTable(
            ("at s", "units left"),
            [(f"{steps[n][0]:.3f}", f"{steps[n][1]:,}") for n in thinned(len(steps))],
        ),
        traces,
        {
            **_room_around(traces),
            **_first_told(sale),
        },
    )


def fairness(run: Run, baseline: Run | None) -> Chart | None:
    """Win rate by tenths of the arrivals."""
    sale = run.summary.sale
    if sale is None or not sale.fairness.winners:
        return None
    found = sale.fairness
    mean = 100 * found.winners / found.buyers
    rates = [None if rate is None else round(100 * rate, 2) for rate in found.win_rates]
    traces: list[Trace] = [
        {
            "type": "bar",
            "name": "won",
            "x": list(_TENTHS),
            "y": rates,
            "marker": {"color": "--accent"},
            "hovertemplate": "%{y:.1f} % won",
        },
        line(
            "all buyers",
            "--orange",
            [(tenth, mean) for tenth in range(len(_TENTHS))],
            line={"dash": "dot"},
            hovertemplate="%{y:.1f} % of all won",
        )
        | {"x": list(_TENTHS)},
    ]
    other = baseline.summary.sale if baseline is not None else None
    if other is not None:
        points = [100 * (rate or 0) for rate in other.fairness.win_rates]
        marks = line("baseline", "--purple", list(enumerate(points)))
        traces.append(marks | {"mode": "markers", "x": list(_TENTHS), "marker": {"size": 9}})
    return Chart(
        "fairness",
        "Fairness: who won, by rank of arrival",
        _fairness_in_words(sale),
        FigureTable(
            ("tenth of the arrivals", "won"),
            [
                (name, "–" if rate is None else percent(rate))
                for name, rate in zip(_TENTHS, found.win_rates, strict=True)
            ],
        ),
        traces,
        {
            "xaxis": axis(
                "tenth of the buyers, the first to come on the left", type="category", dtick=1
            ),
            "yaxis": axis("% won", rangemode="tozero"),
        },
    )


def _fall(steps: list[tuple[float, int]], name: str, colour: str) -> Trace:
    points = [(at, float(left)) for at, left in steps]
    return line(name, colour, points, line={"shape": "hv"}, hovertemplate="%{y:,} left")


def _room_around(traces: Sequence[Trace]) -> dict[str, object]:
    """Axes that end beyond the falling lines: what falls at the last instant is seen to fall, and
    the mark's text stands above. Below zero is what was sold without a unit."""
    last_s = max(max(trace["x"]) for trace in traces)
    left = [units for trace in traces for units in trace["y"]]
    return {
        "xaxis": seconds_axis() | {"range": [0, 1.02 * last_s]},
        "yaxis": axis("units left", range=[1.05 * min(0, *left), 1.15 * max(left)]),
    }


def _first_told(sale: SaleFigures) -> dict[str, object]:
    """A mark at the instant from which on buyers knew that it was gone."""
    if sale.first_told_ms is None:
        return {}
    at = sale.first_told_ms / 1000
    mark = {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1}
    text = {"x": at, "y": 1, "yref": "paper", "text": "first “sold out”", "showarrow": False}
    return {
        "shapes": [mark | {"line": {"color": "--orange", "width": 1, "dash": "dot"}}],
        "annotations": [text | {"xanchor": "left", "xshift": 4, "yanchor": "top"}],
    }


def _stock_in_words(sale: SaleFigures) -> str:
    gone = (
        "" if sale.sold_out_ms is None else f"; the last order came after {lapse(sale.sold_out_ms)}"
    )
    told = ""
    if sale.propagation_ms is not None:
        told = (
            f'. The first "sold out" came after {lapse(sale.first_told_ms)}, and every refused '
            f"buyer had it within {lapse(sale.propagation_ms)} of the stock being gone"
        )
    return f"{sale.sold:,} of {plural(sale.units or 0, 'unit')} sold{gone}{told}."


def _fairness_in_words(sale: SaleFigures) -> str:
    precedence = sale.fairness.precedence
    if precedence is None:
        return f"All of {plural(sale.fairness.buyers, 'buyer')} won: nobody lost by coming late."
    within = ", each voucher's buyers among themselves" if sale.vouchers > 1 else ""
    return (
        f"Of all pairs of a winner and a loser, the winner had come first in {percent(precedence)}"
        f"{within}. 100 % is strictly first come, first served; 50 % is a lottery."
    )


# All of them -------------------------------------------------------------------------------------

_ALL = (stock_left, outcomes, spectrum, over_time, arrivals, fairness, by_rank, lag, health)

_ALONG_TIME = ("stock", "outcomes", "arrivals")
"""Charts over which faults lie as bands."""


def charts_of(run: Run, baseline: Run | None = None) -> list[Chart]:
    """Every chart that has something to show, in order of display; `baseline` is laid over."""
    if not run.figures.sent:
        return []
    drawn = [chart for draw in _ALL if (chart := draw(run, baseline)) is not None]
    return [_banded(chart, run) if chart.key in _ALONG_TIME else chart for chart in drawn]


def _banded(chart: Chart, run: Run) -> Chart:
    return replace(chart, layout=with_bands(chart.layout, run.faults))
