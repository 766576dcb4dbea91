"""The books, watched: every worker compares ledger and MySQL all the time, and acts on it.

1. A ledger that is behind loses its permit (seckill/permit.py), and one that is not gets one.
2. What the ledger's sales hold and MySQL has not sold is on its way: in the stream, owed to the
   ledger by a cancellation, or set aside. What is none of these is *missing*: accepted orders whose
   entries went unread. What MySQL has sold and the ledger does not hold is *forgotten*.
3. Missing orders are written to the stream again, from their receipts, once their claims' time is
   over and everything older has been written.
4. Missing or forgotten orders that stay so for `LOOKS` looks close the sales; books that agree
   again for as long open them.

Ledger and MySQL are not read at one instant: the ledger comes first, so that an order which becomes
a row in between is missing from neither, and a cancellation in between shows for one look at most.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import structlog
from redis import Redis
from sqlalchemy import Connection, func, select

from flashsale.errors import Indeterminate, Unavailable
from flashsale.keys import WHOLE, Lane
from flashsale.orders.lifecycle import CLOCK_SLACK_MS
from flashsale.seckill.permit import Behind, Books, Reason, behind
from flashsale.seckill.queue import Accepted, id_ms, read_group, read_queue, read_receipts, requeue
from flashsale.storage.mysql import transaction, unix_ms
from flashsale.storage.roles import call, call_all
from flashsale.storage.tables import order_return, seckill_voucher, voucher_order
from flashsale.store_urls import lane_of

log = structlog.get_logger(__name__)

LOOKS = 3
SALES_MAX = 1_000
"""Sales that are looked at: a look is made every second."""

_SALES_AT_ONCE = 100
_ORDERS_AT_ONCE = 1_000
_CLOSED_BY_US = "books: "


class LedgerSale(NamedTuple):
    """One sale at one moment; what is None is not there."""

    offered: int | None
    left: int | None
    members: int
    receipts: int

    @property
    def is_lost(self) -> bool:
        """True where it has no terms or no stock: it sells nothing."""
        return self.offered is None or self.left is None

    @property
    def is_torn(self) -> bool:
        """True where its keys disagree: it sells nothing."""
        if self.offered is None or self.left is None:
            return False
        return self.members != self.receipts or self.left + self.members != self.offered


class Sold(NamedTuple):
    """One sale in MySQL: units that rows hold, returns that the ledger is owed, and its window."""

    units: int
    owed: int
    begin_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Look:
    """What the books said at one look. `missing` is None where the backlog is not known."""

    reasons: Sequence[Reason] = ()
    closed: str = ""
    permitted: bool = False
    lost_sales: Sequence[int] = ()
    torn_sales: Sequence[int] = ()
    missing: int | None = 0
    forgotten: int = 0


def judged(
    ledger: Mapping[int, LedgerSale], sold: Mapping[int, Sold], on_their_way: int | None
) -> Look:
    """What follows from sales in both stores, and from how many orders the stream and the dead
    letters account for. Pure."""
    nothing = Sold(0, 0, 0, 0)
    missing = -(on_their_way or 0)
    forgotten = 0
    for voucher_id, sale in ledger.items():
        in_mysql = sold.get(voucher_id, nothing)
        more = max(sale.members, sale.receipts) - in_mysql.units
        missing += max(0, more - in_mysql.owed)
        if not sale.is_lost:
            forgotten += max(0, -more)
    lost = [v for v, sale in ledger.items() if sale.is_lost]
    lost += [v for v, in_mysql in sold.items() if in_mysql.units > 0 and v not in ledger]
    return Look(
        lost_sales=tuple(sorted(lost)),
        torn_sales=tuple(sorted(v for v, sale in ledger.items() if sale.is_torn)),
        missing=None if on_their_way is None else max(0, missing),
        forgotten=forgotten,
    )


@dataclass
class Watched:
    """What a watch did and saw, all looks together."""

    looks: int = 0
    requeued: int = 0
    closings: int = 0
    failures: int = 0
    last: Look | None = field(default=None, repr=False)  # None while a store does not answer


class BooksWatch:
    """Looks after the books; several at once do no harm. `run_once()` is one look and its acts."""

    def __init__(self, books: Books, *, interval_s: float, claim_timeout_ms: int) -> None:
        self._books = books
        self._interval_s = interval_s
        self._settled_ms = claim_timeout_ms + CLOCK_SLACK_MS + 1_000  # an id tells its second
        self._wrong = 0  # looks in a row
        self._right = 0
        self.doubt = threading.Event()
        """Set by whoever has a reason to have the books looked at now."""
        self.total = Watched()

    def __repr__(self) -> str:
        return f"<BooksWatch {self.total}>"

    def run(self, stop: threading.Event) -> None:
        """Look every interval, and whenever there is doubt, until `stop`."""
        while not stop.is_set():
            self.doubt.wait(self._interval_s)
            self.doubt.clear()
            if stop.is_set():
                return
            try:
                self.run_once()
            except (Unavailable, Indeterminate) as trouble:
                self.total.failures += 1
                self.total.last = None
                log.warning("the books cannot be looked at", trouble=str(trouble))

    def run_once(self) -> Look:
        """Compare, reconcile, and act on both. Raises Unavailable or Indeterminate."""
        found = self.look()
        self._wrong = self._wrong + 1 if found.missing or found.forgotten else 0
        is_right = not found.reasons and found.missing == 0 and not found.forgotten
        self._right = self._right + 1 if is_right else 0
        if found.missing and self._wrong >= LOOKS - 1:
            self.total.requeued += self.requeue_missing()
        if self._wrong >= LOOKS and not found.closed and not found.reasons:
            self._close(found)
        elif found.closed.startswith(_CLOSED_BY_US) and self._right >= LOOKS:
            self._open(found.closed)
        self.total.looks += 1
        self.total.last = found
        return found

    def look(self) -> Look:
        """The books as they are; the permit follows from the comparison."""
        permitted = False
        with suppress(Behind):  # what was compared tells why
            self._books.confirm()
            permitted = True
        mysql, ledger = self._books.compared
        reconciled = self.reconcile()
        return Look(
            tuple(behind(mysql, ledger)),
            ledger.closed,
            permitted,
            reconciled.lost_sales,
            reconciled.torn_sales,
            reconciled.missing,
            reconciled.forgotten,
        )

    def reconcile(self) -> Look:
        """Sales, backlog, rows. Nothing is written."""
        ledger = self._books.ledger
        sales = read_sales(ledger)
        group = read_group(ledger)
        dead = call(ledger.hlen, lane_of(ledger).dead_orders)
        with transaction(self._books.pool) as connection:
            sold = read_sold(connection, self._books.lane)
        on_their_way = None if group.outstanding is None else group.outstanding + dead
        return judged(sales, sold, on_their_way)

    def requeue_missing(self) -> int:
        """Write those missing orders to the stream again whose time is over; how many were."""
        ledger = self._books.ledger
        with transaction(self._books.pool) as connection:
            sold = read_sold(connection, self._books.lane)
        queue = read_queue(ledger)
        seconds, _ = call(ledger.time)
        before_ms = min(seconds * 1_000, queue.oldest_ms or seconds * 1_000) - self._settled_ms
        written = 0
        for voucher_id, terms in sold.items():
            old = [
                Accepted(order, user, voucher_id)
                for user, order in read_receipts(ledger, voucher_id).items()
                if id_ms(order) < before_ms and order not in queue.orders
            ]
            lost = self._without_rows(old)
            if lost:
                window = {voucher_id: (terms.begin_ms, terms.end_ms)}
                written += requeue(ledger, lost, window)
                log.error(
                    "orders were written to the stream again", voucher=voucher_id, orders=written
                )
        return written

    def _without_rows(self, orders: Sequence[Accepted]) -> list[Accepted]:
        lost: list[Accepted] = []
        for start in range(0, len(orders), _ORDERS_AT_ONCE):
            some = orders[start : start + _ORDERS_AT_ONCE]
            query = select(voucher_order.c.id).where(
                voucher_order.c.id.in_([order.order_id for order in some])
            )
            with transaction(self._books.pool) as connection:
                rows = set(connection.execute(query).scalars())
            lost += [order for order in some if order.order_id not in rows]
        return lost

    def _close(self, found: Look) -> None:
        parts = []
        if found.missing:
            parts.append(f"{found.missing} accepted orders are neither rows nor on their way")
        if found.forgotten:
            parts.append(f"{found.forgotten} orders in MySQL are not held in the ledger")
        self._books.revoke(f"{_CLOSED_BY_US}{'; '.join(parts)}")
        self.total.closings += 1

    def _open(self, closed: str) -> None:
        """Lift what a watch has closed, unless somebody else has closed it meanwhile."""
        if lift(self._books.ledger, closed):
            self._books.confirm()


def lift(ledger: Redis, closed: str) -> bool:
    """End a closing, if it still is this one; False where it is another by now."""
    return bool(call(_lifted, ledger, closed))


def _lifted(ledger: Redis, closed: str) -> bool:
    with ledger.pipeline(transaction=True) as pipeline:
        pipeline.watch(lane_of(ledger).closed)  # type: ignore[no-untyped-call]
        if pipeline.get(lane_of(ledger).closed) != closed:
            return False
        pipeline.multi()
        pipeline.delete(lane_of(ledger).closed)
        pipeline.execute()
        return True


def read_sales(ledger: Redis) -> dict[int, LedgerSale]:
    """The ledger's sales, each read in one transaction: a claim comes before it or after it."""
    lane = lane_of(ledger)
    listed = ledger.sscan_iter(lane.loaded_sales, count=_SALES_AT_ONCE)
    vouchers = call(lambda: [int(v) for v in islice(listed, SALES_MAX) if str(v).isdigit()])
    found: dict[int, LedgerSale] = {}
    for start in range(0, len(vouchers), _SALES_AT_ONCE):
        some = vouchers[start : start + _SALES_AT_ONCE]
        pipeline = ledger.pipeline(transaction=True)
        for voucher in some:
            pipeline.hget(lane.seckill_sale(voucher), "initial")
            pipeline.get(lane.seckill_stock(voucher))
            pipeline.scard(lane.seckill_order(voucher))
            pipeline.hlen(lane.seckill_receipt(voucher))
        replies = call_all(pipeline)
        for k, voucher in enumerate(some):
            offered, left, members, receipts = replies[4 * k : 4 * k + 4]
            found[voucher] = LedgerSale(_number(offered), _number(left), members, receipts)
    return found


def _number(told: str | None) -> int | None:
    return int(told) if told and told.lstrip("-").isdigit() else None


def read_sold(connection: Connection, lane: Lane = WHOLE) -> dict[int, Sold]:
    """Every sale in MySQL that is one of the lane's."""
    owed = (
        select(order_return.c.voucher_id, func.count().label("orders"))
        .group_by(order_return.c.voucher_id)
        .subquery()
    )
    sale = seckill_voucher.c
    rows = connection.execute(
        select(seckill_voucher, func.coalesce(owed.c.orders, 0).label("owed")).select_from(
            seckill_voucher.outerjoin(owed, owed.c.voucher_id == sale.voucher_id)
        )
    )
    return {
        row.voucher_id: Sold(
            row.initial_stock - row.stock,
            row.owed,
            unix_ms(row.begin_time),
            unix_ms(row.end_time),
        )
        for row in rows
        if lane.sells(row.voucher_id)
    }
