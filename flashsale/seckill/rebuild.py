"""Rebuilding a ledger that is behind or has lost keys: from MySQL, and from what survives in it.

`Rebuild.apply` closes all sales, makes the differences go that a survey finds (survey.py), looks
again until there are none (a cancellation may have come in between), draws a new epoch and lets a
comparison write the permit. Cut short at any step the sales stay closed, and the next run goes on:
what is right already is no difference. A ledger that is started anew or emptied meanwhile is
surveyed from the beginning: the epoch is written only where it still is what was surveyed.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

import structlog
from redis import Redis
from sqlalchemy import Engine, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from flashsale import keys
from flashsale.errors import UsageError, ViolationError
from flashsale.failpoints import reach
from flashsale.seckill.permit import (
    Behind,
    BooksComparison,
    draw_epoch,
    epoch_text,
    last_entry,
    set_epoch,
)
from flashsale.seckill.queue import portions, requeue
from flashsale.seckill.sale import SaleTerms
from flashsale.seckill.survey import SaleRepair, Survey, survey
from flashsale.storage.mysql import Duplicate, transaction, translated
from flashsale.storage.roles import Rejected, call, call_all
from flashsale.storage.tables import seckill_voucher, voucher_order
from flashsale.store_urls import lane_of

log = structlog.get_logger(__name__)

CLOSED_FOR_REBUILD = (
    "rebuild: `flashsale rebuild --apply` is at work, or was cut short: run it again"
)
_AT_ONCE = 1_000
_ROUNDS_MAX = 10
_COUNTER_MARGIN = 65_536
"""Numbers beyond MySQL's highest that a rebuilt counter begins at: ids that were handed out and are
no rows are not handed out again, whatever second it is."""
_WORKERS_END_S = 60
"""As long as a statement of theirs may take: what they were writing counts as written."""


@dataclass
class Rebuilt:
    """What was done, all rounds together."""

    rounds: int = 0
    requeued: int = 0
    permit: str = ""


class Rebuild:
    """Makes the ledger, or a lane of it, what it ought to be. Every call may raise Unavailable or
    Indeterminate: the sales stay closed then, and another run goes on from there."""

    def __init__(self, books: BooksComparison) -> None:
        self._books = books
        self._ledger = books.ledger

    def __repr__(self) -> str:
        return f"<Rebuild {self._books!r}>"

    def apply(self) -> Rebuilt:
        """Close all sales, repair, open them again. Raises ViolationError where the ledger does
        not come to rest."""
        done = Rebuilt()
        with alone(self._books.pool):
            while True:
                self._books.revoke(CLOSED_FOR_REBUILD)
                self._books.supersede(_WORKERS_END_S, forced=True)
                reach("rebuild.closed")
                if self._renew(self._repaired(done)):
                    break
                log.error("the ledger is another one than was rebuilt: from the beginning")
            done.permit = self._opened()
        return done

    def _repaired(self, done: Rebuilt) -> Survey:
        """Repair until nothing differs, once at least; the survey that says so."""
        is_first = True
        while (found := survey(self._books)).differs or is_first:
            if done.rounds == _ROUNDS_MAX:
                raise ViolationError(
                    f"the ledger still differs after {_ROUNDS_MAX} rounds, so something else "
                    "writes to it; end that, then run `flashsale rebuild --apply` again"
                )
            reach("rebuild.surveyed")
            if found.mistyped:
                call(self._ledger.delete, *found.mistyped)
            for terms in found.lost:
                self._give_back(terms)
            self._restore_stream(found)
            reach("rebuild.stream")
            for repair in found.repairs:
                done.requeued += self._restore(repair)
            done.rounds += 1
            is_first = False
        return found

    def _restore_stream(self, found: Survey) -> None:
        """The stream with its group, and an end that is no earlier than MySQL's position."""
        if found.is_spent:  # every order in it has a receipt, which is written to the new one
            call(self._ledger.delete, self._books.lane.stream_orders)
        if found.is_spent or not found.has_group:
            call(
                lambda: self._ledger.xgroup_create(
                    self._books.lane.stream_orders, keys.GROUP, id="0", mkstream=True
                )
            )
        ms, seq = found.mysql.position
        if not found.is_spent and last_entry(self._ledger) < (ms, seq):
            if not call(self._ledger.exists, self._books.lane.stream_orders):
                call(
                    lambda: self._ledger.xgroup_create(
                        self._books.lane.stream_orders, keys.GROUP, id="0", mkstream=True
                    )
                )
            stream = self._books.lane.stream_orders
            call(self._ledger.execute_command, "XSETID", stream, f"{ms}-{seq}")
        pipeline = self._ledger.pipeline(transaction=True)
        for day, number in found.mysql.counters.items():
            if found.ledger.counters.get(day, 0) < number:
                pipeline.set(self._books.lane.order_counter(day), number + _COUNTER_MARGIN)
        call_all(pipeline)

    def _restore(self, repair: SaleRepair) -> int:
        """One sale; how many of its orders were written to the stream again."""
        ledger, lane, voucher_id = self._ledger, self._books.lane, repair.terms.voucher_id
        if repair.units is not None:
            self._count_units(voucher_id)
        receipt, members = lane.seckill_receipt(voucher_id), lane.seckill_order(voucher_id)
        for stale in portions(repair.stale, _AT_ONCE):
            call(ledger.hdel, receipt, *stale)
        for fresh in portions(repair.receipts.items(), _AT_ONCE):
            call(lambda fresh=fresh: ledger.hset(receipt, mapping=dict(fresh)))  # type: ignore[misc]
        for out in portions(repair.strangers, _AT_ONCE):
            call(ledger.srem, members, *out)
        for new in portions(repair.members, _AT_ONCE):
            call(ledger.sadd, members, *new)
        reach("rebuild.receipts")
        pipeline = ledger.pipeline(transaction=True)
        if repair.fields:
            pipeline.hset(lane.seckill_sale(voucher_id), mapping=dict[Any, str](repair.fields))
        if repair.stock is not None:
            pipeline.set(lane.seckill_stock(voucher_id), repair.stock)
        pipeline.sadd(lane.loaded_sales, voucher_id)
        call_all(pipeline)
        reach("rebuild.stock")
        window = {voucher_id: (repair.terms.begin_ms, repair.terms.end_ms)}
        written = requeue(ledger, repair.requeued, window)
        reach("rebuild.requeued")
        return written

    def _give_back(self, terms: SaleTerms) -> None:
        """A sale that MySQL has lost."""
        values = {
            "voucher_id": terms.voucher_id,
            "stock": terms.stock,
            "initial_stock": terms.initial,
            "begin_time": datetime.fromtimestamp(terms.begin_ms / 1000, UTC).replace(tzinfo=None),
            "end_time": datetime.fromtimestamp(terms.end_ms / 1000, UTC).replace(tzinfo=None),
        }
        with suppress(Duplicate), transaction(self._books.pool) as connection:
            connection.execute(insert(seckill_voucher).values(values))

    def _count_units(self, voucher_id: int) -> None:
        """What is left of a sale in MySQL, by its rows. Whoever moves a unit changes both in one
        transaction, which has ended before this one, or waits for it."""
        sale, live = seckill_voucher.c, voucher_order.c.live.is_not(None)
        one = sale.voucher_id == voucher_id
        held = select(func.count()).where(voucher_order.c.voucher_id == voucher_id, live)
        with transaction(self._books.pool) as connection:
            locked = select(sale.initial_stock).where(one).with_for_update()
            initial = int(connection.execute(locked).scalar_one())
            left = max(0, initial - int(connection.execute(held).scalar_one()))
            connection.execute(update(seckill_voucher).where(one).values(stock=left))

    def _renew(self, found: Survey) -> bool:
        """A new epoch in both stores, MySQL's first: cut short between the two the ledger is
        behind, and stays closed. False where the ledger is not what was surveyed any more."""
        epoch, last = draw_epoch(), last_entry(self._ledger)
        with transaction(self._books.pool) as connection:
            set_epoch(connection, epoch, lane=self._books.lane)
            if found.mysql.position > last:  # a stream that was made anew counts from now on
                connection.exec_driver_sql(
                    "UPDATE tb_stream_position SET last_ms = %s, last_seq = %s WHERE stream = %s",
                    (*last, self._books.lane.stream_orders),
                )
        reach("rebuild.drawn")
        try:
            is_renewed = call(_renewed, self._ledger, found.ledger.run_id, epoch_text(*epoch))
        except Rejected:  # it was written to meanwhile
            is_renewed = False
        reach("rebuild.renewed")
        return is_renewed

    def _opened(self) -> str:
        try:
            return self._books.confirm()
        except Behind as reason:
            raise ViolationError(
                f"the ledger fell behind again while it was rebuilt: {reason}; run `flashsale "
                "rebuild --apply` again"
            ) from None


def _renewed(ledger: Redis, run_id: str, epoch: str) -> bool:
    """Write the epoch and open the ledger: the server process that was surveyed, and closed as it
    was then, since a flush or an older file would not have that."""
    lane = lane_of(ledger)
    with ledger.pipeline(transaction=True) as pipeline:
        pipeline.watch(lane.closed)  # type: ignore[no-untyped-call]
        about: Any = pipeline.info("server")
        if about["run_id"] != run_id or pipeline.get(lane.closed) != CLOSED_FOR_REBUILD:
            return False
        pipeline.multi()
        pipeline.set(lane.epoch, epoch)
        pipeline.delete(lane.closed)
        pipeline.execute()
        return True


@contextmanager
def alone(pool: Engine) -> Iterator[None]:
    """Be the only rebuild of this database. Raises UsageError where another one is at work."""
    with translated():
        connection = pool.connect()
        connection.detach()  # closing it ends its session, and with that the lock
    with connection:
        with translated():
            database = str(connection.execute(text("SELECT DATABASE()")).scalar_one())
            name = f"flashsale.rebuild.{md5(database.encode(), usedforsecurity=False).hexdigest()}"
            held = connection.execute(text("SELECT GET_LOCK(:name, 0)"), {"name": name}).scalar()
            connection.rollback()
        if held != 1:
            raise UsageError("another `flashsale rebuild` is at work on this database; wait for it")
        try:
            yield
        finally:
            # The next lane's comes at once, and a server notices a session's end in its own time.
            with suppress(SQLAlchemyError):
                connection.execute(text("DO RELEASE_LOCK(:name)"), {"name": name})
