"""What those whom a user follows have written, the newest first, scrolled and not paged.

A feed is a sorted set by time in the cache, as the family has it: a new blog is pushed into the
feeds that are there, of so many followers; a feed that is not there is read from MySQL. Followers
beyond that number see the blog when their feed is read again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from flashsale import keys
from flashsale.cache.client import CacheClient
from flashsale.cache.indexes import Member
from flashsale.lua.scripts import script
from flashsale.settings import CatalogSettings
from flashsale.storage.mysql import Database, unix_ms
from flashsale.storage.tables import blog, follow

_PAGE = script("index_page")
SCROLL = 10
KEPT = 1_000
"""Blogs of a feed: the newest."""

PUSHED = 10_000
"""Followers whose feeds are told of a new blog at once."""


@dataclass(frozen=True, slots=True)
class Scroll:
    """A part of a feed. What follows is asked for by `min_ms` and `offset`: how many at that very
    time have been shown."""

    blog_ids: Sequence[int]
    min_ms: int
    offset: int


class Feeds:
    """The feeds of all users. Calls may raise Unavailable or Indeterminate."""

    def __init__(self, database: Database, cache: CacheClient, settings: CatalogSettings) -> None:
        self._database = database
        self.indexes = cache.index(
            "feed", keys.feed, self._load, is_sorted=True, ttl_s=settings.follows_ttl_s
        )

    def __repr__(self) -> str:
        return f"<Feeds {self.indexes!r}>"

    async def scroll(self, user_id: int, last_ms: int, offset: int) -> Scroll | None:
        """The part after `offset` of those at `last_ms` or before; None where there is no more."""
        found = await self.indexes.ask(_PAGE, [user_id], last_ms, offset, SCROLL, 1)
        if found is None:
            members = page_of(await self.indexes.load(user_id), last_ms, offset)
        else:
            members = [Member(*pair) for pair in zip(found[::2], found[1::2], strict=True)]
        return scroll_of(members, last_ms, offset) if members else None

    async def push(self, author: int, member: Member) -> None:
        """Tell the feeds of followers of a new blog, once it is committed."""
        query = select(follow.c.user_id).where(follow.c.follow_user_id == author)
        latest = query.order_by(follow.c.id.desc()).limit(PUSHED)
        followers = await self._database.run(lambda c: list(c.execute(latest).scalars()))
        await self.indexes.push(followers, member, keep=KEPT)

    async def _load(self, user_id: int) -> list[Member]:
        query = (
            select(blog.c.id, blog.c.create_time)
            .join(follow, follow.c.follow_user_id == blog.c.user_id)
            .where(follow.c.user_id == user_id)
            .order_by(blog.c.create_time.desc(), blog.c.id.desc())
            .limit(KEPT)
        )
        rows: Sequence[Any] = await self._database.run(lambda c: c.execute(query).all())
        return [Member(row.id, unix_ms(row.create_time)) for row in rows]


def page_of(members: Iterable[Member], last_ms: int, offset: int) -> list[Member]:
    """What `index_page.lua` would have answered. Pure."""
    falling = sorted(members, key=lambda m: (m.score, str(m.id)), reverse=True)
    return [m for m in falling if m.score <= last_ms][offset : offset + SCROLL]


def scroll_of(members: Sequence[Member], last_ms: int, offset: int) -> Scroll:
    """The part that shows `members`, after `offset` at `last_ms`. Pure."""
    min_ms = members[-1].score
    shown = sum(member.score == min_ms for member in members)
    return Scroll([m.id for m in members], min_ms, shown + offset * (min_ms == last_ms))
