"""Charts of a whole run: what was asked and answered when, how it ended, how the generator did."""

from collections.abc import Sequence

from flashsale.report.charts.chart import (
    COLOURS,
    TROUBLE,
    Chart,
    Run,
    Table,
    Trace,
    axis,
    line,
    seconds_axis,
    thinned,
)
from flashsale.report.series import endings
from flashsale.report.wording import ms, plural
from flashsale.storm.figures.figures import Timeline


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
        Table(
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


def _timetable(timeline: Timeline) -> Table:
    rows = thinned(len(timeline.sent))
    starts = [0, *(n + 1 for n in rows)]
    return Table(
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
        Table(
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
