"""What a process tells Prometheus: its registry, its gates, its connections to MySQL and Redis."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from sqlalchemy import Engine, QueuePool

from flashsale.storage.channel import Channel
from flashsale.storage.gate import Gate


class Metrics:
    """The registry of one process: itself, and what its `collectors` count."""

    def __init__(self, *collectors: Collector) -> None:
        self._registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR, *collectors):
            self._registry.register(collector)

    content_type = CONTENT_TYPE_LATEST.encode()

    def render(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self._registry)


class MySQLPoolCollector(Collector):
    """Pools by what they are for."""

    def __init__(self, pools: Mapping[str, Engine]) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        open_ = GaugeMetricFamily(
            "flashsale_mysql_pool_connections", "Open connections.", labels=["pool", "state"]
        )
        most = GaugeMetricFamily(
            "flashsale_mysql_pool_connections_max", "Connections allowed.", labels=["pool"]
        )
        for name, engine in self._pools.items():
            pool = engine.pool
            if isinstance(pool, QueuePool):
                open_.add_metric([name, "in_use"], pool.checkedout())
                open_.add_metric([name, "idle"], pool.checkedin())
                most.add_metric([name], pool.size() + pool._max_overflow)
        yield from (open_, most)


class ChannelCollector(Collector):
    """Redis channels by what they are for."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels

    def collect(self) -> Iterator[Metric]:
        open_ = GaugeMetricFamily(
            "flashsale_redis_connections", "Connections made.", labels=["channel", "state"]
        )
        most = GaugeMetricFamily(
            "flashsale_redis_connections_max", "Connections allowed.", labels=["channel"]
        )
        failures = CounterMetricFamily(
            "flashsale_redis_failures",
            "Calls that got no answer (lost), no connection (unreachable), or one that too few of "
            "the ledger's replicas confirmed (unconfirmed).",
            labels=["channel", "failure"],
        )
        for name, channel in self._channels.items():
            open_.add_metric([name, "in_use"], channel.in_use)
            open_.add_metric([name, "idle"], channel.idle)
            most.add_metric([name], channel.connections_max)
            failures.add_metric([name, "lost"], channel.lost)
            failures.add_metric([name, "unreachable"], channel.unreachable)
            failures.add_metric([name, "unconfirmed"], channel.unconfirmed)
        yield from (open_, most, failures)


class GateCollector(Collector):
    """Gates by name: how full they are, and what leaves them."""

    def __init__(self, gates: Mapping[str, Gate[Any, Any]]) -> None:
        self._gates = gates

    def collect(self) -> Iterator[Metric]:
        sizes = HistogramMetricFamily(
            "flashsale_gate_batch_items", "Items that left in one call.", labels=["gate"]
        )
        durations = HistogramMetricFamily(
            "flashsale_gate_call_duration_seconds", "From a call to its answer.", labels=["gate"]
        )
        waiting = GaugeMetricFamily(
            "flashsale_gate_waiting_items", "Items queued.", labels=["gate"]
        )
        calls = GaugeMetricFamily(
            "flashsale_gate_calls_in_flight", "Calls not yet answered.", labels=["gate"]
        )
        refused = CounterMetricFamily(
            "flashsale_gate_refused_items", "Items that found the queue full.", labels=["gate"]
        )
        for name, gate in self._gates.items():
            sizes.add_metric([name], gate.sizes.cumulative(), gate.sizes.sum)
            durations.add_metric([name], gate.durations_s.cumulative(), gate.durations_s.sum)
            waiting.add_metric([name], gate.waiting)
            calls.add_metric([name], gate.in_flight)
            refused.add_metric([name], gate.refused)
        yield from (sizes, durations, waiting, calls, refused)
