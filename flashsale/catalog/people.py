"""Users as others see them, who follows whom, and the feed of what those whom a user follows have
written.

Follows are rows of MySQL, which counts them on both sides in the same transaction; whom somebody
follows is kept as a set in the cache, as the family keeps it.

A feed is a sorted set by time in the cache, the newest first, scrolled and not paged: a new blog is
pushed into the feeds that are there, of so many followers; a feed that is not there is read from
MySQL. Followers beyond that number see the blog when their feed is read again.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.mysql import insert as mysql_insert

from flashsale import keys
from flashsale.cache.client import CacheClient
from flashsale.cache.strategies import Strategy
from flashsale.catalog.indexes import Indexes, IndexMember
from flashsale.catalog.json import Record, record, shape_of
from flashsale.lua.scripts import script
from flashsale.settings import CatalogSettings
from flashsale.storage.mysql import Database, Duplicate, unix_ms
from flashsale.storage.tables import blog, follow, user, user_info

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
        self.indexes = Indexes(
            cache, "feed", keys.feed, self._load, is_sorted=True, ttl_s=settings.follows_ttl_s
        )

    def __repr__(self) -> str:
        return f"<Feeds {self.indexes!r}>"

    async def scroll(self, user_id: int, last_ms: int, offset: int) -> Scroll | None:
        """The part after `offset` of those at `last_ms` or before; None where there is no more."""
        found = await self.indexes.ask(_PAGE, [user_id], last_ms, offset, SCROLL, 1)
        if found is None:
            members = page_of(await self.indexes.load(user_id), last_ms, offset)
        else:
            members = [IndexMember(*pair) for pair in zip(found[::2], found[1::2], strict=True)]
        return scroll_of(members, last_ms, offset) if members else None

    async def push(self, author: int, member: IndexMember) -> None:
        """Tell the feeds of followers of a new blog, once it is committed."""
        query = select(follow.c.user_id).where(follow.c.follow_user_id == author)
        latest = query.order_by(follow.c.id.desc()).limit(PUSHED)
        followers = await self._database.run(lambda c: list(c.execute(latest).scalars()))
        await self.indexes.push(followers, member, keep=KEPT)

    async def _load(self, user_id: int) -> list[IndexMember]:
        query = (
            select(blog.c.id, blog.c.create_time)
            .join(follow, follow.c.follow_user_id == blog.c.user_id)
            .where(follow.c.user_id == user_id)
            .order_by(blog.c.create_time.desc(), blog.c.id.desc())
            .limit(KEPT)
        )
        rows: Sequence[Any] = await self._database.run(lambda c: c.execute(query).all())
        return [IndexMember(row.id, unix_ms(row.create_time)) for row in rows]


def page_of(members: Iterable[IndexMember], last_ms: int, offset: int) -> list[IndexMember]:
    """What `index_page.lua` would have answered. Pure."""
    falling = sorted(members, key=lambda m: (m.score, str(m.id)), reverse=True)
    return [m for m in falling if m.score <= last_ms][offset : offset + SCROLL]


def scroll_of(members: Sequence[IndexMember], last_ms: int, offset: int) -> Scroll:
    """The part that shows `members`, after `offset` at `last_ms`. Pure."""
    min_ms = members[-1].score
    shown = sum(member.score == min_ms for member in members)
    return Scroll([m.id for m in members], min_ms, shown + offset * (min_ms == last_ms))


# People ------------------------------------------------------------------------------------------

_COMMON = script("index_common")
COMMON_MAX = 100
"""Users that two are shown to follow both."""

_SHOWN = (user.c.id, user.c.nick_name, user.c.icon)
_INFO = [c for c in user_info.c if c.name not in ("create_time", "update_time")]
CARD, INFO = shape_of(_SHOWN), shape_of(_INFO)
"""The shapes of a user as others see them."""


class FollowOutcome(Enum):
    """What became of a wish to follow somebody."""

    DONE = auto()
    ONESELF = auto()
    NOBODY = auto()
    TOO_MANY = auto()


class People:
    """All users. Calls may raise Unavailable or Indeterminate."""

    def __init__(
        self, database: Database, cache: CacheClient, feeds: Feeds, settings: CatalogSettings
    ) -> None:
        self._database = database
        self._feeds = feeds
        self._most = settings.follows_max
        self._cards = cache.entries(
            "user", self._load, strategy=Strategy.MUTEX, ttl_s=settings.list_ttl_s
        )
        self.follows = Indexes(
            cache,
            "follows",
            keys.follows,
            self._load_follows,
            is_sorted=False,
            ttl_s=settings.follows_ttl_s,
        )

    def __repr__(self) -> str:
        return f"<People {self._cards!r} {self.follows!r}>"

    async def card(self, user_id: int) -> Record | None:
        """Id, nickName and icon, as they are now."""
        return await self._load(user_id)

    async def cards(self, user_ids: Sequence[int]) -> list[Record]:
        """The same of several who are there, in this order."""
        found = await asyncio.gather(*(self._cards.read(each) for each in user_ids))
        return [answer.value for answer in found if answer.value is not None]

    async def info(self, user_id: int) -> Record | None:
        """City, introduce, fans, followee, gender and so on; None where nobody has told any."""
        query = select(*_INFO).where(user_info.c.user_id == user_id)
        row = await self._database.run(lambda connection: connection.execute(query).first())
        return None if row is None else record(row)

    async def does_follow(self, user_id: int, other: int) -> bool:
        """Whether one follows the other."""
        found = await self.follows.ask(_COMMON, [user_id], other)
        if found is None:
            found = [member.id for member in await self.follows.load(user_id)]
        return other in found

    async def common(self, user_id: int, other: int) -> list[Record]:
        """Whom both follow, up to COMMON_MAX of them, the lowest ids first."""
        found = await self.follows.ask(_COMMON, [user_id, other])
        if found is None:
            both = [await self.follows.load(each) for each in (user_id, other)]
            found = list({m.id for m in both[0]} & {m.id for m in both[1]})
        return await self.cards(sorted(found)[:COMMON_MAX])

    async def follow(self, user_id: int, other: int, *, follows: bool) -> FollowOutcome:
        """Follow somebody, or no longer; twice is once."""
        if user_id == other:
            return FollowOutcome.ONESELF

        def work(connection: Connection) -> FollowOutcome:
            if not follows:
                return _unfollow(connection, user_id, other)
            return _follow(connection, user_id, other, self._most)

        async def change() -> FollowOutcome:
            try:
                return await self._database.run(work)
            except Duplicate:  # the same twice at once
                return FollowOutcome.DONE

        async def forgotten() -> FollowOutcome:
            return await self._feeds.indexes.update([user_id], change)

        return await self.follows.update([user_id], forgotten)

    async def _load(self, user_id: int | str) -> Record | None:
        query = select(*_SHOWN).where(user.c.id == user_id)
        row = await self._database.run(lambda connection: connection.execute(query).first())
        return None if row is None else record(row)

    async def _load_follows(self, user_id: int) -> list[IndexMember]:
        query = select(follow.c.follow_user_id).where(follow.c.user_id == user_id)
        mine = query.order_by(follow.c.id).limit(self._most)
        found = await self._database.run(lambda c: list(c.execute(mine).scalars()))
        return [IndexMember(each) for each in found]


def _follow(connection: Connection, user_id: int, other: int, most: int) -> FollowOutcome:
    """Raises Duplicate, and so rolls back, where another request did the same meanwhile."""
    mine = (follow.c.user_id == user_id, follow.c.follow_user_id == other)
    if connection.execute(select(follow.c.id).where(*mine)).first() is not None:
        return FollowOutcome.DONE
    if connection.execute(select(user.c.id).where(user.c.id == other)).first() is None:
        return FollowOutcome.NOBODY
    held = select(func.count()).where(follow.c.user_id == user_id)
    if connection.execute(held).scalar_one() >= most:
        return FollowOutcome.TOO_MANY
    connection.execute(insert(follow).values(user_id=user_id, follow_user_id=other))
    for each, column in _both(user_id, other):
        counted = mysql_insert(user_info).values(**{"user_id": each, column: 1})
        more = {column: user_info.c[column] + 1}
        connection.execute(counted.on_duplicate_key_update(more))
    return FollowOutcome.DONE


def _unfollow(connection: Connection, user_id: int, other: int) -> FollowOutcome:
    mine = (follow.c.user_id == user_id, follow.c.follow_user_id == other)
    if connection.execute(delete(follow).where(*mine)).rowcount == 1:
        for each, column in _both(user_id, other):
            counted = user_info.c[column]
            less = update(user_info).where(user_info.c.user_id == each, counted > 0)
            connection.execute(less.values({column: counted - 1}))
    return FollowOutcome.DONE


def _both(user_id: int, other: int) -> list[tuple[int, str]]:
    """The counts of who follows and who is followed, in the one order in which rows are locked."""
    return sorted([(user_id, "followee"), (other, "fans")])
