"""The chart of the generator's health: CPU, loop lag and open requests while it stormed."""

from collections.abc import Sequence

from flashsale.report.charts.chart import Chart, Run, Table, axis, line, seconds_axis, thinned
from flashsale.report.number import ms

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
