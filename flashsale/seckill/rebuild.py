"""Rebuilding a ledger that is behind or has lost keys: from MySQL, and from what survives in it.

What a sale's keys ought to say follows from three things: the rows in MySQL, the receipts that are
left, and the entries that no worker has written yet.

    held      users with a live row, and users with a receipt or an entry of an order that is no row
    receipt   user → order, of exactly those; the set holds the same users
    stock     initial (MySQL's) − held
    queue     an order that is held, is no row, was not set aside and has no entry is written again

`survey` says in what the ledger differs from that, and writes nothing. `Rebuild.apply` closes all
sales, makes the differences go, looks again until there are none (a cancellation may have come in
between), draws a new epoch and lets a comparison write the permit. Cut short at any step the sales
stay closed, and the next run goes on: what is right already is no difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

import structlog
from redis import Redis
from sqlalchemy import Engine, select, text

from flashsale import keys
from flashsale.errors import UsageError, ViolationError
from flashsale.failpoints import reach
from flashsale.seckill.permit import (
    Behind,
    Books,
    LedgerMarks,
    Marks,
    Reason,
    behind,
    draw_epoch,
    epoch_text,
    last_entry,
    set_epoch,
)
from flashsale.seckill.queue import (
    Accepted,
    Queue,
    portions,
    raw_receipts,
    read_group,
    read_queue,
    receipts_in,
    requeue,
)
from flashsale.seckill.sale import Terms, read_terms
from flashsale.storage.mysql import transaction, translated
from flashsale.storage.roles import call, call_all
from flashsale.storage.tables import voucher_order
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
_SPENT = 2**64 - 1
_WORKERS_END_S = 60
"""As long as a statement of theirs may take: what they were writing counts as written."""


@dataclass
class SaleRepair:
    """In what one sale differs from what it ought to be."""

    terms: Terms
    held: Mapping[int, int]  # as it ought to be: user → order
    stock: int | None = None  # to be set
    found_stock: int | None = None
    fields: dict[str, str] = field(default_factory=dict)  # of the sale, to be set
    receipts: dict[str, int] = field(default_factory=dict)  # to be written
    stale: list[str] = field(default_factory=list)  # users whose receipt names no order that holds
    members: list[str] = field(default_factory=list)  # to be added to the set
    strangers: list[str] = field(default_factory=list)  # to be taken out of it
    requeued: list[Accepted] = field(default_factory=list)
    unlisted: bool = False  # not among the loaded sales

    @property
    def is_needed(self) -> bool:
        """Whether anything differs."""
        return bool(
            self.stock is not None
            or self.fields
            or self.receipts
            or self.stale
            or self.members
            or self.strangers
            or self.requeued
            or self.unlisted
        )

    @property
    def oversold(self) -> int:
        """Units held beyond those there are: a promise that is broken already."""
        return max(0, len(self.held) - self.terms.initial)


@dataclass
class Survey:
    """In what the ledger differs from what it ought to be, and what was compared."""

    mysql: Marks
    ledger: LedgerMarks
    reasons: Sequence[Reason]
    repairs: Sequence[SaleRepair]
    has_group: bool
    is_spent: bool  # the stream's ids are
    kept: Mapping[int, Accepted]  # orders that are no rows and are held or on their way
    strangers: Sequence[int] = ()  # sales in the ledger that MySQL does not know

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be done."""
        return bool(
            self.reasons
            or self.repairs
            or not self.has_group
            or self.is_spent
            or self.ledger.closed
        )


def survey(books: Books) -> Survey:
    """Read both stores, the ledger's receipts first: an order moves on from there, and what is
    found too late is found in its next place. Raises Unavailable or Indeterminate."""
    ledger, lane = books.ledger, books.lane
    loaded = {int(v) for v in call(ledger.smembers, lane.loaded_sales) if str(v).isdigit()}
    sales = [terms for terms in read_terms(books.pool) if lane.sells(terms.voucher_id)]
    raw = {terms.voucher_id: raw_receipts(ledger, terms.voucher_id) for terms in sales}
    group, queue = read_group(ledger), read_queue(ledger)
    dead = {int(order) for order in call(ledger.hkeys, lane.dead_orders) if str(order).isdigit()}
    repairs: list[SaleRepair] = []
    kept: dict[int, Accepted] = {}
    for terms in sales:
        receipts = raw[terms.voucher_id]
        held, waiting = _held(books.pool, terms, receipts_in(receipts), queue)
        kept |= {order.order_id: order for order in waiting}
        lost = [o for o in waiting if o.order_id not in queue.orders and o.order_id not in dead]
        repair = _repair(ledger, terms, held, receipts, lost)
        if repair.is_needed:
            repairs.append(repair)
    mysql, marks = books.compare()
    reasons = behind(mysql, marks)
    known = {terms.voucher_id for terms in sales}
    return Survey(
        mysql,
        marks,
        reasons,
        repairs,
        group.exists or marks.last == (0, 0) == mysql.position,
        marks.last == (_SPENT, _SPENT),
        kept,
        sorted(loaded - known),
    )


def _held(
    pool: Engine, terms: Terms, receipts: Mapping[int, int], queue: Queue
) -> tuple[dict[int, int], list[Accepted]]:
    """Who holds a unit by which order, and which of those orders are accepted and no rows."""
    live, rows = _rows(pool, terms.voucher_id)
    held, waiting = dict(live), dict[Accepted, None]()
    of_sale = [order for order in queue.orders.values() if order.voucher_id == terms.voucher_id]
    known = [Accepted(order, user, terms.voucher_id) for user, order in receipts.items()]
    for order in (*known, *of_sale):
        if order.order_id in rows:
            continue
        if held.setdefault(order.user_id, order.order_id) == order.order_id:
            waiting[order] = None
    return held, list(waiting)


def _rows(pool: Engine, voucher_id: int) -> tuple[dict[int, int], set[int]]:
    """The live orders of a sale by user, and the ids of all its orders."""
    column = voucher_order.c
    query = select(column.id, column.user_id, column.live).where(column.voucher_id == voucher_id)
    with transaction(pool) as connection:
        rows = connection.execute(query).all()
    return {row.user_id: row.id for row in rows if row.live}, {row.id for row in rows}


def _repair(
    ledger: Redis,
    terms: Terms,
    held: Mapping[int, int],
    receipts: Mapping[str, str],
    lost: Sequence[Accepted],
) -> SaleRepair:
    voucher_id, lane = terms.voucher_id, lane_of(ledger)
    repair = SaleRepair(terms, held, requeued=list(lost))
    users = {str(user): order for user, order in held.items()}
    fresh = {user: order for user, order in users.items() if receipts.get(user) != str(order)}
    repair.receipts = dict(_not_there(ledger, voucher_id, fresh))
    for some in portions((user for user in receipts if user not in users), _AT_ONCE):
        found = call(ledger.hmget, lane.seckill_receipt(voucher_id), list(some))
        repair.stale += [
            user
            for user, order in zip(some, found, strict=True)
            if order == receipts[user]  # it still is: no order of a moment ago
        ]
    set_key = lane.seckill_order(voucher_id)
    members = call(lambda: set(ledger.sscan_iter(set_key, count=_AT_ONCE)))
    for some in portions((user for user in users if user not in members), _AT_ONCE):
        there = call(ledger.smismember, set_key, list(some))
        repair.members += [user for user, is_in in zip(some, there, strict=True) if not is_in]
    stale = set(repair.stale)
    for some in portions((member for member in members if member not in users), _AT_ONCE):
        found = call(ledger.hmget, lane.seckill_receipt(voucher_id), list(some))
        repair.strangers += [
            member
            for member, order in zip(some, found, strict=True)
            if order is None or member in stale  # without an order all this time
        ]
    _compare_terms(ledger, repair)
    return repair


def _not_there(
    ledger: Redis, voucher_id: int, receipts: Mapping[str, int]
) -> Iterator[tuple[str, int]]:
    """Those that the ledger has not even now: a sale that goes on has moved meanwhile."""
    lane = lane_of(ledger)
    for some in portions(receipts.items(), _AT_ONCE):
        users = [user for user, _ in some]
        found = call(ledger.hmget, lane.seckill_receipt(voucher_id), users)
        for (user, order), there in zip(some, found, strict=True):
            if there != str(order):
                yield user, order


def _compare_terms(ledger: Redis, repair: SaleRepair) -> None:
    """The sale's own fields and its stock."""
    terms, lane = repair.terms, lane_of(ledger)
    pipeline = ledger.pipeline(transaction=True)
    pipeline.hgetall(lane.seckill_sale(terms.voucher_id))
    pipeline.get(lane.seckill_stock(terms.voucher_id))
    pipeline.scard(lane.seckill_order(terms.voucher_id))
    pipeline.sismember(lane.loaded_sales, str(terms.voucher_id))
    sale, stock, members, is_listed = call_all(pipeline)
    repair.unlisted = not is_listed
    wanted = {
        "begin": str(terms.begin_ms),
        "end": str(terms.end_ms),
        "initial": str(terms.initial),
        "state": sale.get("state") or terms.state,
    }
    repair.fields = {name: value for name, value in wanted.items() if sale.get(name) != value}
    if "initial" in repair.fields or (terms.change and "change" not in sale):
        # MySQL's units have the changes up to this one in them: none of these is made again.
        repair.fields |= {"change": str(terms.change), "refused": "0"}
    repair.found_stock = int(stock) if stock and stock.lstrip("-").isdigit() else None
    moved = repair.receipts or repair.stale or repair.members or repair.strangers
    if moved or repair.found_stock is None or repair.found_stock + members != terms.initial:
        wanted_stock = terms.initial - len(repair.held)
        if wanted_stock != repair.found_stock or moved:
            repair.stock = wanted_stock


@dataclass
class Rebuilt:
    """What was done, all rounds together."""

    rounds: int = 0
    requeued: int = 0
    permit: str = ""


class Rebuild:
    """Makes the ledger, or a lane of it, what it ought to be. Every call may raise Unavailable or
    Indeterminate: the sales stay closed then, and another run goes on from there."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._ledger = books.ledger

    def __repr__(self) -> str:
        return f"<Rebuild {self._books!r}>"

    def apply(self) -> Rebuilt:
        """Close all sales, repair, open them again. Raises ViolationError where the ledger does
        not come to rest."""
        done = Rebuilt()
        with alone(self._books.pool):
            self._books.revoke(CLOSED_FOR_REBUILD)
            self._books.supersede(_WORKERS_END_S)
            reach("rebuild.closed")
            while (found := survey(self._books)).repairs or not done.rounds:
                if done.rounds == _ROUNDS_MAX:
                    raise ViolationError(
                        f"the ledger still differs after {_ROUNDS_MAX} rounds, so something else "
                        "writes to it; end that, then run `flashsale rebuild --apply` again"
                    )
                reach("rebuild.surveyed")
                self._restore_stream(found)
                reach("rebuild.stream")
                for repair in found.repairs:
                    done.requeued += self._restore(repair)
                done.rounds += 1
            self._renew(found)
            done.permit = self._opened()
        return done

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
            call(
                self._ledger.execute_command,
                "XSETID",
                self._books.lane.stream_orders,
                f"{ms}-{seq}",
            )
        pipeline = self._ledger.pipeline(transaction=True)
        for day, number in found.mysql.counters.items():
            if found.ledger.counters.get(day, 0) < number:
                pipeline.set(self._books.lane.order_counter(day), number + _COUNTER_MARGIN)
        call_all(pipeline)

    def _restore(self, repair: SaleRepair) -> int:
        """One sale; how many of its orders were written to the stream again."""
        ledger, lane, voucher_id = self._ledger, self._books.lane, repair.terms.voucher_id
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

    def _renew(self, found: Survey) -> None:
        """A new epoch in both stores, MySQL's first: cut short between the two the ledger is
        behind, and stays closed."""
        epoch, last = draw_epoch(), last_entry(self._ledger)
        with transaction(self._books.pool) as connection:
            set_epoch(connection, epoch, lane=self._books.lane)
            if found.mysql.position > last:  # a stream that was made anew counts from now on
                connection.exec_driver_sql(
                    "UPDATE tb_stream_position SET last_ms = %s, last_seq = %s WHERE stream = %s",
                    (*last, self._books.lane.stream_orders),
                )
        reach("rebuild.drawn")
        pipeline = self._ledger.pipeline(transaction=True)
        pipeline.set(self._books.lane.epoch, epoch_text(*epoch))
        pipeline.delete(self._books.lane.closed)
        call_all(pipeline)
        reach("rebuild.renewed")

    def _opened(self) -> str:
        try:
            return self._books.confirm()
        except Behind as reason:
            raise ViolationError(
                f"the ledger fell behind again while it was rebuilt: {reason}; run `flashsale "
                "rebuild --apply` again"
            ) from None


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
        yield
