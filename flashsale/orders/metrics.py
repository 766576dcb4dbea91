"""What a worker tells Prometheus: what it counted, and how queue and sales are now.

The queue and the sales are everybody's: each worker tells the same of them, so take `max`. A
store that does not answer within a second is left out: a scrape cannot wait for longer.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from redis import Redis
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.model import Durability
from flashsale.orders.books import Look, len_of, read_sales
from flashsale.orders.sweeper import Sweeper
from flashsale.orders.watch import BooksWatch
from flashsale.orders.worker import Counts, Worker
from flashsale.seckill.permit import WHATS
from flashsale.seckill.queue import read_group
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import Ledgers, Rejected, call, call_all, ledgers
from flashsale.store_urls import lane_of
from flashsale.telemetry import LATENCY_S, SIZES, Buckets

T = TypeVar("T")

_POLICY = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
"""What an acknowledged order rests on."""

_RESULTS = ("written", "repeated", "dead", "lost", "postponed")
_PERSISTED = text("SELECT COALESCE(SUM(initial_stock - stock), 0) FROM tb_seckill_voucher")


@dataclass(frozen=True, slots=True)
class SaleUnits:
    """The units of one sale: offered, still to be had, and held by users, at one moment."""

    offered: int
    left: int
    held: int


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """One look. `lag` is None where it is not known; `oldest_age_s` is of the oldest order that is
    no row yet, 0 where there is none."""

    lag: int | None
    pending: int
    dead: int | None
    oldest_age_s: float
    sales: Sequence[SaleUnits]
    policy: dict[str, bool]
    """Whether each setting is as it must be; empty where the ledger does not tell."""

    @property
    def oversold(self) -> int:
        """Units held beyond those that were offered."""
        return sum(max(0, sale.held - sale.offered) for sale in self.sales)

    @property
    def unaccounted(self) -> int:
        """Units that are neither left nor held, or are both."""
        return sum(abs(sale.offered - sale.left - sale.held) for sale in self.sales)


class WorkerCollector(Collector):
    """The workers of one process, one a lane, and its sweeper."""

    def __init__(self, workers: Sequence[Worker], sweeper: Sweeper) -> None:
        self._workers = workers
        self._sweeper = sweeper

    def collect(self) -> Iterator[Metric]:
        yield from self._orders()
        yield from self._times()
        yield from self._sweeps()

    def _orders(self) -> Iterator[Metric]:
        total = sum((worker.total for worker in self._workers), Counts())
        orders = CounterMetricFamily(
            "flashsale_worker_orders", "Orders handled, by what became of them.", labels=["result"]
        )
        for result in _RESULTS:
            orders.add_metric([result], getattr(total, result))
        yield orders
        for name, meaning, count in (
            ("failures", "Batches and reads that a store refused.", total.failures),
            ("unpending_orders", "Orders that the ledger had not as pending.", total.unpending),
            ("regroupings", "Times that the group was gone.", total.regrouped),
        ):
            yield CounterMetricFamily(f"flashsale_worker_{name}", meaning, count)
        yield GaugeMetricFamily(
            "flashsale_worker_postponed_orders",
            "Orders that will be tried again.",
            sum(worker.postponed for worker in self._workers),
        )

    def _times(self) -> Iterator[Metric]:
        every = self._workers
        sizes, durations_s = Buckets(SIZES), Buckets(LATENCY_S)
        latencies_s = sum((worker.latencies_s for worker in every), Buckets(LATENCY_S))
        for name, meaning, buckets in (
            (
                "batch_orders",
                "Orders in one transaction.",
                sum((worker.batch_sizes for worker in every), sizes),
            ),
            (
                "batch_duration_seconds",
                "One batch of orders to MySQL.",
                sum((worker.durations_s for worker in every), durations_s),
            ),
            ("persist_latency_seconds", "Acceptance of an order to its row.", latencies_s),
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
        sales = CounterMetricFamily(
            "flashsale_sweeper_sales",
            "Changes of sales finished that were cut short, and sales paused.",
            labels=["result"],
        )
        sales.add_metric(["finished"], total.finished)
        sales.add_metric(["paused"], total.paused)
        yield sales
        yield CounterMetricFamily("flashsale_sweeper_failures", "Failed sweeps.", total.failures)


class BooksCollector(Collector):
    """What the watches over the books, one a lane, saw at their last looks; nothing while a store
    does not answer."""

    def __init__(self, *watches: BooksWatch) -> None:
        self._watches = watches

    def collect(self) -> Iterator[Metric]:
        every = [watch.total for watch in self._watches]
        for name, meaning, count in (
            ("looks", "Times that ledger and MySQL were compared.", [t.looks for t in every]),
            ("failures", "Times that a store did not answer.", [t.failures for t in every]),
            ("requeued_orders", "Orders written to the stream again.", [t.requeued for t in every]),
            (
                "closings",
                "Times that the sales were closed since books disagree.",
                [t.closings for t in every],
            ),
        ):
            yield CounterMetricFamily(f"flashsale_books_{name}", meaning, sum(count))
        looks = [total.last for total in every if total.last is not None]
        if looks and len(looks) == len(every):
            wrong = [watch.told_wrong() for watch in self._watches]
            yield from _books(_together(looks), _together(wrong))


def _together(looks: Sequence[Look]) -> Look:
    """What the books of all lanes said."""
    return Look(
        reasons=[reason for look in looks for reason in look.reasons],
        permitted=all(look.permitted for look in looks),
        lost_sales=[sale for look in looks for sale in look.lost_sales],
        torn_sales=[sale for look in looks for sale in look.torn_sales],
        missing=_added([look.missing for look in looks]),
        forgotten=sum(look.forgotten for look in looks),
        uneven_sales=sorted({sale for look in looks for sale in look.uneven_sales}),
        mistyped={name: told for look in looks for name, told in look.mistyped.items()},
    )


def _books(look: Look, wrong: Look) -> Iterator[Metric]:
    """A look; and what was missing or forgotten of late, so that no scrape misses it."""
    missing = None if look.missing is None else wrong.missing or 0
    behind = GaugeMetricFamily(
        "flashsale_books_behind", "1 where the ledger is behind MySQL in this.", labels=["what"]
    )
    found = {reason.what for reason in look.reasons}
    for what in WHATS:
        behind.add_metric([what], float(what in found))
    yield behind
    for name, meaning, value in (
        (
            "permitted",
            "1 while the ledger has a permit, so that anything can be sold.",
            look.permitted,
        ),
        ("lost_sales", "Sales without stock or terms in the ledger.", len(look.lost_sales)),
        ("torn_sales", "Sales whose keys in the ledger disagree.", len(look.torn_sales)),
        ("missing_orders", "Accepted orders neither rows nor on their way, of late.", missing),
        ("forgotten_orders", "Rows that the ledger does not hold, of late.", wrong.forgotten),
        (
            "uneven_sales",
            "Sales whose units and rows in MySQL do not add up.",
            len(look.uneven_sales),
        ),
        ("mistyped_keys", "Keys of the ledger that are of another type.", len(look.mistyped)),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"flashsale_books_{name}", meaning, float(value))


class QueueCollector(Collector):
    """The stream, the sales in the ledger, and the units that MySQL has given out.

    What a store does not tell within a second is left out.
    """

    def __init__(
        self, ledger: Redis | Ledgers, pool: Engine, durability: Durability = Durability.ALWAYS
    ) -> None:
        self._ledger = Patient(lambda: look(ledger, durability))
        self._mysql = Patient(lambda: _persisted(pool))

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
    """What is not known is left out: it is not nought."""
    lag = figures.lag
    yield GaugeMetricFamily(
        "flashsale_stream_lag_known",
        "1 where it is known how many orders no worker was given yet.",
        float(lag is not None),
    )
    if lag is not None:
        yield GaugeMetricFamily(
            "flashsale_stream_lag_entries", "Orders that no worker was given yet.", lag
        )
    for name, meaning, value in (
        ("pending_entries", "Orders given to a worker and not yet rows.", figures.pending),
        ("dead_entries", "Orders set aside for good, with a reason.", figures.dead),
        ("oldest_age_seconds", "Age of the oldest order that is no row.", figures.oldest_age_s),
    ):
        if value is not None:
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


class Patient(Generic[T]):
    """Asks in a thread of its own, one at a time; `answer()` is None where it takes too long.

    Unavailable and Indeterminate are no answer either.
    """

    def __init__(self, question: Callable[[], T], *, timeout_s: float = 1.0) -> None:
        self._question = question
        self._timeout_s = timeout_s
        self._asking: threading.Thread | None = None
        self._heard: T | None = None

    def __repr__(self) -> str:
        return f"<Patient {'asking' if self._asking else 'idle'}>"

    def answer(self) -> T | None:
        """What was asked just now, or what an earlier, slower question has just brought."""
        if self._asking is None or not self._asking.is_alive():
            self._heard = None
            self._asking = threading.Thread(target=self._ask, name="figures", daemon=True)
            self._asking.start()
        self._asking.join(self._timeout_s)
        return None if self._asking.is_alive() else self._heard

    def _ask(self) -> None:
        try:
            self._heard = self._question()
        except (Unavailable, Indeterminate):
            self._heard = None


def look(ledger: Redis | Ledgers, durability: Durability = Durability.ALWAYS) -> LedgerFigures:
    """Read everything, of all lanes together. Raises Unavailable or Indeterminate."""
    every = [_look(client, durability) for client in ledgers(ledger).clients]
    if len(every) == 1:
        return every[0]
    return LedgerFigures(
        _added([figures.lag for figures in every]),
        sum(figures.pending for figures in every),
        _added([figures.dead for figures in every]),
        max(figures.oldest_age_s for figures in every),
        [sale for figures in every for sale in figures.sales],
        {
            name: all(figures.policy.get(name, False) for figures in every)
            for name in every[0].policy
        },
    )


def _added(counts: Sequence[int | None]) -> int | None:
    """All of them together; not known where one is not."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _look(ledger: Redis, durability: Durability) -> LedgerFigures:
    group = read_group(ledger)
    return LedgerFigures(
        group.undelivered,
        group.pending,
        len_of(ledger.xlen, lane_of(ledger).stream_dead),
        0.0 if group.outstanding == 0 else _oldest_age_s(ledger, group.delivered, group.pending),
        list(_read_sales(ledger)),
        _policy(ledger, durability),
    )


def _oldest_age_s(ledger: Redis, delivered: str, pending: int) -> float:
    stream = lane_of(ledger).stream_orders
    pipeline = ledger.pipeline(transaction=False)
    pipeline.time()
    pipeline.xrange(stream, f"({delivered}", "+", count=1)
    if pending:
        pipeline.xpending(stream, keys.GROUP)
    (seconds, micros), waiting, *summary = call_all(pipeline)
    ids = [entry_id for entry_id, _ in waiting] + [one["min"] for one in summary if one["min"]]
    oldest_ms = min((int(entry_id.partition("-")[0]) for entry_id in ids), default=None)
    return 0.0 if oldest_ms is None else max(0.0, seconds + micros / 1e6 - oldest_ms / 1000)


def _read_sales(ledger: Redis) -> Iterable[SaleUnits]:
    """The sales that are whole enough to be counted."""
    for sale in read_sales(ledger).values():
        if sale.offered is not None and sale.left is not None:
            yield SaleUnits(sale.offered, sale.left, max(0, sale.members))


def _policy(ledger: Redis, durability: Durability) -> dict[str, bool]:
    try:
        found = cast("dict[str, str]", call(ledger.config_get, *_POLICY))
    except Rejected:
        return {}
    kept = {name: found[name] == wanted for name, wanted in _POLICY.items() if name in found}
    if found.get("appendfsync") == durability.appendfsync:  # chosen by name
        kept["appendfsync"] = True
    return kept
