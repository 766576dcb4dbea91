"""What the cache of a replica counts, for Prometheus."""

import math
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Source

_KIND = ["kind", "strategy"]


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
        for kind in self._cache.kinds.values():
            labels, counts = [kind.kind, kind.strategy.value], kind.loading
            loads.add_metric(labels, counts.loads)
            failures.add_metric(labels, counts.failures)
            fills.add_metric([*labels, "filled"], counts.fills)
            fills.add_metric([*labels, "refused"], counts.refused_fills)
            rebuilds.add_metric(labels, kind.rebuild_failures)
        yield from (loads, failures, fills, rebuilds)

    def _health(self) -> Iterator[Metric]:
        cache = self._cache
        yield CounterMetricFamily(
            "flashsale_cache_breaker_opened", "Times the cache was given up.", cache.breaker.opened
        )
        yield CounterMetricFamily(
            "flashsale_cache_loads_refused", "Loads beyond the limit.", cache.limit.refused
        )
        for name, meaning, value in (
            ("breaker_open", "1 while reads do not ask the cache.", cache.breaker.is_open),
            ("loads_running", "Loads under way.", cache.limit.running),
            ("loads_waiting", "Loads that wait for their turn.", cache.limit.waiting),
            ("owed_deletes", "Deletes that wait for the cache.", len(cache.owed)),
        ):
            yield GaugeMetricFamily(f"flashsale_cache_{name}", meaning, float(value))

    def _blooms(self) -> Iterator[Metric]:
        there = GaugeMetricFamily(
            "flashsale_bloom_present", "1 where there is a filter.", labels=["filter"]
        )
        figures = {
            "capacity": "Ids it was made for.",
            "fill": "Share of its bits that are set.",
            "estimated_ids": "Ids in it, estimated from the fill.",
            "false_positives": "Share of unknown ids that pass.",
        }
        gauges = {
            name: GaugeMetricFamily(f"flashsale_bloom_{name}", meaning, labels=["filter"])
            for name, meaning in figures.items()
        }
        for bloom in self._cache.blooms.values():
            saturation = bloom.saturation
            there.add_metric([bloom.name], float(saturation is not None))
            for name, gauge in gauges.items():
                value = math.nan if saturation is None else getattr(saturation, name)
                gauge.add_metric([bloom.name], value)
        yield from (there, *gauges.values())
