"""Where an order is: a row in MySQL, a receipt in the ledger, set aside, or nowhere."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, select

from flashsale import keys
from flashsale.model import OrderStatus
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import Database
from flashsale.storage.tables import seckill_voucher, voucher_order


@dataclass(frozen=True, slots=True)
class Found:
    """An order on its way: `pay_status` is set once it is a row."""

    status: OrderStatus
    order_id: int
    voucher_id: int
    pay_status: int | None = None
    reason: str | None = None


class OrderLookup:
    """Answers where a user's orders are; never another user's."""

    def __init__(self, database: Database, ledger: Channel) -> None:
        self._database = database
        self._ledger = ledger

    def __repr__(self) -> str:
        return f"<OrderLookup {self._database!r}>"

    async def by_voucher(self, voucher_id: int, user_id: int) -> Found | None:
        """The user's own order of `voucher_id`, the live one first. Raises Unavailable."""
        row = await self._row(
            select(voucher_order)
            .where(voucher_order.c.user_id == user_id, voucher_order.c.voucher_id == voucher_id)
            .order_by(voucher_order.c.live.desc(), voucher_order.c.create_time.desc())
            .limit(1)
        )
        if row is not None and row.live:
            return _confirmed(row)
        held = await self._ledger.ask("HGET", keys.seckill_receipt(voucher_id), user_id)
        if held and (row is None or int(held) != row.id):
            return await self._unconfirmed(int(held), voucher_id)
        return _confirmed(row) if row is not None else None

    async def by_id(self, order_id: int, user_id: int) -> Found | None:
        """The user's order of that id, None where it is not theirs. Raises Unavailable."""
        row = await self._row(select(voucher_order).where(voucher_order.c.id == order_id))
        if row is not None:
            return _confirmed(row) if row.user_id == user_id else None
        sales = [int(sale) for sale in await self._ledger.ask("SMEMBERS", keys.LOADED_SALES)]
        held = await self._ledger.ask_all(
            [("HGET", keys.seckill_receipt(voucher_id), user_id) for voucher_id in sales]
        )
        for voucher_id, receipt in zip(sales, held, strict=True):
            if receipt == str(order_id):
                return await self._unconfirmed(order_id, voucher_id)
        return None

    async def voucher_exists(self, voucher_id: int) -> bool:
        """True where MySQL knows a sale of that voucher. Raises Unavailable."""
        query = select(seckill_voucher).where(seckill_voucher.c.voucher_id == voucher_id)
        return await self._row(query) is not None

    async def ready(self) -> None:
        """Ask both stores for a sign of life. Raises Unavailable or Indeterminate."""
        await self._ledger.ask("PING")
        await self._row(select(1))

    async def _unconfirmed(self, order_id: int, voucher_id: int) -> Found:
        reason = await self._ledger.ask("HGET", keys.DEAD_ORDERS, order_id)
        status = OrderStatus.FAILED if reason else OrderStatus.QUEUED
        return Found(status, order_id, voucher_id, reason=reason)

    async def _row(self, query: Select[*tuple[Any, ...]]) -> Row[*tuple[Any, ...]] | None:
        return await self._database.run(lambda connection: connection.execute(query).first())


def _confirmed(row: Row[*tuple[Any, ...]]) -> Found:
    return Found(OrderStatus.CONFIRMED, row.id, row.voucher_id, pay_status=row.status)
