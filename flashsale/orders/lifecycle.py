"""What can become of an order once it is a row: paid, cancelled, refunded, its unit returned.

    1 unpaid → 2 paid          by its user
    1 unpaid → 4 cancelled     by its user, or by time; the unit goes back with it
    4 cancelled → 6 refunded   a payment that came too late is given back at once

Statuses only move on, so what a statement did not find is told by a look at the row after it.

A cancellation commits in MySQL first, with its unit of stock, and only then returns the unit to
the ledger; where that second step is lost, the sweeper (sweeper.py) repeats it.

It waits until the claim's deadline has passed. Before, a replay of the claim could still be under
way, and would find its receipt gone and the unit free: it would sell the cancelled order again.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

import structlog
from sqlalchemy import Connection, and_, delete, func, insert, select, update

from flashsale.errors import Indeterminate, Unavailable
from flashsale.failpoints import reach
from flashsale.keys import SINGLE, Layout
from flashsale.lua.scripts import Call, script
from flashsale.model import OrderStatus, PayStatus
from flashsale.orders.lookup import OrderLookup
from flashsale.seckill.ids import LedgerClock
from flashsale.storage.lanes import LedgerChannel
from flashsale.storage.mysql import Database, unix_ms
from flashsale.storage.tables import order_return, seckill_voucher, voucher_order

log = structlog.get_logger(__name__)

CLOCK_SLACK_MS = 250
"""How far two replicas' ideas of the ledger's clock may be apart."""

_RETURN = script("order_return")
_order = voucher_order.c


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order as MySQL has it."""

    order_id: int
    user_id: int
    voucher_id: int
    status: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class Return:
    """An order that has ended and whose unit the ledger may not have back yet.

    `other_id` is another order of the same user and voucher that is live by its row.
    """

    order_id: int
    user_id: int
    voucher_id: int
    other_id: int | None = None


class OrderChange(Enum):
    """What became of a request to change an order."""

    DONE = auto()  # by this request, or by an earlier one like it
    REFUNDED = auto()  # the order had been cancelled: the payment is given back
    TOO_LATE = auto()  # the order has moved on to where this is not possible
    QUEUED = auto()  # not a row yet: ask again
    FAILED = auto()  # it will never be a row
    UNKNOWN = auto()  # no order of this user


_PAID = {
    PayStatus.UNPAID: OrderChange.QUEUED,  # became a row between the payment and the look at it
    PayStatus.PAID: OrderChange.DONE,
    PayStatus.USED: OrderChange.DONE,
    PayStatus.REFUNDED: OrderChange.REFUNDED,
}
_CANCELLED = {PayStatus.CANCELLED: OrderChange.DONE, PayStatus.REFUNDED: OrderChange.DONE}
_NO_ROW = {OrderStatus.QUEUED: OrderChange.QUEUED, OrderStatus.FAILED: OrderChange.FAILED}


class Lifecycle:
    """Moves orders on for their users. Calls may raise Unavailable or Indeterminate: ask again,
    since every change can be asked for twice."""

    def __init__(
        self,
        database: Database,
        ledger: LedgerChannel,
        lookup: OrderLookup,
        clock: LedgerClock,
        claim_timeout_ms: int,
        *,
        confirms: bool = False,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._lookup = lookup
        self._clock = clock
        self._settled_after_ms = claim_timeout_ms + CLOCK_SLACK_MS
        self._confirms = confirms

    def __repr__(self) -> str:
        return f"<Lifecycle settled_after={self._settled_after_ms} ms>"

    async def pay(self, order_id: int, user_id: int) -> OrderChange:
        """Pay for an order; money for one that was cancelled goes back."""
        row = await self._database.run(lambda c: _mark_paid(c, order_id, user_id))
        if row is None:
            return await self._without_row(order_id, user_id)
        return _PAID.get(row.status, OrderChange.TOO_LATE)

    async def cancel(self, order_id: int, user_id: int) -> OrderChange:
        """Cancel an unpaid order, once its claim is settled: within about two seconds."""
        row = await self._database.run(lambda c: read_row(c, order_id, user_id))
        if row is None:
            return await self._without_row(order_id, user_id)
        if row.status == PayStatus.UNPAID:
            await self._until_settled(row)
            row = await self._database.run(lambda c: _mark_cancelled(c, order_id, user_id))
        change = (
            OrderChange.TOO_LATE
            if row is None
            else _CANCELLED.get(row.status, OrderChange.TOO_LATE)
        )
        if change is OrderChange.DONE:
            reach("cancel.committed")
            await self._return(order_id)
        return change

    async def _without_row(self, order_id: int, user_id: int) -> OrderChange:
        found = await self._lookup.by_id(order_id, user_id)
        if found is None:
            return OrderChange.UNKNOWN
        return _NO_ROW.get(found.status, OrderChange.QUEUED)  # CONFIRMED: a row by now

    async def _until_settled(self, row: OrderRow) -> None:
        left_ms = row.created_ms + self._settled_after_ms - self._clock.now_ms()
        if left_ms > 0:  # and no longer than that where the ledger's clock was set back
            await asyncio.sleep(min(left_ms, self._settled_after_ms) / 1000)

    async def _return(self, order_id: int) -> None:
        """Return the unit now; where that fails the sweeper does it, and the user need not know.
        Where replicas have to have it, the sweeper asks them, and forgets it then."""
        try:
            for owed in await self._database.run(lambda c: owed_returns(c, 1, order_id)):
                await self._ledger.evaluate(return_call(owed, self._ledger.layout))
                reach("cancel.returned")
                if not self._confirms:
                    await self._database.run(lambda c: forget_returns(c, [order_id]))
        except (Unavailable, Indeterminate) as trouble:
            log.warning("a unit is left to the sweeper", trouble=str(trouble))


def read_row(connection: Connection, order_id: int, user_id: int) -> OrderRow | None:
    """The user's order of that id; None where there is none, or it is another's."""
    row = connection.execute(
        select(_order.user_id, _order.voucher_id, _order.status, _order.create_time).where(
            _order.id == order_id, _order.user_id == user_id
        )
    ).first()
    if row is None:
        return None
    return OrderRow(order_id, row.user_id, row.voucher_id, row.status, unix_ms(row.create_time))


def _mark_paid(connection: Connection, order_id: int, user_id: int) -> OrderRow | None:
    """The order after a payment: paid, or refunded where it had been cancelled before."""
    now = func.now(3)
    if not _move(
        connection, order_id, user_id, PayStatus.UNPAID, PayStatus.PAID, {"pay_time": now}
    ):
        given_back = {"pay_time": now, "refund_time": now}
        _move(connection, order_id, user_id, PayStatus.CANCELLED, PayStatus.REFUNDED, given_back)
    return read_row(connection, order_id, user_id)


def _mark_cancelled(connection: Connection, order_id: int, user_id: int) -> OrderRow | None:
    """The order after a cancellation: cancelled by this or before, or in the way of it."""
    moved = _move(connection, order_id, user_id, PayStatus.UNPAID, PayStatus.CANCELLED, {})
    row = read_row(connection, order_id, user_id)
    if moved and row is not None:
        _give_back(connection, [Return(order_id, user_id, row.voucher_id)])
    return row


def time_out(
    connection: Connection, created_before: datetime, ids: range, rows_max: int
) -> list[Return]:
    """Cancel up to `rows_max` unpaid orders with an id in `ids`, the lowest ids first.

    Orders that somebody else is at work on are left out.
    """
    found = connection.execute(
        select(_order.id, _order.user_id, _order.voucher_id)
        .where(
            _order.id.between(ids.start, ids.stop - 1),
            _order.status == PayStatus.UNPAID,
            _order.create_time < created_before.replace(tzinfo=None),
        )
        .order_by(_order.id)
        .limit(rows_max)
        .with_for_update(skip_locked=True)
    ).all()
    returns = [Return(row.id, row.user_id, row.voucher_id) for row in found]
    if returns:
        connection.execute(
            update(voucher_order)
            .where(_order.id.in_([one.order_id for one in returns]))
            .values(status=PayStatus.CANCELLED)
        )
        _give_back(connection, returns)
    return returns


def owed_returns(
    connection: Connection, rows_max: int, order_id: int | None = None
) -> list[Return]:
    """Returns that the ledger has not confirmed, the oldest orders first; of one order, or all."""
    owing = order_return.c
    other = and_(
        _order.user_id == owing.user_id,
        _order.voucher_id == owing.voucher_id,
        _order.live.is_not(None),
    )
    query = (
        select(owing.order_id, owing.user_id, owing.voucher_id, _order.id.label("other_id"))
        .select_from(order_return.outerjoin(voucher_order, other))
        .order_by(owing.order_id)
        .limit(rows_max)
    )
    if order_id is not None:
        query = query.where(owing.order_id == order_id)
    return [Return(*row) for row in connection.execute(query)]


def forget_returns(connection: Connection, order_ids: Sequence[int]) -> None:
    """Forget returns that the ledger has confirmed."""
    connection.execute(delete(order_return).where(order_return.c.order_id.in_(order_ids)))


def _move(
    connection: Connection,
    order_id: int,
    user_id: int,
    old: int,
    new: int,
    stamps: Mapping[str, object],
) -> bool:
    result = connection.execute(
        update(voucher_order)
        .where(_order.id == order_id, _order.user_id == user_id, _order.status == old)
        .values(status=new, **stamps)
    )
    return result.rowcount == 1


def _give_back(connection: Connection, returns: Sequence[Return]) -> None:
    """The units to MySQL's stock, and a note that the ledger is owed them."""
    units = Counter(one.voucher_id for one in returns)
    for voucher_id in sorted(units):  # one order of locking, as the workers'
        connection.execute(
            update(seckill_voucher)
            .where(seckill_voucher.c.voucher_id == voucher_id)
            .values(stock=seckill_voucher.c.stock + units[voucher_id])
        )
    connection.execute(
        insert(order_return),
        [
            {"order_id": one.order_id, "user_id": one.user_id, "voucher_id": one.voucher_id}
            for one in returns
        ],
    )


def return_call(returned: Return, layout: Layout = SINGLE) -> Call:
    """The call that gives the unit of an ended order back, and its user the place. Pure."""
    lane, voucher_id = layout.of(returned.voucher_id), returned.voucher_id
    return Call(
        _RETURN,
        (
            lane.seckill_receipt(voucher_id),
            lane.seckill_order(voucher_id),
            lane.seckill_stock(voucher_id),
        ),
        (returned.user_id, returned.order_id, returned.other_id or ""),
    )
