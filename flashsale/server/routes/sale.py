"""Buying, and asking what became of it."""

import math
from dataclasses import dataclass
from functools import cached_property

from flashsale.accounts.sessions import Sessions
from flashsale.errors import Indeterminate, Unavailable
from flashsale.model import OrderStatus, Outcome, parse_id
from flashsale.orders.lookup import OrderLookup
from flashsale.seckill.claims import Claims
from flashsale.server.answers import (
    BAD_ID,
    NOT_LOADED,
    UNAUTHORIZED,
    UNKNOWN_VOUCHER,
    Response,
    claimed,
    ok,
)
from flashsale.server.request import Request
from flashsale.server.router import Router
from flashsale.server.routes.order import described
from flashsale.settings import ClaimSettings


@dataclass(frozen=True)
class SaleRoutes:
    """The claim, and its user's order of a voucher. Neither asks `holder`: see there."""

    sessions: Sessions
    claims: Claims
    orders: OrderLookup
    settings: ClaimSettings

    def mount(self, router: Router) -> None:
        """Add the routes."""
        router.add("POST", "/voucher-order/seckill/{voucherId}", self.claim)
        router.add("GET", "/voucher-order/seckill/{voucherId}", self.own_order)

    async def claim(self, request: Request, segment: str) -> Response:
        """Buy one unit: gate, script with its look at the session, answer."""
        voucher_id = parse_id(segment)
        if voucher_id is None:
            return BAD_ID
        if request.has_body:
            await request.body()  # nothing in it matters, but its bounds do
        session = self.sessions.key_of(request.token)
        answer = None if session is None else await self.claims.claim(voucher_id, session)
        if answer is None:
            return UNAUTHORIZED
        outcome, order_id = answer
        if outcome is Outcome.NOT_LOADED:
            return await self._not_loaded(voucher_id)
        return claimed(outcome, order_id, self._final_after_s)

    async def _not_loaded(self, voucher_id: int) -> Response:
        try:
            known = await self.orders.voucher_exists(voucher_id)
        except (Unavailable, Indeterminate):
            known = True  # for all that can be told now
        return NOT_LOADED if known else UNKNOWN_VOUCHER

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
            return ok({"state": "none"})
        is_row = found.status is OrderStatus.CONFIRMED
        return ok({"state": "row" if is_row else "receipt", **described(found)})
