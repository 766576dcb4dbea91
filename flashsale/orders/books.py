"""The books of a sale: what the ledger holds, what MySQL has sold, and what follows from both.

What the ledger's sales hold and MySQL has not sold is on its way: in the stream, owed to the ledger
by a cancellation, or set aside. What is none of these is *missing*: accepted orders whose entries
went unread. What MySQL has sold and the ledger does not hold is *forgotten*. A sale whose units and
live rows in MySQL do not add up is *uneven*.

Ledger and MySQL are not read at one instant. The ledger comes first, so that an order which becomes
a row in between is missing from neither. Where something is missing or forgotten all the same,
MySQL is read before the ledger as well, and only what both readings say is told: a sale or a
cancellation in between shows in one of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from redis import Redis
from sqlalchemy import Connection, func, select

from flashsale.keys import WHOLE, Lane
from flashsale.seckill.permit import BooksComparison, Reason
from flashsale.seckill.queue import read_group
from flashsale.seckill.sale import kinds_of, kinds_shared, mistyped, whole
from flashsale.storage.mysql import transaction, unix_ms
from flashsale.storage.roles import Rejected, call, call_each
from flashsale.storage.tables import order_return, seckill_voucher
from flashsale.store_urls import lane_of

SALES_MAX = 1_000
"""Sales that are looked at: a look is made every second."""

_SALES_AT_ONCE = 100
_NAMED_MAX = 5
_ODD = -1  # of a set or hash that is of another type: it agrees with nothing


class SaleCounts(NamedTuple):
    """One sale at one moment; what is None is not there, or no number."""

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


def _named(sales: Sequence[int]) -> str:
    some = ", ".join(map(str, sales[:_NAMED_MAX]))
    return f"{some} and {len(sales) - _NAMED_MAX:,} more" if len(sales) > _NAMED_MAX else some


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
    uneven_sales: Sequence[int] = ()
    mistyped: Mapping[str, str] = field(default_factory=dict)
    """Keys of another type than they have to be, by name."""

    @property
    def is_wrong(self) -> bool:
        """True where orders are in one store and not in the other."""
        return bool(self.missing or self.forgotten)


def wrong_of(look: Look) -> Iterator[str]:
    """What is wrong with the sales, for a reader. Pure."""
    for name, told in look.mistyped.items():
        yield f"{name} {told}"
    for sales, told in (
        (look.lost_sales, "without stock or terms in the ledger"),
        (look.torn_sales, "whose keys in the ledger disagree"),
        (look.uneven_sales, "whose units and rows in MySQL do not add up"),
    ):
        if sales:
            yield f"sales {told}: {_named(sales)}"
    if look.missing:
        yield f"{look.missing:,} accepted orders are neither rows nor on their way"
    if look.forgotten:
        yield f"{look.forgotten:,} orders in MySQL are not held in the ledger"


def judged(
    ledger: Mapping[int, SaleCounts], sold: Mapping[int, Sold], on_their_way: int | None
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


def reconcile(books: BooksComparison) -> Look:
    """Sales, backlog, rows, and the types of keys. Nothing is written. Raises Unavailable or
    Indeterminate."""
    found = _reconciled(books)
    if not found.is_wrong:
        return found
    with transaction(books.pool) as connection:
        before = read_sold(connection, books.lane)
    return _reconciled(books, before)


def _reconciled(books: BooksComparison, before: Mapping[int, Sold] | None = None) -> Look:
    """The books by what MySQL says after the ledger; of what is missing or forgotten, as much as
    there is by what it said `before`, too."""
    ledger, lane = books.ledger, books.lane
    sales = read_sales(ledger)
    group = read_group(ledger)
    dead = len_of(ledger.hlen, lane.dead_orders) or 0
    odd = mistyped(ledger, {**kinds_shared(lane), **kinds_of(sales, lane)})
    with transaction(books.pool) as connection:
        sold = read_sold(connection, lane)
    on_their_way = None if group.outstanding is None else group.outstanding + dead
    found = replace(judged(sales, sold, on_their_way), mistyped=odd)
    if before is None:
        return found
    other = judged(sales, before, on_their_way)
    missing = None if found.missing is None else min(found.missing, other.missing or 0)
    return replace(found, missing=missing, forgotten=min(found.forgotten, other.forgotten))


def len_of(command: Callable[[str], Any], name: str) -> int | None:
    """How long a key is by this command; None where it is of another type."""
    try:
        return int(call(command, name))
    except Rejected:
        return None


def read_sales(ledger: Redis) -> dict[int, SaleCounts]:
    """The ledger's sales, each read in one transaction: a claim comes before it or after it."""
    vouchers, lane = _listed(ledger), lane_of(ledger)
    found: dict[int, SaleCounts] = {}
    for start in range(0, len(vouchers), _SALES_AT_ONCE):
        some = vouchers[start : start + _SALES_AT_ONCE]
        pipeline = ledger.pipeline(transaction=True)
        for voucher in some:
            pipeline.hget(lane.seckill_sale(voucher), "initial")
            pipeline.get(lane.seckill_stock(voucher))
            pipeline.scard(lane.seckill_order(voucher))
            pipeline.hlen(lane.seckill_receipt(voucher))
        replies = [None if isinstance(r, Rejected) else r for r in call_each(pipeline)]
        for k, voucher in enumerate(some):
            offered, left, members, receipts = replies[4 * k : 4 * k + 4]
            counts = (_ODD if count is None else count for count in (members, receipts))
            found[voucher] = SaleCounts(whole(offered), whole(left), *counts)
    return found


def _listed(ledger: Redis) -> list[int]:
    """The loaded sales, up to `SALES_MAX`; none where their list is of another type."""
    listed = ledger.sscan_iter(lane_of(ledger).loaded_sales, count=_SALES_AT_ONCE)
    try:
        names = call(lambda: list(islice(listed, SALES_MAX)))
    except Rejected:
        return []
    return [voucher_id for name in names if (voucher_id := whole(name) or 0) > 0]


def read_uneven(connection: Connection) -> list[int]:
    """The sales whose units do not make up their live rows in MySQL, by one statement."""
    query = (
        "SELECT sale.voucher_id FROM tb_seckill_voucher AS sale LEFT JOIN "
        "(SELECT voucher_id, COUNT(live) AS rows_live FROM tb_voucher_order GROUP BY voucher_id) "
        "AS held ON held.voucher_id = sale.voucher_id "
        "WHERE sale.initial_stock - sale.stock <> COALESCE(held.rows_live, 0) "
        "ORDER BY sale.voucher_id"
    )
    return [int(row[0]) for row in connection.exec_driver_sql(query)]


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
