"""The charts of a run, as plotly draws them."""

from dataclasses import replace

from flashsale.report.charts.chart import Chart, Run, with_bands
from flashsale.report.charts.latency import by_rank, lag, over_time, spectrum
from flashsale.report.charts.run import arrivals, health, outcomes
from flashsale.report.charts.sale import fairness, stock_left

__all__ = ["Chart", "Run", "charts_of"]

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
