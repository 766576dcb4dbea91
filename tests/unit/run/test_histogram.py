import io
import re
from math import ceil
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.run.histogram import (
    DIGITS,
    HIGHEST_US,
    Histogram,
    bucket_of,
    hlog_head,
    hlog_line,
    merged,
)

LATENCIES = st.lists(
    st.one_of(st.integers(0, 5_000), st.integers(0, HIGHEST_US)), min_size=1, max_size=300
)


def reference(values: list[int]) -> HdrHistogram:
    hdr = HdrHistogram(1, HIGHEST_US, DIGITS)
    for value in values:
        hdr.record_value(value)
    return hdr


@settings(deadline=None, max_examples=60)
@given(st.integers(0, HIGHEST_US))
def test_buckets_are_those_of_hdrhistogram(value: int) -> None:
    hdr = HdrHistogram(1, HIGHEST_US, DIGITS)
    lowest, highest = bucket_of(value)
    assert lowest == hdr.get_lowest_equivalent_value(value)
    assert highest == hdr.get_highest_equivalent_value(value)
    assert lowest <= value <= highest
    assert highest - lowest <= value / 1000


@settings(deadline=None, max_examples=60)
@given(LATENCIES)
def test_recording_in_bulk_equals_recording_one_by_one(values: list[int]) -> None:
    histogram = Histogram(values)
    decoded = HdrHistogram.decode(histogram.encoded())
    expected = reference(values)
    assert decoded.counts[:] == expected.counts[: len(decoded.counts)]
    assert (histogram.count, histogram.max_us) == (len(values), max(values))


@settings(deadline=None, max_examples=60)
@given(LATENCIES, LATENCIES)
def test_merged_histograms_equal_one_fed_with_both(left: list[int], right: list[int]) -> None:
    together = merged([Histogram(left), Histogram(right)])
    both = Histogram(left + right)
    assert together.encoded() == both.encoded()
    assert together.max_us == both.max_us
    assert together.spectrum() == both.spectrum()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, HIGHEST_US), min_size=20, max_size=300))
def test_a_percentile_is_the_sample_at_its_rank_within_a_thousandth(values: list[int]) -> None:
    histogram, ordered = Histogram(values), sorted(values)
    (median,) = histogram.percentiles_us(50)
    assert median is not None
    exact = ordered[ceil(0.5 * len(values)) - 1]
    assert exact <= median <= exact * 1.001 + 1
    assert histogram.mean_us == pytest.approx(sum(values) / len(values), rel=2e-3, abs=1)


@pytest.mark.parametrize(
    ("percentile", "needed"), [(50.0, 20), (90.0, 100), (95.0, 200), (99.0, 1000), (99.9, 10_000)]
)
def test_a_percentile_needs_ten_samples_beyond_it(percentile: float, needed: int) -> None:
    assert Histogram(range(needed)).percentiles_us(percentile) != [None]
    assert Histogram(range(needed - 1)).percentiles_us(percentile) == [None]


def test_an_empty_histogram_has_nothing_to_say() -> None:
    empty = Histogram()
    assert (empty.count, empty.max_us, empty.mean_us, empty.spectrum()) == (0, 0, 0.0, [])
    assert empty.percentiles_us(50, 99) == [None, None]
    assert "Total count    =            0" in empty.hgrm()


def test_what_exceeds_an_hour_counts_as_an_hour_and_negatives_are_a_defect() -> None:
    assert Histogram([HIGHEST_US * 5, 7]).max_us == HIGHEST_US
    assert Histogram([HIGHEST_US * 5, 7]).count == 2
    with pytest.raises(ValueError, match="clocks were mixed up"):
        Histogram([3, -1])


@settings(deadline=None, max_examples=60)
@given(LATENCIES)
def test_the_spectrum_ascends_to_the_maximum(values: list[int]) -> None:
    spectrum = Histogram(values).spectrum()
    assert spectrum == sorted(spectrum)
    assert spectrum[-1] == (1.0, max(values), len(values))
    assert spectrum[0][1] <= min(values) * 1.001 + 1


def test_the_hgrm_is_what_hdrhistograms_plotter_reads() -> None:
    lines = Histogram(range(1000, 3000)).hgrm().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in lines if re.match(r"\s+\d", line)]
    assert [float(row[1]) for row in rows] == sorted(float(row[1]) for row in rows)
    assert rows[-1] == ["2.999", "1.000000000000", "2000"]
    medians = [row for row in rows if float(row[1]) == 0.5]
    assert medians[0][0] == "1.999"
    assert lines[-3].startswith("#[Mean    =        2.000, StdDeviation   =        0.577]")
    assert lines[-2].startswith("#[Max     =        2.999, Total count    =         2000]")


def test_the_hlog_is_what_hdrhistograms_reader_reads(tmp_path: Path) -> None:
    values = [[1, 20, 300_000], [5, 5, 5]]
    text = hlog_head(1_700_000_000_000_000) + "".join(
        hlog_line("buy.sold.response", second, 1, Histogram(part))
        for second, part in enumerate(values)
    )
    path = tmp_path / "latency.hlog"
    path.write_text(text)
    total = HdrHistogram(1, HIGHEST_US, DIGITS)
    reader = HistogramLogReader(str(path), HdrHistogram(1, HIGHEST_US, DIGITS))
    intervals = []
    while (interval := reader.get_next_interval_histogram()) is not None:
        intervals.append((interval.get_tag(), interval.get_total_count()))
        total.add(interval)
    reader.close()
    assert reader.get_start_time_sec() == 1_700_000_000
    assert intervals == [("buy.sold.response", 3), ("buy.sold.response", 3)]
    assert total.get_total_count() == reference(values[0] + values[1]).get_total_count()
    assert io.StringIO(text).readline().startswith("#[Histogram log format version 1.3]")
