"""The books, watched: every worker compares ledger and MySQL all the time, and acts on it.

1. A ledger that is behind loses its permit (seckill/permit.py), and one that is not gets one.
2. Missing orders (books.py) are written to the stream again, from their receipts, once the time of
   their claims is over and everything older has been written.
3. Missing or forgotten orders that stay so for `LOOKS` looks close the sales; books that agree
   again for as long open them. After the first such look the others follow at once.
4. Now and then, as it costs, MySQL's own books are counted.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog
from redis import Redis
from sqlalchemy import select

from flashsale.errors import Indeterminate, Unavailable
from flashsale.orders.books import Look, read_sold, read_uneven, reconcile, wrong_of
from flashsale.orders.lifecycle import CLOCK_SLACK_MS
from flashsale.seckill.permit import Behind, BooksComparison, behind
from flashsale.seckill.queue import Accepted, id_ms, read_queue, read_receipts, requeue
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import call
from flashsale.storage.tables import voucher_order
from flashsale.store_urls import lane_of

log = structlog.get_logger(__name__)

LOOKS = 3
AGAIN_S = 0.2
"""How soon a look follows one at which something was missing or forgotten; `LOOKS` times."""
TOLD_S = 15.0
"""How long it is told that something was: whoever asks every few seconds must not miss it."""

_ORDERS_AT_ONCE = 1_000
_CLOSED_BY_US = "books: "
_COUNT_EVERY_S, _COUNT_SHARE = 5.0, 0.01
"""How often MySQL's rows are counted at most, and the share of time that it may take."""


@dataclass
class Watched:
    """What a watch did and saw, all looks together."""

    looks: int = 0
    requeued: int = 0
    closings: int = 0
    failures: int = 0
    last: Look | None = field(default=None, repr=False)  # None while a store does not answer
    wrong: Look | None = field(default=None, repr=False)
    """The last look at which something was missing or forgotten, as at the one before it."""
    wrong_s: float = 0.0


class BooksWatch:
    """Looks after the books; several at once do no harm. `run_once()` is one look and its acts."""

    def __init__(
        self,
        books: BooksComparison,
        *,
        interval_s: float,
        claim_timeout_ms: int,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._books = books
        self._interval_s = interval_s
        self._now_s = now_s
        self._count_due_s = 0.0
        self._uneven: Sequence[int] = ()
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
            is_new = 0 < self._wrong < LOOKS
            self.doubt.wait(min(AGAIN_S, self._interval_s) if is_new else self._interval_s)
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
        self._wrong = self._wrong + 1 if found.is_wrong else 0
        if self._wrong > 1:
            self.total.wrong, self.total.wrong_s = found, self._now_s()
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
        self._count()
        return replace(
            reconcile(self._books),
            reasons=tuple(behind(mysql, ledger)),
            closed=ledger.closed,
            permitted=permitted,
            uneven_sales=self._uneven,
        )

    def told_wrong(self) -> Look:
        """What was missing or forgotten of late, as far as two looks said so; nothing otherwise."""
        total = self.total
        is_of_late = total.wrong is not None and self._now_s() - total.wrong_s < TOLD_S
        return total.wrong if is_of_late and total.wrong is not None else Look()

    def _count(self) -> None:
        began_s = self._now_s()
        if began_s < self._count_due_s:
            return
        with transaction(self._books.pool) as connection:
            self._uneven = tuple(read_uneven(connection))
        took_s = self._now_s() - began_s
        self._count_due_s = began_s + max(_COUNT_EVERY_S, took_s / _COUNT_SHARE)

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
        orders = Look(missing=found.missing, forgotten=found.forgotten)
        self._books.revoke(f"{_CLOSED_BY_US}{'; '.join(wrong_of(orders))}")
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
