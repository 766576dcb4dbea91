"""What can become of an order once it is a row: compare-and-set statements, in a transaction.

    1 unpaid → 2 paid          by its user
    1 unpaid → 4 cancelled     by its user, or by time; the unit goes back with it
    4 cancelled → 6 refunded   a payment that came too late is given back at once

Statuses only move on, so what a statement did not find is told by a look at the row after it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from flashsale.model import PayStatus
from flashsale.storage.mysql import unix_ms
from flashsale.storage.tables import order_return, seckill_voucher, voucher_order

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
    """A cancelled order whose unit the ledger may not have back yet."""

    order_id: int
    user_id: int
    voucher_id: int


def read(connection: Connection, order_id: int, user_id: int) -> OrderRow | None:
    """The user's order of that id; None where there is none, or it is another's."""
    row = connection.execute(
        select(_order.user_id, _order.voucher_id, _order.status, _order.create_time).where(
            _order.id == order_id, _order.user_id == user_id
        )
    ).first()
    if row is None:
        return None
    return OrderRow(order_id, row.user_id, row.voucher_id, row.status, unix_ms(row.create_time))


def pay(connection: Connection, order_id: int, user_id: int) -> OrderRow | None:
    """The order after a payment: paid, or refunded where it had been cancelled before."""
    now = func.now(3)
    if not _move(
        connection, order_id, user_id, PayStatus.UNPAID, PayStatus.PAID, {"pay_time": now}
    ):
        given_back = {"pay_time": now, "refund_time": now}
        _move(connection, order_id, user_id, PayStatus.CANCELLED, PayStatus.REFUNDED, given_back)
    return read(connection, order_id, user_id)


def cancel(connection: Connection, order_id: int, user_id: int) -> OrderRow | None:
    """The order after a cancellation: cancelled by this or before, or in the way of it."""
    moved = _move(connection, order_id, user_id, PayStatus.UNPAID, PayStatus.CANCELLED, {})
    row = read(connection, order_id, user_id)
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


def owed(connection: Connection, rows_max: int) -> list[Return]:
    """Returns that the ledger has not confirmed, the oldest orders first."""
    owing = order_return.c
    query = select(owing.order_id, owing.user_id, owing.voucher_id)
    rows = connection.execute(query.order_by(owing.order_id).limit(rows_max))
    return [Return(row.order_id, row.user_id, row.voucher_id) for row in rows]


def settle(connection: Connection, order_ids: Sequence[int]) -> None:
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
