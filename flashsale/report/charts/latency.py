"""Charts of latency: by percentile, by rank of arrival, and how late the storm itself was."""

from math import log10
from typing import Any

from flashsale.report.charts.chart import (
    ROWS_MAX,
    Bin,
    Chart,
    FigureTable,
    Run,
    Trace,
    axis,
    colour_of,
    latency_by_rank,
    latency_by_time,
    line,
    seconds_axis,
    start_lag,
    thinned,
)
from flashsale.report.wording import lapse, ms
from flashsale.run.attempts import LOST
from flashsale.run.histogram import SAMPLES_BEYOND, Histogram
from flashsale.run.parts import Latency

_PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9", "max")
_DECADES_MAX = 7
_LABELS_MAX = 5


def spectrum(run: Run, baseline: Run | None) -> Chart | None:
    """Latency by percentile, on the axis of HdrHistogram's plotter: a decade to each nine."""
    told: list[tuple[str, str, Histogram, Latency]] = []
    for name, colour, of in (("response", "--accent", run), ("service", "--orange", run)):
        latency = getattr(of.summary.latency_ms, name)
        told.append((name, colour, of.figures.latency(name), latency))
    if baseline is not None:
        latency = baseline.summary.latency_ms.response
        told.append(("baseline", "--purple", baseline.figures.latency("response"), latency))
    told = [each for each in told if each[2].count]
    if not told:
        return None
    most = max(histogram.count for _, _, histogram, _ in told)
    return Chart(
        "spectrum",
        "Latency by percentile",
        f"{_in_words(run.summary.latency_ms.response)} Response runs from the planned instant, "
        f"service from the send. Dotted where fewer than {SAMPLES_BEYOND} samples lie beyond.",
        FigureTable(("ms", *_PERCENTILES), [_row(name, latency) for name, _, _, latency in told]),
        # Service lies below response: in a closed run the two are one line.
        [t for name, colour, found, _ in reversed(told) for t in _curve(name, colour, found)],
        {"xaxis": _nines(most), "yaxis": _ms_axis(), "legend": {"traceorder": "reversed"}},
    )


def over_time(run: Run, _: Run | None) -> Chart | None:
    """Median and 99th percentile of response along time, by what the answers were."""
    attempts = run.figures.attempts
    every = {k: v for k, v in run.figures.labels.items() if k != LOST}
    most = sorted(every, key=lambda label: -len(every[label]))[:_LABELS_MAX]
    found = {label: latency_by_time(attempts, every[label]) for label in most}
    if not any(found.values()):
        return None
    traces: list[Trace] = []
    rows: list[tuple[str, ...]] = []
    for label, bins in found.items():
        name, colour = label.replace("_", " "), colour_of(label)
        style: dict[str, Any] = {"mode": "lines+markers", "hovertemplate": "%{y:.2f} ms"}
        p50 = [(b.until, b.p50 / 1000) for b in bins]
        p99 = [(b.until, b.p99 / 1000) for b in bins]
        traces.append(line(f"{name} p50", colour, p50, marker={"size": 4}, **style))
        dotted = {"dash": "dot", "width": 1}
        traces.append(line(f"{name} p99", colour, p99, line=dotted, marker={"size": 3}, **style))
        rows += [
            (f"{name}, {b.until:.3f}", f"{b.size:,}", _ms(b.p50), _ms(b.p99))
            for b in (bins[n] for n in thinned(len(bins), ROWS_MAX // len(found)))
        ]
    return Chart(
        "overtime",
        "Response over time, by outcome",
        "Of the answers that came within each slot of time: the median, and dotted the 99th "
        "percentile; of a slot with fewer than 100 answers that is its slowest.",
        FigureTable(("outcome, until s", "answers", "p50 ms", "p99"), rows),
        traces,
        {"xaxis": seconds_axis(), "yaxis": _ms_axis()},
    )


def by_rank(run: Run, baseline: Run | None) -> Chart | None:
    """Response latency against the order of arrival."""
    bins = _ranked(run)
    if not bins:
        return None
    first, last = bins[0], bins[-1]
    other = _ranked(baseline) if baseline is not None else []
    return Chart(
        "rank",
        "Latency by rank of arrival",
        f"The first {first.size:,} to ask waited {_ms(first.p50)} ms at the median; "
        f"the last {last.size:,} waited {_ms(last.p50)} ms. The band holds the middle 80 % of each "
        "bin of neighbours, the thin line is its slowest.",
        FigureTable(
            ("up to rank", "p10 ms", "p50", "p90", "max"),
            [(f"{bins[n].until:,.0f}", *map(_ms, _spread(bins[n]))) for n in thinned(len(bins))],
        ),
        [
            *_band(bins),
            *([_median(other, "baseline", "--purple", dash="dash")] if other else []),
        ],
        {"xaxis": axis("rank of arrival", rangemode="tozero"), "yaxis": _ms_axis()},
    )


def lag(run: Run, _: Run | None) -> Chart | None:
    """How late attempts left, compared with the plan: the storm's own doing."""
    bins = start_lag(run.figures.attempts)
    if not bins:
        return None
    found = run.summary.generator.start_lag_ms
    return Chart(
        "lag",
        "Start lag",
        f"How late the storm itself sent, compared with the plan: {lapse(found.p50)} at the "
        f"median, {lapse(found.max)} at worst. What a target is slow by is not in it.",
        FigureTable(
            ("sent until s", "attempts", "p50 ms", "p90", "max"),
            [
                (f"{b.until:.3f}", f"{b.size:,}", _ms(b.p50), _ms(b.p90), _ms(b.max))
                for b in (bins[n] for n in thinned(len(bins)))
            ],
        ),
        _band(bins),
        {"xaxis": seconds_axis(), "yaxis": _ms_axis()},
    )


def _in_words(latency: Latency) -> str:
    parts = [
        f"{share} had an answer within {lapse(value)}"
        for share, value in (("Half", latency.p50), ("99 %", latency.p99))
        if value is not None
    ]
    if latency.max is not None:
        parts.append(f"the slowest after {lapse(latency.max)}")
    return f"{'; '.join(parts)}.".capitalize() if parts else ""


def _curve(name: str, colour: str, histogram: Histogram) -> list[Trace]:
    """Solid as far as there are samples enough behind it, dotted beyond."""
    steps = histogram.spectrum()
    points = [(1 / (1 - s) if s < 1 else float(histogram.count), us / 1000) for s, us, _ in steps]
    shares = [f"{100 * share:.7g} %" for share, _, _ in steps]
    reach = sum(histogram.count * (1 - share) >= SAMPLES_BEYOND for share, _, _ in steps)
    style = {"dash": "dash"} if name == "baseline" else {}
    common: dict[str, Any] = {"hovertemplate": "%{customdata}: %{y:.2f} ms"}
    tail = slice(max(0, reach - 1), None)
    return [
        line(name, colour, points[:reach], line=style, customdata=shares[:reach], **common),
        line(name, colour, points[tail], line={"dash": "dot"}, customdata=shares[tail], **common)
        | {"showlegend": not reach},
    ]


def _nines(most: int) -> dict[str, Any]:
    """2, 10, 100 … are 50 %, 90 %, 99 % …; there are always two of them to read by."""
    right = max(10, most)
    ticks = [2, *(10**n for n in range(1, _DECADES_MAX + 1) if 10**n <= right)]
    labels = [f"{100 - 100 / tick:.10g} %" for tick in ticks]
    return axis("percentile", type="log", range=[0, log10(right)], tickvals=ticks, ticktext=labels)


def _ranked(run: Run) -> list[Bin]:
    """Attempts that had an answer, or were waited for in vain."""
    labels = run.figures.labels.items()
    waited = [i for label, attempts in labels if label != LOST for i in attempts]
    return latency_by_rank(run.figures.attempts, waited)


def _band(bins: list[Bin]) -> list[Trace]:
    bare = {"hoverinfo": "skip", "line": {"width": 0}}
    lower = line("p10", "--accent", [(b.until, b.p10 / 1000) for b in bins], **bare)
    upper = line("middle 80 %", "--accent", [(b.until, b.p90 / 1000) for b in bins], **bare)
    slowest = line(
        "slowest",
        "--slate",
        [(b.until, b.max / 1000) for b in bins],
        line={"width": 1},
        hovertemplate="%{y:.2f} ms",
    )
    lower |= {"showlegend": False}
    upper |= {"fill": "tonexty", "fillcolor": "--accent-faint"}
    return [lower, upper, slowest, _median(bins, "median", "--accent")]


def _median(bins: list[Bin], name: str, colour: str, **style: str) -> Trace:
    points = [(b.until, b.p50 / 1000) for b in bins]
    return line(name, colour, points, line=style, hovertemplate="%{y:.2f} ms")


def _spread(found: Bin) -> tuple[int, ...]:
    return found.p10, found.p50, found.p90, found.max


def _row(name: str, latency: Latency) -> tuple[str, ...]:
    values = latency.model_dump(by_alias=True)
    return name, *(ms(values[percentile]) for percentile in _PERCENTILES)


def _ms_axis() -> dict[str, Any]:
    return axis("ms", rangemode="tozero")


def _ms(value_us: int) -> str:
    return ms(value_us / 1000)
