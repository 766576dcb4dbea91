"""A dashboard as we write it, and as Grafana wants it."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

RATE = "$__rate_interval"
_DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_STEPS = ("green", "orange", "red")
_WIDTH, _HEIGHT, _STAT_HEIGHT = 24, 8, 4


@dataclass(frozen=True)
class Query:
    """One PromQL expression and what its lines are called."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel. `limits` are where it turns orange and red, or red alone."""

    title: str
    meaning: str
    unit: str
    queries: Sequence[Query]
    limits: Sequence[float] = ()
    low_is_bad: bool = False  # red below the limit
    is_stacked: bool = False
    is_number: bool = False  # the last value, large, in place of lines
    width: int = 12


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels, with a choice of the instances of its jobs."""

    uid: str
    title: str
    meaning: str
    instances_of: str  # a regular expression of jobs
    rows: Sequence[tuple[str, Sequence[Panel]]]

    def to_json(self) -> str:
        """The file that Grafana provisions."""
        made = (
            build.Dashboard(f"Flash sale / {self.title}")
            .uid(self.uid)
            .description(self.meaning)
            .tags(["flashsale"])
            .readonly()
            .timezone("browser")
            .time("now-30m", "now")
            .refresh("5s")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .link(
                build.DashboardLink("Flash sale")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags(["flashsale"])
                .as_dropdown(True)
                .keep_time(True)
            )
            .with_variable(
                build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
            )
            .with_variable(_instances(self.instances_of))
        )
        numbers = itertools.count(1)
        for title, panels in self.rows:
            made = made.with_row(build.Row(title).id(next(numbers)))
            for panel in panels:
                made = made.with_panel(_panel(panel).id(next(numbers)))
        return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _instances(jobs: str) -> Any:
    return (
        build.QueryVariable("instance")
        .label("Instance")
        .datasource(_DATASOURCE)
        .query(f'label_values(up{{job=~"{jobs}"}}, instance)')
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all"))
    )


def _panel(panel: Panel) -> Any:
    made: Any = stat.Panel() if panel.is_number else _lines(panel)
    made = (
        made.title(panel.title)
        .description(panel.meaning)
        .datasource(_DATASOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(_STAT_HEIGHT if panel.is_number else _HEIGHT)
        .thresholds(_thresholds(panel))
    )
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        made = made.with_target(
            prometheus.Dataquery()
            .ref_id(letter)
            .expr(query.expr)
            .legend_format(query.legend)
            .range()
        )
    return made


def _lines(panel: Panel) -> Any:
    stacking = (
        common_models.StackingMode.NORMAL if panel.is_stacked else common_models.StackingMode.NONE
    )
    shown = (
        common_models.GraphTresholdsStyleMode.DASHED
        if panel.limits
        else common_models.GraphTresholdsStyleMode.OFF
    )
    legend = (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common_models.LegendDisplayMode.TABLE)
        .placement(common_models.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    return (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(30 if panel.is_stacked else 5)
        .stacking(common.StackingConfig().mode(stacking))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(shown))
        .legend(legend)
    )


def _thresholds(panel: Panel) -> Any:
    colors: tuple[str, ...] = _STEPS if len(panel.limits) == len(_STEPS) - 1 else ("green", "red")
    if panel.low_is_bad:
        colors = tuple(reversed(colors))
    values = [None, *panel.limits]
    steps = [
        models.Threshold(value=value, color=color)
        for value, color in zip(values, colors, strict=False)
    ]
    return build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """The summed rate of a counter over the chosen instances."""
    inside = ",".join(part for part in ('instance=~"$instance"', labels) if part)
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{inside}}}[{RATE}]))"


def quantile(share: float, histogram: str, labels: str = "", by: str = "") -> str:
    """A quantile of a histogram over the chosen instances."""
    le = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', labels, le)})"


def mean(histogram: str, by: str = "") -> str:
    """The mean of what a histogram has counted."""
    return f"{rate(f'{histogram}_sum', by=by)} / {rate(f'{histogram}_count', by=by)}"


def chosen(metric: str, labels: str = "") -> str:
    """A gauge of the chosen instances."""
    inside = ",".join(part for part in ('instance=~"$instance"', labels) if part)
    return f"{metric}{{{inside}}}"
