"""Users as others see them, who follows whom, and the pictures of what they write."""

from dataclasses import dataclass

from flashsale.catalog.people import CARD, COMMON_MAX, INFO, Followed, People
from flashsale.catalog.pictures import Pictures, Refusal, file_in_form
from flashsale.model import parse_id
from flashsale.server.app import Router
from flashsale.server.caller import Callers
from flashsale.server.openapi import listing
from flashsale.server.request import Request, TextParameter
from flashsale.server.response import BAD_ID, Response, ok, rejected
from flashsale.settings import PICTURES_PATH

_FOLLOWED = {
    Followed.DONE: ok(),
    Followed.ONESELF: rejected("Nobody follows themselves"),
    Followed.NOBODY: rejected("User does not exist", 404),
    Followed.TOO_MANY: rejected("Too many users are followed"),
}
_NO_FORM = rejected("Expected multipart/form-data with a file", 415)
_REFUSED = {
    Refusal.NOT_KEPT_HERE: rejected("Pictures are not kept here", 404),
    Refusal.NO_PICTURE: rejected("Expected a JPEG, PNG, GIF or WebP picture"),
    Refusal.TOO_MANY: rejected("Too many pictures"),
    Refusal.NO_ROOM: rejected("There is no room for pictures"),
    Refusal.NOT_YOURS: rejected("Expected the name of a picture of your own"),
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
        router.add("PUT", "/follow/{id}/false", unfollow).gives(None, _FOLLOWED[Followed.ONESELF])
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
        deleted.asks(_NAME).gives(None, _REFUSED[Refusal.NOT_YOURS])

    async def upload(self, request: Request, segment: str, user_id: int) -> Response:
        """Keep a picture; its name, which is shown below /imgs."""
        picture = file_in_form(request.content_type, await request.body())
        if picture is None:
            return _NO_FORM
        kept = await self.pictures.keep(user_id, picture)
        return _REFUSED[kept] if isinstance(kept, Refusal) else ok(kept)

    async def delete(self, request: Request, segment: str, user_id: int) -> Response:
        """Remove a picture of one's own. Twice is once."""
        refusal = await self.pictures.remove(user_id, _NAME.of(request))
        return _REFUSED[refusal] if refusal else ok()
