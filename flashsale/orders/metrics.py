"""What a worker counts, and how queue and sales are, for Prometheus.

The queue and the sales are everybody's: each worker tells the same of them, so take `max`.
"""

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, text

from flashsale.errors import Indeterminate, Unavailable
from flashsale.orders import ledger_figures
from flashsale.orders.ledger_figures import LedgerFigures
from flashsale.orders.patience import Patient
from flashsale.orders.sweeper import Sweeper
from flashsale.orders.worker import Worker
from flashsale.storage.mysql import transaction

_RESULTS = ("written", "repeated", "dead", "lost", "postponed")
_PERSISTED = text("SELECT COALESCE(SUM(initial_stock - stock), 0) FROM tb_seckill_voucher")


class WorkerCollector(Collector):
    """One worker and its sweeper."""

    def __init__(self, worker: Worker, sweeper: Sweeper) -> None:
        self._worker = worker
        self._sweeper = sweeper

    def collect(self) -> Iterator[Metric]:
        yield from self._orders()
        yield from self._times()
        yield from self._sweeps()

    def _orders(self) -> Iterator[Metric]:
        total = self._worker.total
        orders = CounterMetricFamily(
            "flashsale_worker_orders", "Orders handled, by what became of them.", labels=["result"]
        )
        for result in _RESULTS:
            orders.add_metric([result], getattr(total, result))
        yield orders
        yield CounterMetricFamily(
            "flashsale_worker_failures", "Batches and reads that a store refused.", total.failures
        )
        yield GaugeMetricFamily(
            "flashsale_worker_postponed_orders",
            "Orders that will be tried again.",
            self._worker.postponed,
        )

    def _times(self) -> Iterator[Metric]:
        worker = self._worker
        for name, meaning, buckets in (
            ("batch_orders", "Orders in one transaction.", worker.batch_sizes),
            ("batch_duration_seconds", "One batch of orders to MySQL.", worker.durations_s),
            ("persist_latency_seconds", "Acceptance of an order to its row.", worker.latencies_s),
        ):
            yield HistogramMetricFamily(
                f"flashsale_worker_{name}",
                meaning,
                buckets=buckets.cumulative(),
                sum_value=buckets.sum,
            )

    def _sweeps(self) -> Iterator[Metric]:
        total = self._sweeper.total
        swept = CounterMetricFamily(
            "flashsale_sweeper_orders", "Orders swept, by what became of them.", labels=["result"]
        )
        swept.add_metric(["timed_out"], total.timed_out)
        swept.add_metric(["returned"], total.returned)
        yield swept
        yield CounterMetricFamily("flashsale_sweeper_failures", "Failed sweeps.", total.failures)


class QueueCollector(Collector):
    """The stream, the sales in the ledger, and the units that MySQL has given out.

    What a store does not tell within a second is left out.
    """

    def __init__(self, ledger: Redis, pool: Engine) -> None:
        self._ledger = Patient(lambda: ledger_figures.look(ledger), (RedisError,))
        self._mysql = Patient(lambda: _persisted(pool), (Unavailable, Indeterminate))

    def collect(self) -> Iterator[Metric]:
        figures = self._ledger.answer()
        if figures is not None:
            yield from _stream(figures)
            yield from _sales(figures)
        persisted = self._mysql.answer()
        if persisted is not None:
            yield GaugeMetricFamily(
                "flashsale_sale_persisted_units", "Units that MySQL has given out.", persisted
            )


def _persisted(pool: Engine) -> int:
    with transaction(pool) as connection:
        return int(connection.execute(_PERSISTED).scalar_one())


def _stream(figures: LedgerFigures) -> Iterator[Metric]:
    for name, meaning, value in (
        ("lag_entries", "Orders that no worker was given yet.", figures.lag),
        ("pending_entries", "Orders given to a worker and not yet rows.", figures.pending),
        ("dead_entries", "Orders set aside for good, with a reason.", figures.dead),
        ("oldest_age_seconds", "Age of the oldest order that is no row.", figures.oldest_age_s),
    ):
        yield GaugeMetricFamily(f"flashsale_stream_{name}", meaning, value)


def _sales(figures: LedgerFigures) -> Iterator[Metric]:
    units = GaugeMetricFamily(
        "flashsale_sale_units", "Units of all loaded sales.", labels=["state"]
    )
    for state in ("offered", "left", "held"):
        units.add_metric([state], sum(getattr(sale, state) for sale in figures.sales))
    yield units
    yield GaugeMetricFamily("flashsale_sales", "Sales that are loaded.", len(figures.sales))
    yield GaugeMetricFamily(
        "flashsale_sale_oversold_units", "Units held beyond those offered.", figures.oversold
    )
    yield GaugeMetricFamily(
        "flashsale_sale_unaccounted_units",
        "Units that are neither left nor held, or both.",
        figures.unaccounted,
    )
    policy = GaugeMetricFamily(
        "flashsale_ledger_policy_holds",
        "1 where a setting of the ledger is as acknowledged orders need it.",
        labels=["setting"],
    )
    for setting, holds in figures.policy.items():
        policy.add_metric([setting], float(holds))
    yield policy
