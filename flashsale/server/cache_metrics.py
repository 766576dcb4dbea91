"""What the cache of a replica counts, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Source

_KIND = ["kind", "strategy"]
_SATURATION = (
    ("capacity", "capacity_ids", "Ids it was made for."),
    ("fill", "fill_ratio", "Share of its bits that are set."),
    ("estimated_ids", "estimated_ids", "Ids in it, estimated from the fill."),
    ("false_positives", "false_positive_ratio", "Share of unknown ids that pass."),
)


class CacheCollector(Collector):
    """Reads, loads and filters of one process; given to `Metrics`."""

    def __init__(self, cache: CacheClient) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        yield from self._reads()
        yield from self._loads()
        yield from self._health()
        yield from self._blooms()

    def _reads(self) -> Iterator[Metric]:
        reads = CounterMetricFamily(
            "flashsale_cache_reads", "Cached reads, by outcome.", labels=[*_KIND, "outcome"]
        )
        for kind in self._cache.kinds.values():
            for source in Source:
                reads.add_metric(
                    [kind.kind, kind.strategy.value, source.value], kind.outcomes[source]
                )
        yield reads

    def _loads(self) -> Iterator[Metric]:
        loads = CounterMetricFamily(
            "flashsale_cache_loads", "Loads from the database.", labels=_KIND
        )
        failures = CounterMetricFamily(
            "flashsale_cache_load_failures", "Loads that failed.", labels=_KIND
        )
        fills = CounterMetricFamily(
            "flashsale_cache_fills", "Loads put into the cache, or not.", labels=[*_KIND, "result"]
        )
        rebuilds = CounterMetricFamily(
            "flashsale_cache_rebuild_failures", "Rebuilds that failed.", labels=_KIND
        )
        durations = HistogramMetricFamily(
            "flashsale_cache_load_duration_seconds", "Loads, failed ones too.", labels=_KIND
        )
        for kind in self._cache.kinds.values():
            labels, counts = [kind.kind, kind.strategy.value], kind.loading
            loads.add_metric(labels, counts.loads)
            failures.add_metric(labels, counts.failures)
            fills.add_metric([*labels, "filled"], counts.fills)
            fills.add_metric([*labels, "refused"], counts.refused_fills)
            rebuilds.add_metric(labels, kind.rebuild_failures)
            durations.add_metric(labels, counts.durations_s.cumulative(), counts.durations_s.sum)
        yield from (loads, failures, fills, rebuilds, durations)

    def _health(self) -> Iterator[Metric]:
        cache = self._cache
        yield CounterMetricFamily(
            "flashsale_cache_breaker_openings",
            "Times the cache was given up.",
            cache.calls.breaker.opened,
        )
        yield CounterMetricFamily(
            "flashsale_cache_loads_refused", "Loads beyond the limit.", cache.limit.refused
        )
        for name, meaning, value in (
            ("breaker_open", "1 while reads do not ask the cache.", cache.calls.breaker.is_open),
            ("loads_running", "Loads under way.", cache.limit.running),
            ("loads_waiting", "Loads that wait for their turn.", cache.limit.waiting),
            ("owed_deletes", "Deletes that wait for the cache.", len(cache.calls.owed)),
        ):
            yield GaugeMetricFamily(f"flashsale_cache_{name}", meaning, float(value))

    def _blooms(self) -> Iterator[Metric]:
        there = GaugeMetricFamily(
            "flashsale_bloom_present", "1 where there is a filter.", labels=["filter"]
        )
        gauges = {
            field: GaugeMetricFamily(f"flashsale_bloom_{name}", meaning, labels=["filter"])
            for field, name, meaning in _SATURATION
        }
        for bloom in self._cache.blooms.values():
            saturation = bloom.saturation
            there.add_metric([bloom.name], float(saturation is not None))
            if saturation is not None:
                for field, gauge in gauges.items():
                    gauge.add_metric([bloom.name], getattr(saturation, field))
        yield from (there, *gauges.values())
