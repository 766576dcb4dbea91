"""Where an order is: a row in MySQL, a receipt in the ledger, set aside, or nowhere."""

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sqlalchemy import Row, Select, select

from flashsale.errors import Indeterminate, Unavailable
from flashsale.model import OrderStatus, parse_id
from flashsale.storage.lanes import LedgerChannel
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

    def __init__(self, database: Database, ledger: LedgerChannel) -> None:
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
        held = await self._ledger.ask("HGET", self._receipts(voucher_id), user_id)
        order_id = parse_id(held or "")
        if order_id and (row is None or order_id != row.id):
            return await self._unconfirmed(order_id, voucher_id)
        return _confirmed(row) if row is not None else None

    async def by_id(self, order_id: int, user_id: int) -> Found | None:
        """The user's order of that id, None where it is not theirs. Raises Unavailable."""
        row = await self._row(select(voucher_order).where(voucher_order.c.id == order_id))
        if row is not None:
            return _confirmed(row) if row.user_id == user_id else None
        lanes = self._ledger.layout.lanes
        listed = await self._ledger.ask_all([("SMEMBERS", lane.loaded_sales) for lane in lanes])
        names = (name for some in listed for name in some)
        sales = [voucher_id for name in names if (voucher_id := parse_id(name))]
        held = await self._ledger.ask_all(
            [("HGET", self._receipts(voucher_id), user_id) for voucher_id in sales]
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
        """Ask both stores what only a writable one answers. Raises Unavailable or Indeterminate.

        Deleting a key that is not there writes nothing, but a replica refuses it. Of a ledger's
        lanes one is enough: the sales of the others can be bought.
        """
        probes = [self._ledger.ask("DEL", lane.probe) for lane in self._ledger.layout.lanes]
        answers = await asyncio.gather(*probes, return_exceptions=True)
        troubles = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(troubles) == len(answers):
            raise troubles[0]
        await self._database.check_writable()

    async def _unconfirmed(self, order_id: int, voucher_id: int) -> Found:
        reason = await self._ledger.ask(
            "HGET", self._ledger.layout.of(voucher_id).dead_orders, order_id
        )
        status = OrderStatus.FAILED if reason else OrderStatus.QUEUED
        return Found(status, order_id, voucher_id, reason=reason)

    def _receipts(self, voucher_id: int) -> str:
        return self._ledger.layout.of(voucher_id).seckill_receipt(voucher_id)

    async def _row(self, query: Select[*tuple[Any, ...]]) -> Row[*tuple[Any, ...]] | None:
        return await self._database.run(lambda connection: connection.execute(query).first())


class KnownSales:
    """Whether MySQL knows a sale that the ledger does not, remembered for a moment.

    Claims on a sale that is not loaded come as thick as on any other, and each would ask MySQL.
    """

    def __init__(
        self, orders: OrderLookup, *, moment_s: float = 1.0, most: int = 1_024, looks_max: int = 4
    ) -> None:
        self._orders = orders
        self._moment_s = moment_s
        self._most = most
        self._looks_max = looks_max
        self._known: dict[int, tuple[float, bool]] = {}  # the oldest first
        self._looks: dict[int, asyncio.Task[bool]] = {}

    def __repr__(self) -> str:
        return f"<KnownSales remembered={len(self._known)} looks={len(self._looks)}>"

    async def knows(self, voucher_id: int) -> bool:
        """True where there is such a sale, as of a moment ago, or where that cannot be told now."""
        found = self._known.get(voucher_id)
        if found is not None and found[0] > monotonic():
            return found[1]
        look = self._looks.get(voucher_id)
        if look is None:
            if len(self._looks) >= self._looks_max:  # many ids at once: MySQL has other work
                return True
            look = asyncio.get_running_loop().create_task(self._look(voucher_id))
            self._looks[voucher_id] = look
        return await asyncio.shield(look)

    async def _look(self, voucher_id: int) -> bool:
        try:
            is_known = await self._orders.voucher_exists(voucher_id)
        except (Unavailable, Indeterminate):
            is_known = True  # for all that can be told now
        finally:
            del self._looks[voucher_id]
        self._known.pop(voucher_id, None)
        while len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[voucher_id] = monotonic() + self._moment_s, is_known
        return is_known


def _confirmed(row: Row[*tuple[Any, ...]]) -> Found:
    return Found(OrderStatus.CONFIRMED, row.id, row.voucher_id, pay_status=row.status)
