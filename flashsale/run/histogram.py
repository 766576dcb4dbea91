"""Latency histograms: HdrHistogram's buckets with 3 digits, in µs; merged exactly, shown soberly.

http://hdrhistogram.org describes the bucket layout and the two file formats written here: .hgrm,
the percentile distribution, and .hlog, a log of interval histograms.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import ceil, floor, log2, sqrt
from typing import Any, Self

from hdrh.histogram import HdrHistogram
from pydantic_core.core_schema import (
    CoreSchema,
    no_info_plain_validator_function,
    plain_serializer_function_ser_schema,
)

HIGHEST_US = 3_600_000_000
DIGITS = 3
SAMPLES_BEYOND = 10
"""A percentile is shown when this many samples lie above it; with fewer it is mostly chance."""

_ZERO = Fraction(0)
_SUB_BUCKET_BITS = 11  # 2,048 sub-buckets tell 3 digits apart
_TICKS_PER_HALF_DISTANCE = 5


def bucket_of(value_us: int) -> tuple[int, int]:
    """The lowest and the highest value that HdrHistogram holds equal to `value_us`."""
    shift = max(0, value_us.bit_length() - _SUB_BUCKET_BITS)
    lowest = value_us >> shift << shift
    return lowest, lowest + (1 << shift) - 1


class Histogram:
    """Latencies of one kind. Values are whole µs; what exceeds an hour counts as an hour."""

    def __init__(self, values_us: Iterable[int] = ()) -> None:
        self._buckets: Counter[int] = Counter()  # lowest value of the bucket → samples
        self.max_us = 0
        self.record(values_us)

    def __repr__(self) -> str:
        return f"<Histogram count={self.count} max={self.max_us}µs>"

    def record(self, values_us: Iterable[int]) -> None:
        """Add every value, in bulk.

        Sorted values that share a bucket are found by bisection and counted at once, so the cost
        is the sort and one step per bucket touched. Raises ValueError for a negative value.
        """
        ordered = sorted(values_us)
        if not ordered:
            return
        if ordered[0] < 0:
            raise ValueError(f"a latency of {ordered[0]} µs: clocks were mixed up")
        start, buckets = 0, self._buckets
        while start < len(ordered):
            lowest, highest = bucket_of(min(ordered[start], HIGHEST_US))
            end = bisect_right(ordered, highest, start) if highest < HIGHEST_US else len(ordered)
            buckets[lowest] += end - start
            start = end
        self.max_us = max(self.max_us, min(ordered[-1], HIGHEST_US))

    def merge(self, other: "Histogram") -> None:
        """Add what `other` holds; exact, since both share their buckets."""
        self._buckets.update(other._buckets)
        self.max_us = max(self.max_us, other.max_us)

    def document(self) -> dict[str, Any]:
        """What it holds, for JSON; `of_document` reads it back, exactly."""
        return {"max_us": self.max_us, "buckets": sorted(self._buckets.items())}

    @classmethod
    def of_document(cls, document: Any) -> Self:
        """The histogram that was written as `document`. Raises ValueError where it is none."""
        histogram = cls()
        try:
            for lowest, samples in document["buckets"]:
                if bucket_of(lowest)[0] != lowest or samples < 1:
                    raise ValueError(f"no bucket begins at {lowest}")
                histogram._buckets[lowest] = samples
            histogram.max_us = int(document["max_us"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a histogram") from error
        return histogram

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        """How pydantic writes and reads one as a part of something else."""
        return no_info_plain_validator_function(
            lambda found: found if isinstance(found, cls) else cls.of_document(found),
            serialization=plain_serializer_function_ser_schema(cls.document),
        )

    @property
    def count(self) -> int:
        """Samples recorded."""
        return self._buckets.total()

    def between(self, low_us: int, high_us: int) -> int:
        """Samples from `low_us` on and below `high_us`, by the highest value of their buckets."""
        return sum(n for low, n in self._buckets.items() if low_us <= bucket_of(low)[1] < high_us)

    @property
    def mean(self) -> Fraction:
        """The mean in µs, exact of the middle of each bucket: within 0.1 %."""
        doubled = sum(sum(bucket_of(low)) * n for low, n in self._buckets.items())
        return min(Fraction(doubled, 2 * self.count), Fraction(self.max_us)) if doubled else _ZERO

    @property
    def mean_us(self) -> float:
        """The mean, as a number to show."""
        return float(self.mean)

    @property
    def deviation_us(self) -> float:
        """The standard deviation."""
        mean, squares = self.mean_us, 0.0
        for low, samples in self._buckets.items():
            squares += (sum(bucket_of(low)) / 2 - mean) ** 2 * samples
        return sqrt(squares / self.count) if squares else 0.0

    def percentiles_us(self, *percentiles: float) -> list[int | None]:
        """The value at each of the ascending `percentiles`, None without the samples for it."""
        steps = self._steps_to([ceil(p / 100 * self.count - 1e-9) for p in percentiles])
        return [
            value if self.count * (1 - p / 100) >= SAMPLES_BEYOND - 1e-9 else None
            for p, (value, _) in zip(percentiles, steps, strict=True)
        ]

    def spectrum(self) -> list[tuple[float, int, int]]:
        """(share of the samples, value in µs, samples up to it), ever finer towards 1."""
        if not self.count:
            return []
        shares = list(_shares(self.count))
        ranks = [max(1, ceil(share * self.count - 1e-9)) for share in shares]
        steps = []
        for share, (value, samples) in zip(shares, self._steps_to(ranks), strict=True):
            steps.append((share, value, samples))
            if samples == self.count:
                break
        return [*steps, (1.0, self.max_us, self.count)]

    def encoded(self) -> str:
        """The compressed form (V2, base64) that HdrHistogram's other implementations read."""
        hdr = HdrHistogram(1, HIGHEST_US, DIGITS)
        for lowest, samples in self._buckets.items():
            hdr.record_value(lowest, samples)
        return str(hdr.encode().decode("ascii"))

    def hgrm(self) -> str:
        """The percentile distribution in ms, as HdrHistogram's plotter reads it."""
        lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n"]
        for share, value, total in self.spectrum():
            tail = f" {1 / (1 - share):14.2f}" if share < 1 else ""
            lines.append(f"{value / 1000:12.3f} {share:14.12f} {total:10d}{tail}")
        mean, deviation = self.mean_us / 1000, self.deviation_us / 1000
        lines += [
            f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
            f"#[Max     = {self.max_us / 1000:12.3f}, Total count    = {self.count:12d}]",
            f"#[Buckets = {22:12d}, SubBuckets     = {1 << _SUB_BUCKET_BITS:12d}]",
        ]
        return "\n".join(lines) + "\n"

    def _steps_to(self, ranks: list[int]) -> list[tuple[int, int]]:
        """For the sample at each ascending rank (1 is the smallest), its value and how many
        samples lie at or below that."""
        steps: list[tuple[int, int]] = []
        ascending, seen, lowest = iter(sorted(self._buckets.items())), 0, 0
        for rank in ranks:
            while seen < rank:
                lowest, samples = next(ascending)
                seen += samples
            steps.append((min(bucket_of(lowest)[1], self.max_us), seen))
        return steps


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """One histogram with the samples of all."""
    total = Histogram()
    for histogram in histograms:
        total.merge(histogram)
    return total


def hlog_head(start_unix_us: int) -> str:
    """The head of an .hlog whose intervals are given in seconds since `start_unix_us`."""
    start_s = start_unix_us / 1e6
    return (
        "#[Histogram log format version 1.3]\n"
        f"#[StartTime: {start_s:.3f} (seconds since epoch)]\n"
        f"#[BaseTime: {start_s:.3f} (seconds since epoch)]\n"
        "#[values in µs, Interval_Max in ms]\n"
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    )


def hlog_line(tag: str, start_s: float, length_s: float, histogram: Histogram) -> str:
    """One tagged interval of an .hlog."""
    largest_ms = histogram.max_us / 1000
    return f"Tag={tag},{start_s:.3f},{length_s:.3f},{largest_ms:.3f},{histogram.encoded()}\n"


def _shares(count: int) -> Iterator[float]:
    """HdrHistogram's percentile ticks: so many per halving of the distance to 1."""
    share = 0.0
    while share * count <= count - 1:
        yield share
        halvings = floor(log2(1 / (1 - share))) + 1
        share += 1 / (_TICKS_PER_HALF_DISTANCE * 2**halvings)
