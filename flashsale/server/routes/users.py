"""Users: signing in by phone code and out, and the daily sign-in; users as others see them, who
follows whom, and the pictures of what they write."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from flashsale.accounts.attendance import Attendance
from flashsale.accounts.login import Login, Wait, is_phone
from flashsale.catalog.json import Form, closed
from flashsale.catalog.people import CARD, COMMON_MAX, INFO, FollowOutcome, People
from flashsale.catalog.pictures import PictureRefusal, Pictures, file_in_form
from flashsale.model import parse_id
from flashsale.server.app import Router
from flashsale.server.caller import Callers, ClientAddresses
from flashsale.server.openapi import COUNT, ID, listing
from flashsale.server.request import Request, TextParameter
from flashsale.server.response import (
    BAD_ID,
    UNAUTHORIZED,
    Response,
    ok,
    personal,
    rejected,
    too_many,
)
from flashsale.settings import PICTURES_PATH

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


# Others ------------------------------------------------------------------------------------------

_FOLLOWED = {
    FollowOutcome.DONE: ok(),
    FollowOutcome.ONESELF: rejected("Nobody follows themselves"),
    FollowOutcome.NOBODY: rejected("User does not exist", 404),
    FollowOutcome.TOO_MANY: rejected("Too many users are followed"),
}
_NO_FORM = rejected("Expected multipart/form-data with a file", 415)
_REFUSED = {
    PictureRefusal.NOT_KEPT_HERE: rejected("Pictures are not kept here", 404),
    PictureRefusal.NO_PICTURE: rejected("Expected a JPEG, PNG, GIF or WebP picture"),
    PictureRefusal.TOO_MANY: rejected("Too many pictures"),
    PictureRefusal.NO_ROOM: rejected("There is no room for pictures"),
    PictureRefusal.NOT_YOURS: rejected("Expected the name of a picture of your own"),
}
_NAME = TextParameter("name", 128)
_PICTURE = {"type": "string", "pattern": "^/blogs/[1-9][0-9]*/[0-9a-f]{32}\\.[a-z]{3,4}$"}


@dataclass(frozen=True)
class PeopleRoutes:
    """Everything under /follow, and other users under /user."""

    callers: Callers
    people: People

    def mount(self, router: Router) -> None:
        """Add the routes."""
        signed_in = self.callers.signed_in
        router.add("GET", "/user/{id}", signed_in(self.user)).gives_perhaps(CARD)
        router.add("GET", "/user/info/{id}", signed_in(self.info)).gives_perhaps(INFO)
        follow, unfollow = signed_in(self.follow), signed_in(self.unfollow)
        router.add("PUT", "/follow/{id}/true", follow).gives(None, *_FOLLOWED.values())
        router.add("PUT", "/follow/{id}/false", unfollow).gives(
            None, _FOLLOWED[FollowOutcome.ONESELF]
        )
        does_follow = router.add("GET", "/follow/or/not/{id}", signed_in(self.does_follow))
        does_follow.gives({"type": "boolean"})
        common = router.add("GET", "/follow/common/{id}", signed_in(self.common))
        common.gives(listing(CARD, COMMON_MAX))

    async def user(self, request: Request, segment: str, user_id: int) -> Response:
        """Somebody's id, nickName and icon; no data where there is nobody."""
        other = parse_id(segment)
        return BAD_ID if other is None else ok(await self.people.card(other))

    async def info(self, request: Request, segment: str, user_id: int) -> Response:
        """What somebody tells of themselves; no data where that is nothing yet."""
        other = parse_id(segment)
        return BAD_ID if other is None else ok(await self.people.info(other))

    async def follow(self, request: Request, segment: str, user_id: int) -> Response:
        """Follow somebody. Twice is once."""
        return await self._follow(user_id, segment, follows=True)

    async def unfollow(self, request: Request, segment: str, user_id: int) -> Response:
        """Follow somebody no longer. Twice is once."""
        return await self._follow(user_id, segment, follows=False)

    async def _follow(self, user_id: int, segment: str, *, follows: bool) -> Response:
        other = parse_id(segment)
        if other is None:
            return BAD_ID
        return _FOLLOWED[await self.people.follow(user_id, other, follows=follows)]

    async def does_follow(self, request: Request, segment: str, user_id: int) -> Response:
        """Whether one follows somebody."""
        other = parse_id(segment)
        return BAD_ID if other is None else ok(await self.people.does_follow(user_id, other))

    async def common(self, request: Request, segment: str, user_id: int) -> Response:
        """Whom one and somebody else both follow."""
        other = parse_id(segment)
        return BAD_ID if other is None else ok(await self.people.common(user_id, other))


@dataclass(frozen=True)
class PictureRoutes:
    """Everything under /upload."""

    callers: Callers
    pictures: Pictures

    def mount(self, router: Router) -> None:
        """Add the routes."""
        upload = router.add("POST", PICTURES_PATH, self.callers.signed_in(self.upload))
        upload.takes_file("file").gives(_PICTURE, _NO_FORM, *_REFUSED.values())
        # By GET, as the family's pages have it.
        delete = self.callers.signed_in(self.delete)
        deleted = router.add("GET", f"{PICTURES_PATH}/delete", delete)
        deleted.asks(_NAME).gives(None, _REFUSED[PictureRefusal.NOT_YOURS])

    async def upload(self, request: Request, segment: str, user_id: int) -> Response:
        """Keep a picture; its name, which is shown below /imgs."""
        picture = file_in_form(request.content_type, await request.body())
        if picture is None:
            return _NO_FORM
        kept = await self.pictures.keep(user_id, picture)
        return _REFUSED[kept] if isinstance(kept, PictureRefusal) else ok(kept)

    async def delete(self, request: Request, segment: str, user_id: int) -> Response:
        """Remove a picture of one's own. Twice is once."""
        refusal = await self.pictures.remove(user_id, _NAME.of(request))
        return _REFUSED[refusal] if refusal else ok()
