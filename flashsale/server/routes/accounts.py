"""Users: signing in by phone code and out, and the daily sign-in."""

from dataclasses import dataclass

from flashsale.accounts.attendance import Attendance
from flashsale.accounts.login import Login, Wait, is_phone
from flashsale.server.app import Router
from flashsale.server.caller import Callers, ClientAddresses
from flashsale.server.request import Query, Request
from flashsale.server.response import UNAUTHORIZED, Response, ok, personal, rejected, too_many

_BAD_PHONE = rejected("phone: expected 11 digits, the first a 1", 400)
_BAD_CODE = rejected("code: expected text", 400)
_WRONG_CODE = rejected("Wrong code")


@dataclass(frozen=True)
class AccountRoutes:
    """Everything under /user."""

    callers: Callers
    login: Login
    attendance: Attendance
    addresses: ClientAddresses

    def mount(self, router: Router) -> None:
        """Add the routes."""
        signed_in = self.callers.signed_in
        router.add("POST", "/user/code", self.send_code)
        router.add("POST", "/user/login", self.sign_in)
        router.add("POST", "/user/logout", signed_in(self.sign_out))
        router.add("POST", "/user/logout/everywhere", signed_in(self.sign_out_everywhere))
        router.add("GET", "/user/me", signed_in(self.me))
        router.add("POST", "/user/sign", signed_in(self.sign))
        router.add("GET", "/user/sign/count", signed_in(self.count))

    async def send_code(self, request: Request, segment: str) -> Response:
        """Send a code; the answer is the same for known and unknown phones."""
        phone = Query(request).text("phone", 32)
        if not is_phone(phone):
            return _BAD_PHONE
        wait = await self.login.send_code(phone, self.addresses.of(request.scope))
        return ok() if wait is None else too_many(wait.seconds)

    async def sign_in(self, request: Request, segment: str) -> Response:
        """A session's token for a phone and its code."""
        given = await request.json()
        phone, code = given.get("phone"), given.get("code")
        if not isinstance(phone, str) or not is_phone(phone):
            return _BAD_PHONE
        if not isinstance(code, str):
            return _BAD_CODE
        token = await self.login.sign_in(phone, code, self.addresses.of(request.scope))
        if isinstance(token, Wait):
            return too_many(token.seconds)
        return _WRONG_CODE if token is None else personal(ok(token))

    async def sign_out(self, request: Request, segment: str, user_id: int) -> Response:
        """End the session."""
        await self.login.sign_out(request.token, user_id)
        return ok()

    async def sign_out_everywhere(self, request: Request, segment: str, user_id: int) -> Response:
        """End every session of the user, this one among them."""
        await self.login.sign_out_everywhere(request.token, user_id)
        return ok()

    async def me(self, request: Request, segment: str, user_id: int) -> Response:
        """Who the session's user is."""
        user = await self.login.user(request.token)
        return UNAUTHORIZED if user is None else ok(user)

    async def sign(self, request: Request, segment: str, user_id: int) -> Response:
        """Be here today."""
        await self.attendance.sign(user_id)
        return ok()

    async def count(self, request: Request, segment: str, user_id: int) -> Response:
        """Days in a row up to today."""
        return ok(await self.attendance.streak(user_id))
