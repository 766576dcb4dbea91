"""The routes: what each path does, and with which parts."""

import math
from dataclasses import dataclass
from typing import Any

from flashsale.accounts.login import Login, is_phone
from flashsale.accounts.sessions import Sessions
from flashsale.errors import Indeterminate, Unavailable
from flashsale.model import OrderStatus, Outcome, parse_id
from flashsale.orders.lookup import Found, OrderLookup
from flashsale.seckill.claims import Claims
from flashsale.server.answers import (
    NOT_FOUND,
    NOT_LOADED,
    RETRY_SOON,
    UNAUTHORIZED,
    UNKNOWN_VOUCHER,
    Response,
    claimed,
    ok,
    rejected,
)
from flashsale.server.metrics import Metrics
from flashsale.server.request import Request
from flashsale.server.router import Router
from flashsale.settings import ClaimSettings

_BAD_PHONE = rejected("Expected a phone number of 11 digits", 400)
_WRONG_CODE = rejected("Wrong code")
_BAD_ID = rejected("Expected an id from 1 to 9223372036854775807", 400)
_UNREADY = rejected("Not ready", 503, RETRY_SOON)


@dataclass(frozen=True)
class SaleRoutes:
    """Buying, and asking what became of it."""

    sessions: Sessions
    claims: Claims
    orders: OrderLookup
    settings: ClaimSettings

    def mount(self, router: Router) -> None:
        """Add the routes."""
        router.add("POST", "/voucher-order/seckill/{voucherId}", self.claim)
        router.add("GET", "/voucher-order/seckill/{voucherId}", self.own_order)
        router.add("GET", "/voucher-order/{id}", self.order)

    async def claim(self, request: Request, tail: str) -> Response:
        """Buy one unit: session, gate, script, answer."""
        voucher_id = parse_id(tail)
        if voucher_id is None:
            return _BAD_ID
        if request.has_body:
            await request.body()  # nothing in it matters, but its bounds do
        try:
            user_id = await self.sessions.user_of(request.token)
        except Unavailable:  # no claim was sent: certainly not done, and the answer says so
            return claimed(Outcome.SHED, "", self._final_after_s())
        if user_id is None:
            return UNAUTHORIZED
        outcome, order_id = await self.claims.claim(voucher_id, user_id)
        if outcome is Outcome.NOT_LOADED:
            return await self._not_loaded(voucher_id)
        return claimed(outcome, order_id, self._final_after_s())

    async def _not_loaded(self, voucher_id: int) -> Response:
        try:
            known = await self.orders.voucher_exists(voucher_id)
        except (Unavailable, Indeterminate):
            known = True  # for all that can be told now
        return NOT_LOADED if known else UNKNOWN_VOUCHER

    def _final_after_s(self) -> int:
        return math.ceil(self.settings.timeout_ms / 1000) + 1

    async def own_order(self, request: Request, tail: str) -> Response:
        """The caller's own order of a voucher: row, receipt or none."""
        voucher_id = parse_id(tail)
        if voucher_id is None:
            return _BAD_ID
        user_id = await self.sessions.user_of(request.token)
        if user_id is None:
            return UNAUTHORIZED
        found = await self.orders.by_voucher(voucher_id, user_id)
        if found is None:
            return ok({"state": "none"})
        is_row = found.status is OrderStatus.CONFIRMED
        return ok({"state": "row" if is_row else "receipt", **_described(found)})

    async def order(self, request: Request, tail: str) -> Response:
        """One order by id, to its owner only."""
        order_id = parse_id(tail)
        if order_id is None:
            return _BAD_ID
        user_id = await self.sessions.user_of(request.token)
        if user_id is None:
            return UNAUTHORIZED
        found = await self.orders.by_id(order_id, user_id)
        if found is None:
            return NOT_FOUND
        return ok({"state": found.status.value, **_described(found)})


def _described(found: Found) -> dict[str, Any]:
    described: dict[str, Any] = {
        "orderId": str(found.order_id),
        "voucherId": found.voucher_id,
        "orderState": found.status.value,
    }
    if found.pay_status is not None:
        described["status"] = found.pay_status
    if found.reason is not None:
        described["reason"] = found.reason
    return described


@dataclass(frozen=True)
class AccountRoutes:
    """Signing in by phone code, and out."""

    login: Login
    sessions: Sessions

    def mount(self, router: Router) -> None:
        """Add the routes."""
        router.add("POST", "/user/code", self.send_code)
        router.add("POST", "/user/login", self.sign_in)
        router.add("POST", "/user/logout", self.sign_out)
        router.add("GET", "/user/me", self.me)

    async def send_code(self, request: Request, tail: str) -> Response:
        """Send a code; the answer is the same for known and unknown phones."""
        phone = request.query("phone")
        if not is_phone(phone):
            return _BAD_PHONE
        await self.login.send_code(phone)
        return ok()

    async def sign_in(self, request: Request, tail: str) -> Response:
        """A session's token for a phone and its code."""
        given = await request.json()
        phone, code = given.get("phone"), given.get("code")
        if not isinstance(phone, str) or not is_phone(phone):
            return _BAD_PHONE
        token = await self.login.sign_in(phone, code) if isinstance(code, str) else None
        return _WRONG_CODE if token is None else ok(token)

    async def sign_out(self, request: Request, tail: str) -> Response:
        """End the session."""
        if await self.sessions.user_of(request.token) is None:
            return UNAUTHORIZED
        await self.login.sign_out(request.token)
        return ok()

    async def me(self, request: Request, tail: str) -> Response:
        """Who the session's user is."""
        user_id = await self.sessions.user_of(request.token)
        if user_id is None:
            return UNAUTHORIZED
        user = await self.login.user(request.token)
        return UNAUTHORIZED if user is None else ok(user)


@dataclass(frozen=True)
class ProcessRoutes:
    """Health, readiness and metrics. nginx passes on the first alone."""

    orders: OrderLookup
    metrics: Metrics

    def mount(self, router: Router) -> None:
        """Add the routes."""
        router.add("GET", "/healthz", self.healthz)
        router.add("GET", "/readyz", self.readyz)
        router.add("GET", "/metrics", self.scrape)

    async def healthz(self, request: Request, tail: str) -> Response:
        """The process answers."""
        return _HEALTHY

    async def readyz(self, request: Request, tail: str) -> Response:
        """Redis and MySQL answer too."""
        try:
            await self.orders.ready()
        except (Unavailable, Indeterminate):
            return _UNREADY
        return _HEALTHY

    async def scrape(self, request: Request, tail: str) -> Response:
        """Prometheus' text format."""
        body = self.metrics.render()
        length = (b"content-length", str(len(body)).encode())
        return Response(200, body, [(b"content-type", self.metrics.content_type), length])


_HEALTHY = ok()
