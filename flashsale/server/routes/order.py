"""One order, to the user whose it is: where it is, paying for it, cancelling it."""

from dataclasses import dataclass
from typing import Any

from flashsale.accounts import holder
from flashsale.model import parse_id
from flashsale.orders.lifecycle import Change, Lifecycle
from flashsale.orders.lookup import Found, OrderLookup
from flashsale.server.answers import BAD_ID, NOT_FOUND, RETRY_SOON, Response, ok, rejected
from flashsale.server.caller import Callers
from flashsale.server.request import Request
from flashsale.server.router import Router

_QUEUED = rejected("Order is still being written, try again", 200, RETRY_SOON)
_FAILED = rejected("Order has failed")
_PAY = {
    Change.DONE: ok(),
    Change.REFUNDED: rejected("Order was cancelled, the payment is refunded"),
    Change.TOO_LATE: rejected("Order cannot be paid any more"),
    Change.QUEUED: _QUEUED,
    Change.FAILED: _FAILED,
    Change.UNKNOWN: NOT_FOUND,
}
_CANCEL = {
    Change.DONE: ok(),
    Change.TOO_LATE: rejected("Order is paid and cannot be cancelled"),
    Change.QUEUED: _QUEUED,
    Change.FAILED: _FAILED,
    Change.UNKNOWN: NOT_FOUND,
}


@dataclass(frozen=True)
class OrderRoutes:
    """An order by its id. Another user's does not exist."""

    callers: Callers
    orders: OrderLookup
    lifecycle: Lifecycle

    def mount(self, router: Router) -> None:
        """Add the routes."""
        signed_in = self.callers.signed_in
        router.add("GET", "/voucher-order/{id}", signed_in(self.order))
        router.add("POST", "/voucher-order/{id}/pay", signed_in(self.pay))
        router.add("POST", "/voucher-order/{id}/cancel", signed_in(self.cancel))

    async def order(self, request: Request, segment: str) -> Response:
        """Where the order is on its way from receipt to row, and its status there."""
        order_id = parse_id(segment)
        if order_id is None:
            return BAD_ID
        found = await self.orders.by_id(order_id, holder.current())
        if found is None:
            return NOT_FOUND
        return ok({"state": found.status.value, **described(found)})

    async def pay(self, request: Request, segment: str) -> Response:
        """Pay. Twice is once; too late is given back."""
        order_id = parse_id(segment)
        if order_id is None:
            return BAD_ID
        return _PAY[await self.lifecycle.pay(order_id, holder.current())]

    async def cancel(self, request: Request, segment: str) -> Response:
        """Cancel what is not paid. Twice is once."""
        order_id = parse_id(segment)
        if order_id is None:
            return BAD_ID
        return _CANCEL[await self.lifecycle.cancel(order_id, holder.current())]


def described(found: Found) -> dict[str, Any]:
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
