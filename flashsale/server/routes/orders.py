"""Buying, asking what became of it, and one order: where it is, paying for it, cancelling it."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flashsale.accounts.sessions import ClaimBudget, Sessions
from flashsale.catalog.json import closed
from flashsale.model import OrderStatus, Outcome, PayStatus, parse_id
from flashsale.orders.lifecycle import Lifecycle, OrderChange
from flashsale.orders.lookup import Found, KnownSales, OrderLookup
from flashsale.seckill.batch import digest_of
from flashsale.seckill.claims import Claims
from flashsale.seckill.lane_claims import LaneClaims
from flashsale.server.app import Router
from flashsale.server.caller import Callers
from flashsale.server.openapi import ID, Caller
from flashsale.server.request import HeaderParameter, Request
from flashsale.server.response import (
    BAD_ID,
    BEHIND,
    CLAIM_ANSWERS,
    NOT_FOUND,
    NOT_LOADED,
    RETRY_SOON,
    UNAUTHORIZED,
    UNKNOWN_VOUCHER,
    Response,
    claimed,
    ok,
    personal,
    rejected,
    too_many_claims,
)
from flashsale.settings import ClaimSettings

_QUEUED = rejected("Order is still being written, try again", 503, RETRY_SOON)
_FAILED = rejected("Order has failed")
_BAD_KEY = rejected("Idempotency-Key: expected 1 to 255 visible ASCII characters", 400)
_PAY = {
    OrderChange.DONE: ok(),
    OrderChange.REFUNDED: rejected("Order was cancelled, the payment is refunded"),
    OrderChange.TOO_LATE: rejected("Order cannot be paid any more"),
    OrderChange.QUEUED: _QUEUED,
    OrderChange.FAILED: _FAILED,
    OrderChange.UNKNOWN: NOT_FOUND,
}
_CANCEL = {
    OrderChange.DONE: ok(),
    OrderChange.TOO_LATE: rejected("Order is paid and cannot be cancelled"),
    OrderChange.QUEUED: _QUEUED,
    OrderChange.FAILED: _FAILED,
    OrderChange.UNKNOWN: NOT_FOUND,
}
_IDEMPOTENCY_KEY = HeaderParameter(
    "Idempotency-Key",
    "Who won with it is told so again, whenever it comes again from that user for that voucher.",
    {"type": "string", "pattern": "^[!-~]{0,255}$"},
)
_ORDER_FIELDS = {
    "orderId": {"type": "string", "pattern": "^[1-9][0-9]{0,18}$"},
    "voucherId": ID,
    "orderState": {"enum": list(OrderStatus)},
    "status": {"type": "integer", "minimum": PayStatus.UNPAID, "maximum": PayStatus.REFUNDED},
    "reason": {"type": "string"},
}
_ORDER = closed({"state": {"enum": list(OrderStatus)}, **_ORDER_FIELDS}, "status", "reason")
_OWN_ORDER = closed(
    {"state": {"enum": ["row", "receipt", "none"]}, **_ORDER_FIELDS}, *_ORDER_FIELDS
)


@dataclass(frozen=True)
class ClaimRoutes:
    """The claim, whose session the script that sells looks up itself; and its user's order."""

    sessions: Sessions
    claims: Claims | LaneClaims
    orders: OrderLookup
    settings: ClaimSettings
    budget: ClaimBudget

    def mount(self, router: Router) -> None:
        """Add the routes."""
        claim = router.add("POST", "/voucher-order/seckill/{voucherId}", self.claim)
        claim.by(Caller.USER).asks(_IDEMPOTENCY_KEY).gives(ID, *CLAIM_ANSWERS)
        own = router.add("GET", "/voucher-order/seckill/{voucherId}", self.own_order)
        own.by(Caller.USER).gives(_OWN_ORDER)

    async def claim(self, request: Request, segment: str) -> Response:
        """Buy one unit: the user's budget, gate, script with its look at the session, answer."""
        voucher_id = parse_id(segment)
        if voucher_id is None:
            return BAD_ID
        if request.has_body:
            await request.body()  # nothing in it matters, but its bounds do
        session = self.sessions.key_of(request.token)
        if session is None:
            return UNAUTHORIZED
        digest = digest_of(request.idempotency_key)
        if digest is None:
            return _BAD_KEY
        if self.budget.add(session):
            wait_s = await self.budget.wait_s(session, request.token)
            if wait_s:
                self.claims.outcomes[Outcome.RATE_LIMITED] += 1
                return too_many_claims(wait_s)
        answer = await self.claims.claim(voucher_id, session, digest)
        if answer is None:
            return UNAUTHORIZED
        outcome, order_id, behind = answer
        if behind:
            return BEHIND
        if outcome is Outcome.NOT_LOADED:
            return await self._not_loaded(voucher_id)
        return claimed(outcome, order_id, self._final_after_s)

    async def _not_loaded(self, voucher_id: int) -> Response:
        return NOT_LOADED if await self._known.knows(voucher_id) else UNKNOWN_VOUCHER

    @cached_property
    def _known(self) -> KnownSales:
        return KnownSales(self.orders)

    @cached_property
    def _final_after_s(self) -> int:
        return math.ceil(self.settings.timeout_ms / 1000) + 1

    async def own_order(self, request: Request, segment: str) -> Response:
        """The caller's own order of a voucher: row, receipt or none."""
        voucher_id = parse_id(segment)
        if voucher_id is None:
            return BAD_ID
        user_id = await self.sessions.user_of(request.token)
        if user_id is None:
            return UNAUTHORIZED
        found = await self.orders.by_voucher(voucher_id, user_id)
        if found is None:
            return personal(ok({"state": "none"}))
        is_row = found.status is OrderStatus.CONFIRMED
        return personal(ok({"state": "row" if is_row else "receipt", **_described(found)}))


@dataclass(frozen=True)
class OrderRoutes:
    """An order by its id. Another user's does not exist."""

    callers: Callers
    orders: OrderLookup
    lifecycle: Lifecycle

    def mount(self, router: Router) -> None:
        """Add the routes."""
        signed_in = self.callers.signed_in
        router.add("GET", "/voucher-order/{id}", signed_in(self.order)).gives(_ORDER)
        pay, cancel = signed_in(self.pay), signed_in(self.cancel)
        router.add("POST", "/voucher-order/{id}/pay", pay).gives(None, *_PAY.values())
        router.add("POST", "/voucher-order/{id}/cancel", cancel).gives(None, *_CANCEL.values())

    async def order(self, request: Request, segment: str, user_id: int) -> Response:
        """Where the order is on its way from receipt to row, and its status there."""
        order_id = parse_id(segment)
        if order_id is None:
            return BAD_ID
        found = await self.orders.by_id(order_id, user_id)
        if found is None:
            return NOT_FOUND
        return ok({"state": found.status.value, **_described(found)})

    async def pay(self, request: Request, segment: str, user_id: int) -> Response:
        """Pay. Twice is once; too late is given back."""
        order_id = parse_id(segment)
        if order_id is None:
            return BAD_ID
        return _PAY[await self.lifecycle.pay(order_id, user_id)]

    async def cancel(self, request: Request, segment: str, user_id: int) -> Response:
        """Cancel what is not paid. Twice is once."""
        order_id = parse_id(segment)
        if order_id is None:
            return BAD_ID
        return _CANCEL[await self.lifecycle.cancel(order_id, user_id)]


def _described(found: Found) -> dict[str, Any]:
    """An order as JSON has it; its id is text, since JavaScript's numbers end at 2^53."""
    order: dict[str, Any] = {
        "orderId": str(found.order_id),
        "voucherId": found.voucher_id,
        "orderState": found.status.value,
    }
    if found.pay_status is not None:
        order["status"] = found.pay_status
    if found.reason is not None:
        order["reason"] = found.reason
    return order
