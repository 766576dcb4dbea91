import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.report.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    spectrum_chart,
    timeline_chart,
)
from flashsale.storm.figures import Timeline
from flashsale.storm.histogram import Histogram


def points(chart: Chart, line: int) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in chart.lines[line].points.split())
    return [(float(x), float(y)) for x, y in pairs]


def is_inside(chart: Chart) -> bool:
    return all(
        LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1 and TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1
        for line in range(len(chart.lines))
        for x, y in points(chart, line)
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3_600_000_000), min_size=1, max_size=100))
def test_a_spectrum_climbs_from_left_to_right_within_its_canvas(values: list[int]) -> None:
    chart = spectrum_chart({"response": Histogram(values)})
    drawn = points(chart, 0)
    assert is_inside(chart)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    assert [y for _, y in drawn] == sorted((y for _, y in drawn), reverse=True)
    assert drawn[-1][0] == WIDTH - RIGHT


def test_each_nine_takes_the_same_width() -> None:
    chart = spectrum_chart({"response": Histogram(range(100_000))})
    at = {tick.label: tick.at for tick in chart.x_ticks}
    assert list(at) == ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    assert at["99 %"] - at["90 %"] == pytest.approx(at["99.9 %"] - at["99 %"])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=50))
def test_a_timeline_is_a_staircase_with_its_counts_as_steps(counts: list[int]) -> None:
    chart = timeline_chart(Timeline(50_000, counts, counts[::-1]))
    assert is_inside(chart)
    heights = [y for _, y in points(chart, 0)]
    assert heights[::2] == heights[1::2]
    lowest_first = sorted(range(len(counts)), key=lambda slot: counts[slot])
    assert [heights[2 * slot] for slot in lowest_first] == sorted(heights[::2], reverse=True)


def test_scales_are_round_numbers() -> None:
    chart = timeline_chart(Timeline(50_000, [0, 3_210, 7], [0, 0, 0]))
    assert [tick.label for tick in chart.y_ticks] == ["0", "1,000", "2,000", "3,000", "4,000"]
    assert chart.y_ticks[0].at == HEIGHT - BOTTOM
    assert chart.y_ticks[-1].at == TOP
    assert [tick.label for tick in chart.x_ticks] == ["0 s", "0.05 s", "0.1 s", "0.15 s"]
