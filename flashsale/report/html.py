"""report.html: a run as a browser shows it. One file, no script, nothing fetched."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from flashsale.report import chart
from flashsale.report.number import ms, share
from flashsale.storm.figures import Figures
from flashsale.storm.summary import Summary
from flashsale.storm.thresholds import CLOCKS


def html(summary: Summary, figures: Figures | None = None) -> str:
    """The page. Its charts need the figures; without them it has tables only."""
    charts = _charts(figures) if figures is not None and figures.sent else {}
    return _template().render(
        run=summary,
        spectrum=charts.get("spectrum"),
        timeline=charts.get("timeline"),
        size={
            "width": chart.WIDTH,
            "height": chart.HEIGHT,
            "left": chart.LEFT,
            "right": chart.RIGHT,
        },
    )


def _charts(figures: Figures) -> dict[str, chart.Chart]:
    latencies = {clock: figures.latency(clock) for clock in CLOCKS}
    return {
        "spectrum": chart.spectrum_chart(latencies),
        "timeline": chart.timeline_chart(figures.timeline()),
    }


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ms=ms, share=share)
    return environment.get_template("report.html.jinja")
