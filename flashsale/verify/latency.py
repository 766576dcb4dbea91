"""From acceptance to row: how long an order took to become durable in MySQL."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from hdrh.histogram import HdrHistogram

from flashsale.verify.database import NO_TIME
from flashsale.verify.snapshot import Snapshot

_LONGEST_MS = 24 * 3600 * 1000
_DIGITS = 3
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}


def persisted_latency(snapshot: Snapshot) -> dict[str, Any]:
    """persisted_at − create_time of the run's orders: count, mean, percentiles and max in ms.

    The two instants are of two clocks: `clock_offset_ms` (MySQL's less Redis') stands beside them
    and is not subtracted; what it makes negative counts as 0. A percentile with less than one
    order above it is None.
    """
    waits = Counter(max(0, min(wait, _LONGEST_MS)) for wait in _waits(snapshot))
    histogram = HdrHistogram(1, _LONGEST_MS, _DIGITS)
    for wait, count in waits.items():
        histogram.record_value(wait, count)
    count = waits.total()
    clocks = snapshot.clocks
    return {
        "count": count,
        "mean": round(sum(w * n for w, n in waits.items()) / count, 3) if count else None,
        **{name: _percentile(histogram, count, p) for name, p in _PERCENTILES.items()},
        "max": max(waits) if waits else None,
        "clock_offset_ms": clocks.offset_ms if clocks else None,
        "clock_error_ms": clocks.error_ms if clocks else None,
    }


def drain_s(snapshot: Snapshot) -> float | None:
    """From the last sale to the last row of the run, in seconds; None without rows."""
    created = persisted = NO_TIME
    for sale in snapshot.sales:
        for row in sale.new_rows():
            created = max(created, sale.rows.created_ms[row])
            persisted = max(persisted, sale.rows.persisted_ms[row])
    if NO_TIME in (created, persisted):
        return None
    return max(0, persisted - created) / 1000


def _waits(snapshot: Snapshot) -> Iterator[int]:
    for sale in snapshot.sales:
        created, persisted = sale.rows.created_ms, sale.rows.persisted_ms
        for row in sale.new_rows():
            if created[row] != NO_TIME and persisted[row] != NO_TIME:
                yield persisted[row] - created[row]


def _percentile(histogram: HdrHistogram, count: int, percentile: float) -> int | None:
    if count * (100 - percentile) < 100:
        return None
    return int(histogram.get_value_at_percentile(percentile))
