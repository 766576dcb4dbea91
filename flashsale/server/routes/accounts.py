"""Users: signing in by phone code and out, and the daily sign-in."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from flashsale.accounts.attendance import Attendance
from flashsale.accounts.login import Login, Wait, is_phone
from flashsale.catalog.form import Form
from flashsale.catalog.page import closed
from flashsale.server.app import Router
from flashsale.server.caller import Callers, ClientAddresses
from flashsale.server.openapi import COUNT, ID
from flashsale.server.request import Request, TextParameter
from flashsale.server.response import UNAUTHORIZED, Response, ok, personal, rejected, too_many

_PHONE_SHAPE = {"pattern": "^1[0-9]{10}$"}
_PHONE = TextParameter("phone", 32, schema=_PHONE_SHAPE, is_needed=True)
_BAD_PHONE = rejected("phone: expected 11 digits, the first a 1", 400)
_WRONG_CODE = rejected("Wrong code")
_USER = closed({"id": ID, "nickName": {"type": "string"}, "icon": {"type": "string"}})
_TOKEN = {"type": "string", "minLength": 1}


def _phone(text: str) -> str:
    if not is_phone(text):
        raise ValueError("expected 11 digits, the first a 1")
    return text


class SignIn(Form):
    """A phone, and the code that was sent to it."""

    phone: Annotated[str, AfterValidator(_phone), Field(json_schema_extra=_PHONE_SHAPE)]
    code: str


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
        router.add("POST", "/user/code", self.send_code).asks(_PHONE).gives(None, _BAD_PHONE)
        router.add("POST", "/user/login", self.sign_in).takes(SignIn).gives(_TOKEN, _WRONG_CODE)
        router.add("POST", "/user/logout", signed_in(self.sign_out)).gives()
        everywhere = signed_in(self.sign_out_everywhere)
        router.add("POST", "/user/logout/everywhere", everywhere).gives()
        router.add("GET", "/user/me", signed_in(self.me)).gives(_USER)
        router.add("POST", "/user/sign", signed_in(self.sign)).gives()
        router.add("GET", "/user/sign/count", signed_in(self.count)).gives(COUNT)

    async def send_code(self, request: Request, segment: str) -> Response:
        """Send a code; the answer is the same for known and unknown phones."""
        phone = _PHONE.of(request)
        if not is_phone(phone):
            return _BAD_PHONE
        wait = await self.login.send_code(phone, self.addresses.of(request.scope))
        return ok() if wait is None else too_many(wait.seconds)

    async def sign_in(self, request: Request, segment: str) -> Response:
        """A session's token for a phone and its code."""
        given = await request.form(SignIn)
        address = self.addresses.of(request.scope)
        token = await self.login.sign_in(given.phone, given.code, address)
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
