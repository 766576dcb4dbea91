"""What is drawn: valid for plotly, told in words and tables, too, and nothing where nothing was."""

import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as plotly
import pytest
from rig.run_folders import GONE, HIT, LOAD, LOST, SOLD, record_of, sale_scenario, summary_of

from flashsale.report.charts.chart import COLOURS, Chart, Run, thinned
from flashsale.report.charts.run import charts_of, health
from flashsale.run.parts import SampleFigures
from flashsale.scenario.answer import unsent

STYLE = Path(__file__).parents[3] / "flashsale/report/page/page.css"


def run_of(*answers: Any, units: int = 300) -> Run:
    return Run(*summary_of(sale_scenario(len(answers), units), record_of(answers)))


SALE = run_of(*[SOLD] * 300, *[GONE] * 1700)
OTHER = run_of(*[GONE, SOLD] * 300)
ANSWERED = run_of(*[HIT] * 90, *[LOAD] * 10)
READS = Run(ANSWERED.summary.model_copy(update={"sale": None}), ANSWERED.figures)
TROUBLE = run_of(SOLD, GONE, LOST, unsent("connect"), units=1)
SAMPLED = SALE.summary.generator.model_copy(
    update={
        "samples": [
            SampleFigures(
                at_ms=100 * n, cpu_share=0.1 * n, waited_share=0, loop_lag_ms=0.5, in_flight=20 - n
            )
            for n in range(10)
        ]
    }
)


def painted(value: Any) -> Any:
    """The figure with a colour for each colour's name, as the page's script does it."""
    if isinstance(value, dict):
        return {key: painted(part) for key, part in value.items()}
    if isinstance(value, list):
        return [painted(part) for part in value]
    return "#123456" if isinstance(value, str) and value.startswith("--") else value


def names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(names, value.values()))
    if isinstance(value, list):
        return set().union(*map(names, value))
    return {value} if isinstance(value, str) and value.startswith("--") else set()


def by_key(charts: list[Chart]) -> dict[str, Chart]:
    return {chart.key: chart for chart in charts}


@pytest.mark.parametrize(
    "charts",
    [
        charts_of(SALE),
        charts_of(SALE, OTHER),
        charts_of(READS),
        charts_of(TROUBLE),
        [health(Run(SALE.summary.model_copy(update={"generator": SAMPLED}), SALE.figures), None)],
    ],
    ids=["sale", "beside another", "reads", "trouble", "health"],
)
def test_plotly_takes_every_chart(charts: list[Chart]) -> None:
    for chart in charts:
        drawn = plotly.Figure(painted(chart.traces), painted(chart.layout))  # raises where not
        assert len(drawn.data) == len(chart.traces)
        assert chart.table.rows
        assert {len(row) for row in chart.table.rows} == {len(chart.table.head)}
        assert len(chart.table.rows) <= 12
        assert chart.reading.endswith(".")


def test_a_sale_has_every_chart_and_reads_have_theirs() -> None:
    reads = ["outcomes", "spectrum", "overtime", "arrivals", "rank", "lag"]
    every = ["stock", *reads[:4], "fairness", *reads[4:]]
    assert list(by_key(charts_of(SALE))) == every
    assert list(by_key(charts_of(READS))) == reads


def test_percentiles_run_along_time_by_outcome() -> None:
    chart = by_key(charts_of(SALE))["overtime"]
    names = [trace["name"] for trace in chart.traces]
    assert names == ["sold out p50", "sold out p99", "sold p50", "sold p99"]
    for median, tail in zip(chart.traces[::2], chart.traces[1::2], strict=True):
        assert median["x"] == tail["x"] == sorted(median["x"])
        assert all(low <= high for low, high in zip(median["y"], tail["y"], strict=True))


def test_how_many_waited_and_how_long_are_two_numbers() -> None:
    """ "The last 14 993 ms" is not fifteen seconds."""
    reading = by_key(charts_of(SALE))["rank"].reading
    assert re.search(r"the last \d+ waited [\d,.]+ ms\.", reading)


def test_the_stock_that_falls_at_the_last_instant_falls_within_the_picture() -> None:
    for run, other in ((run_of(*[SOLD] * 30, units=30), None), (SALE, OTHER)):
        chart = by_key(charts_of(run, other))["stock"]
        across, up = chart.layout["xaxis"]["range"], chart.layout["yaxis"]["range"]
        assert across[0] == up[0] == 0
        assert across[1] > max(max(trace["x"]) for trace in chart.traces)
        assert up[1] > 1.1 * max(max(trace["y"]) for trace in chart.traces)
    oversold = by_key(charts_of(run_of(*[SOLD] * 30, units=20)))["stock"]
    assert oversold.layout["yaxis"]["range"][0] < -10


def test_what_never_was_is_not_drawn() -> None:
    assert charts_of(run_of(unsent("barrier"), unsent("barrier"))) == []
    assert health(SALE, None) is None


def test_a_baseline_lies_over_its_run() -> None:
    with_other = by_key(charts_of(SALE, OTHER))
    for key in ("stock", "spectrum", "arrivals", "fairness", "rank"):
        assert any("baseline" in trace["name"] for trace in with_other[key].traces), key
        alone = by_key(charts_of(SALE))[key]
        assert not any("baseline" in trace["name"] for trace in alone.traces), key


def test_every_colour_is_one_of_the_page() -> None:
    known = set(re.findall(r"(--[a-z-]+):", STYLE.read_text()))
    drawn = [chart.to_json() for run in (SALE, READS, TROUBLE) for chart in charts_of(run, OTHER)]
    assert names(drawn) <= known
    assert set(COLOURS.values()) <= known


def test_words_hold_the_figures() -> None:
    charts = by_key(charts_of(SALE))
    assert "300 of 300 units sold; the last order came after " in charts["stock"].reading
    assert "the winner had come first in 100 %." in charts["fairness"].reading
    assert charts["fairness"].table.rows[0] == ("1", "100 %")
    assert "2,000 attempts left within 0.10 s" in charts["arrivals"].reading
    assert "80.0 ms at worst" in charts["lag"].reading
    assert re.search(r"the last [0-9,]+ waited [0-9.,]+ ms", charts["rank"].reading)


def test_the_spectrum_gives_each_nine_a_decade_and_dots_what_few_samples_back() -> None:
    spectrum = by_key(charts_of(SALE))["spectrum"]
    assert spectrum.layout["xaxis"]["ticktext"] == ["50 %", "90 %", "99 %", "99.9 %"]
    *_, solid, dotted = spectrum.traces
    assert dotted["line"]["dash"] == "dot"
    assert solid["x"][-1] == dotted["x"][0]
    assert 2000 / solid["x"][-1] >= 10
    assert dotted["x"][-1] == 2000
    assert solid["y"] == sorted(solid["y"])


def test_tables_are_short_and_end_with_the_end() -> None:
    assert thinned(3) == [0, 1, 2]
    assert len(thinned(400)) == 10
    assert thinned(400)[-1] == 399
