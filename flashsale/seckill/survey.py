"""In what a ledger differs from what it ought to be, by MySQL and by what survives in it.

What a sale's keys ought to say follows from three things: the rows in MySQL, the receipts that are
left, and the entries that no worker has written yet.

    units     MySQL's: initial − live rows
    held      users with a live row, and users with a receipt or an entry of an order that is no row
    receipt   user → order, of exactly those; the set holds the same users
    stock     initial (MySQL's) − held
    queue     an order that is held, is no row, was not set aside and has no entry is written again

`survey` finds what differs, and writes nothing; `rebuild.py` makes it go.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redis import Redis
from sqlalchemy import Engine, func, select

from flashsale.errors import Unavailable
from flashsale.model import parse_id
from flashsale.seckill.permit import (
    BooksComparison,
    LedgerMarks,
    Marks,
    Reason,
    behind,
    read_server,
)
from flashsale.seckill.queue import (
    Accepted,
    GroupPosition,
    QueuedOrders,
    portions,
    raw_receipts,
    read_group,
    read_queue,
    receipts_in,
)
from flashsale.seckill.sale import (
    STATES,
    SaleTerms,
    kinds_of,
    kinds_shared,
    mistyped,
    read_terms,
    whole,
)
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import call, call_all
from flashsale.storage.tables import voucher, voucher_order
from flashsale.store_urls import lane_of

_AT_ONCE = 1_000
_SPENT = 2**64 - 1


@dataclass
class SaleRepair:
    """In what one sale differs from what it ought to be."""

    terms: SaleTerms
    held: Mapping[int, int]  # as it ought to be: user → order
    units: int | None = None  # left in MySQL, to be set: its live rows say so
    stock: int | None = None  # to be set
    found_stock: int | None = None
    fields: dict[str, str] = field(default_factory=dict)  # of the sale, to be set
    receipts: dict[str, int] = field(default_factory=dict)  # to be written
    stale: list[str] = field(default_factory=list)  # users whose receipt names no order that holds
    members: list[str] = field(default_factory=list)  # to be added to the set
    strangers: list[str] = field(default_factory=list)  # to be taken out of it
    requeued: list[Accepted] = field(default_factory=list)
    unlisted: bool = False  # not among the loaded sales
    doubled: int = 0  # live rows of users who have another one, as only a lost unique key lets be

    @property
    def is_needed(self) -> bool:
        """Whether anything differs."""
        return bool(
            self.units is not None
            or self.stock is not None
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
        return max(0, len(self.held) + self.doubled - self.terms.initial)


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
    broken: Sequence[SaleRepair] = ()
    """Sales with more orders than units, or users with several: no repair makes that go."""
    strangers: Sequence[int] = ()  # sales in the ledger that MySQL does not know
    lost: Sequence[SaleTerms] = ()  # those of them whose voucher or orders it does know
    mistyped: Mapping[str, str] = field(default_factory=dict)
    """Keys of another type than they have to be. Where there are any, nothing else is surveyed."""

    @property
    def differs(self) -> bool:
        """Whether anything of a sale differs."""
        return bool(self.repairs or self.mistyped or self.lost)

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be done."""
        return bool(
            self.reasons
            or self.differs
            or not self.has_group
            or self.is_spent
            or self.ledger.closed
        )


def survey(books: BooksComparison) -> Survey:
    """Read both stores, the ledger's receipts first: an order moves on from there, and what is
    found too late is found in its next place. Raises Indeterminate, or Unavailable, also where the
    ledger was started anew in between."""
    ledger, lane = books.ledger, books.lane
    run_id, days = read_server(ledger)
    sales = [terms for terms in read_terms(books.pool) if lane.sells(terms.voucher_id)]
    kinds = {**kinds_shared(lane), **kinds_of((terms.voucher_id for terms in sales), lane)}
    kinds |= {lane.order_counter(day): "number" for day in days}
    if odd := mistyped(ledger, kinds):
        return replace(_surveyed(books, run_id, read_group(ledger), (), {}), mistyped=odd)
    listed = call(lambda: ledger.smembers(lane.loaded_sales))
    raw = {terms.voucher_id: raw_receipts(ledger, terms.voucher_id) for terms in sales}
    group, queue = read_group(ledger), read_queue(ledger)
    dead = {int(order) for order in call(ledger.hkeys, lane.dead_orders) if str(order).isdigit()}
    repairs: list[SaleRepair] = []
    broken: list[SaleRepair] = []
    kept: dict[int, Accepted] = {}
    for terms in sales:
        receipts = raw[terms.voucher_id]
        held, waiting, doubled = _held(books.pool, terms, receipts_in(receipts), queue)
        kept |= {order.order_id: order for order in waiting}
        lost = [o for o in waiting if o.order_id not in queue.orders and o.order_id not in dead]
        repair = _repair(ledger, terms, held, receipts, lost)
        repair.doubled = doubled
        if repair.is_needed:
            repairs.append(repair)
        if repair.oversold or repair.doubled:
            broken.append(repair)
    found = _surveyed(books, run_id, group, repairs, kept)
    known = {terms.voucher_id for terms in sales}
    loaded = {voucher_id for name in listed if (voucher_id := parse_id(str(name)))}
    strangers = sorted(loaded - known)
    gone = [found_terms for one in strangers if (found_terms := _lost_terms(books, one))]
    return replace(found, strangers=strangers, lost=gone, broken=broken)


def _lost_terms(books: BooksComparison, voucher_id: int) -> SaleTerms | None:
    """The terms of a sale that MySQL has lost, by the ledger; None where it tells none, or where
    MySQL has neither its voucher nor an order of it: then it is another database's."""
    names = ("begin", "end", "initial")
    sale: Any = call(lambda: books.ledger.hgetall(books.lane.seckill_sale(voucher_id)))
    begin_ms, end_ms, initial = (whole(sale.get(name)) for name in names)
    with transaction(books.pool) as connection:
        of_sale = voucher_order.c.voucher_id == voucher_id
        counts = select(func.count(), func.count(voucher_order.c.live)).where(of_sale)
        orders, live = connection.execute(counts).one()
        is_known = (
            orders
            or connection.execute(select(voucher.c.id).where(voucher.c.id == voucher_id)).first()
        )
    if begin_ms is None or end_ms is None or initial is None or not is_known:
        return None
    return SaleTerms(voucher_id, max(0, initial - live), initial, begin_ms, end_ms, live)


def _surveyed(
    books: BooksComparison,
    run_id: str,
    group: GroupPosition,
    repairs: Sequence[SaleRepair],
    kept: Mapping[int, Accepted],
) -> Survey:
    mysql, marks = books.compare()
    if marks.run_id != run_id:
        raise Unavailable("the ledger was started anew while it was surveyed")
    return Survey(
        mysql,
        marks,
        behind(mysql, marks),
        repairs,
        group.exists or marks.last == (0, 0) == mysql.position,
        marks.last == (_SPENT, _SPENT),
        kept,
    )


def _held(
    pool: Engine, terms: SaleTerms, receipts: Mapping[int, int], queue: QueuedOrders
) -> tuple[dict[int, int], list[Accepted], int]:
    """Who holds a unit by which order, which of those orders are accepted and no rows, and how many
    live rows there are of users who have another one. Of several the one of the receipt counts."""
    live, rows = _rows(pool, terms.voucher_id)
    held, waiting = dict[int, int](), dict[Accepted, None]()
    for user, ids in live.items():
        told = receipts.get(user)
        held[user] = told if told is not None and told in ids else min(ids)
    doubled = sum(map(len, live.values())) - len(live)
    of_sale = [order for order in queue.orders.values() if order.voucher_id == terms.voucher_id]
    known = [Accepted(order, user, terms.voucher_id) for user, order in receipts.items()]
    without = [order for order in (*known, *of_sale) if order.order_id not in rows]
    elsewhere = _rows_among(pool, [order.order_id for order in without])
    for order in without:
        if order.order_id in elsewhere:  # somebody made it a row of another sale
            continue
        if held.setdefault(order.user_id, order.order_id) == order.order_id:
            waiting[order] = None
    return held, list(waiting), doubled


def _rows(pool: Engine, voucher_id: int) -> tuple[dict[int, list[int]], set[int]]:
    """The live orders of a sale by user, and the ids of all its orders."""
    column = voucher_order.c
    query = select(column.id, column.user_id, column.live).where(column.voucher_id == voucher_id)
    with transaction(pool) as connection:
        rows = connection.execute(query).all()
    live: dict[int, list[int]] = {}
    for row in rows:
        if row.live:
            live.setdefault(row.user_id, []).append(row.id)
    return live, {row.id for row in rows}


def _rows_among(pool: Engine, orders: Sequence[int]) -> set[int]:
    """Those of the orders that are rows, of whatever sale."""
    found: set[int] = set()
    for some in portions(orders, _AT_ONCE):
        with transaction(pool) as connection:
            query = select(voucher_order.c.id).where(voucher_order.c.id.in_(some))
            found.update(connection.execute(query).scalars())
    return found


def _repair(
    ledger: Redis,
    terms: SaleTerms,
    held: Mapping[int, int],
    receipts: Mapping[str, str],
    lost: Sequence[Accepted],
) -> SaleRepair:
    voucher_id, lane = terms.voucher_id, lane_of(ledger)
    repair = SaleRepair(terms, held, requeued=list(lost))
    units = max(0, terms.initial - terms.live_orders)
    repair.units = units if units != terms.stock else None
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
        "state": state if (state := sale.get("state")) in STATES else terms.state,
    }
    repair.fields = {name: value for name, value in wanted.items() if sale.get(name) != value}
    told = sale.get("change")
    change = whole(told)
    is_unknown = change is None and (told is not None or terms.change > 0)
    if "initial" in repair.fields or is_unknown or (change or 0) > terms.change:
        # MySQL's units have the changes up to this one in them: none of these is made again, and
        # a later one that MySQL does not know of (it came back older) is in nobody's way.
        repair.fields |= {"change": str(terms.change), "refused": "0"}
    repair.found_stock = whole(stock)
    moved = repair.receipts or repair.stale or repair.members or repair.strangers
    if moved or repair.found_stock is None or repair.found_stock + members != terms.initial:
        wanted_stock = terms.initial - len(repair.held)
        if wanted_stock != repair.found_stock or moved:
            repair.stock = wanted_stock
