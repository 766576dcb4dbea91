"""Paying and cancelling: what a buyer can do with an order, and what came of it.

A cancellation commits in MySQL first, with its unit of stock, and only then returns the unit to
the ledger; where that second step is lost, the sweeper (sweeper.py) repeats it.

It waits until the claim's deadline has passed. Before, a replay of the claim could still be under
way, and would find its receipt gone and the unit free: it would sell the cancelled order again.
"""

import asyncio
from enum import Enum, auto

import structlog

from flashsale.errors import Indeterminate, Unavailable
from flashsale.model import OrderStatus, PayStatus
from flashsale.orders import transitions
from flashsale.orders.lookup import OrderLookup
from flashsale.orders.returns import return_call
from flashsale.orders.transitions import OrderRow, Return
from flashsale.seckill.ids import LedgerClock
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import Database

log = structlog.get_logger(__name__)

CLOCK_SLACK_MS = 250
"""How far two replicas' ideas of the ledger's clock may be apart."""


class Change(Enum):
    """What became of a request to change an order."""

    DONE = auto()  # by this request, or by an earlier one like it
    REFUNDED = auto()  # the order had been cancelled: the payment is given back
    TOO_LATE = auto()  # the order has moved on to where this is not possible
    QUEUED = auto()  # not a row yet: ask again
    FAILED = auto()  # it will never be a row
    UNKNOWN = auto()  # no order of this user


_PAID = {
    PayStatus.UNPAID: Change.QUEUED,  # became a row between the payment and the look at it
    PayStatus.PAID: Change.DONE,
    PayStatus.USED: Change.DONE,
    PayStatus.REFUNDED: Change.REFUNDED,
}
_CANCELLED = {PayStatus.CANCELLED: Change.DONE, PayStatus.REFUNDED: Change.DONE}
_NO_ROW = {OrderStatus.QUEUED: Change.QUEUED, OrderStatus.FAILED: Change.FAILED}


class Lifecycle:
    """Moves orders on for their users. Calls may raise Unavailable or Indeterminate: ask again,
    since every change can be asked for twice."""

    def __init__(
        self,
        database: Database,
        ledger: Channel,
        lookup: OrderLookup,
        clock: LedgerClock,
        claim_timeout_ms: int,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._lookup = lookup
        self._clock = clock
        self._settled_after_ms = claim_timeout_ms + CLOCK_SLACK_MS

    def __repr__(self) -> str:
        return f"<Lifecycle settled_after={self._settled_after_ms} ms>"

    async def pay(self, order_id: int, user_id: int) -> Change:
        """Pay for an order; money for one that was cancelled goes back."""
        row = await self._database.run(lambda c: transitions.pay(c, order_id, user_id))
        if row is None:
            return await self._without_row(order_id, user_id)
        return _PAID.get(row.status, Change.TOO_LATE)

    async def cancel(self, order_id: int, user_id: int) -> Change:
        """Cancel an unpaid order, once its claim is settled: within about two seconds."""
        row = await self._database.run(lambda c: transitions.read(c, order_id, user_id))
        if row is None:
            return await self._without_row(order_id, user_id)
        if row.status == PayStatus.UNPAID:
            await self._until_settled(row)
            row = await self._database.run(lambda c: transitions.cancel(c, order_id, user_id))
        change = Change.TOO_LATE if row is None else _CANCELLED.get(row.status, Change.TOO_LATE)
        if row is not None and change is Change.DONE:
            await self._return(Return(order_id, user_id, row.voucher_id))
        return change

    async def _without_row(self, order_id: int, user_id: int) -> Change:
        found = await self._lookup.by_id(order_id, user_id)
        if found is None:
            return Change.UNKNOWN
        return _NO_ROW.get(found.status, Change.QUEUED)  # CONFIRMED: a row by now

    async def _until_settled(self, row: OrderRow) -> None:
        left_ms = row.created_ms + self._settled_after_ms - self._clock.now_ms()
        if left_ms > 0:
            await asyncio.sleep(left_ms / 1000)

    async def _return(self, returned: Return) -> None:
        """Return the unit now; where that fails the sweeper does it, and the user need not know."""
        try:
            reply = (await self._ledger.run([return_call(returned)]))[0]
            if isinstance(reply, (Unavailable, Indeterminate)):
                raise reply
            await self._database.run(lambda c: transitions.settle(c, [returned.order_id]))
        except (Unavailable, Indeterminate) as trouble:
            log.warning("a unit is left to the sweeper", trouble=str(trouble))
