"""Connections of one process to MySQL and Redis, for Prometheus."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, QueuePool

from flashsale.storage.channel import Channel


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
            "Calls that got no answer (lost), or no connection (unreachable).",
            labels=["channel", "failure"],
        )
        for name, channel in self._channels.items():
            open_.add_metric([name, "in_use"], channel.in_use)
            open_.add_metric([name, "idle"], channel.idle)
            most.add_metric([name], channel.connections_max)
            failures.add_metric([name, "lost"], channel.lost)
            failures.add_metric([name, "unreachable"], channel.unreachable)
        yield from (open_, most, failures)
