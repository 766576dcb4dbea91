"""Latencies as summary.json tells them: a histogram in a few statistics."""

from typing import Self

from pydantic import Field

from flashsale.storm.figures.histogram import Histogram
from flashsale.storm.figures.part import Part

_PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


class Latency(Part):
    """A distribution in ms. A percentile is null without enough samples behind it."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None = Field(validation_alias="p99.9", serialization_alias="p99.9")
    max: float | None

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        """The statistics of `histogram`."""
        some = bool(histogram.count)
        p50, p90, p95, p99, p999 = map(_ms, histogram.percentiles_us(*_PERCENTILES))
        return cls(
            count=histogram.count,
            mean=_ms(histogram.mean_us if some else None),
            max=_ms(histogram.max_us if some else None),
            p50=p50, p90=p90, p95=p95, p99=p99, p999=p999,
        )  # fmt: skip


class PersistedLatency(Latency):
    """From acceptance to row, with the offset of the two clocks that it is read from."""

    clock_offset_ms: float | None = None
    clock_error_ms: float | None = None


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else round(value_us / 1000, 3)
