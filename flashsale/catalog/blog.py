"""Blogs: the most liked ones, one by itself, somebody's, a new one; and liking.

Who likes what is in MySQL alone; the cache holds each blog, pages of ids, the first who like a blog
as a set sorted by time, and for every user who signs in and reads the list of what they like.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any

import structlog
from sqlalchemy import Connection, delete, func, insert, select, update

from flashsale import keys
from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Cached, Source
from flashsale.cache.strategies import Strategy
from flashsale.catalog.indexes import Indexes, IndexMember
from flashsale.catalog.json import (
    NewBlog,
    Page,
    Record,
    assemble,
    extended,
    record,
    shape_of,
    slowest,
)
from flashsale.catalog.people import Feeds, Scroll
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import script
from flashsale.settings import CatalogSettings
from flashsale.storage.mysql import Database, Duplicate, unix_ms
from flashsale.storage.tables import blog, blog_like, shop, user

log = structlog.get_logger(__name__)

_FIRST = script("index_page")
HOT_PAGE = OWN_PAGE = 10
FIRST_LIKES = 5
_LIKERS_KEPT = 100
_AUTHOR = (user.c.nick_name.label("name"), user.c.icon)
BLOG = shape_of(blog.c, _AUTHOR, isLike={"type": "boolean"})
_LIKES_MAX = 10_000  # of one user: the latest
_TRIES = 3


class NotWritten(Enum):
    """Why a blog was not taken."""

    NO_SHOP = auto()
    TOO_MANY = auto()


class Blogs:
    """All blogs. Calls may raise Unavailable or Indeterminate."""

    def __init__(
        self, database: Database, cache: CacheClient, feeds: Feeds, settings: CatalogSettings
    ) -> None:
        self._database = database
        self._cache = cache
        self._feeds = feeds
        self._most = settings.blogs_max
        self.ids = cache.bloom("blog")
        self.entries = cache.entries(
            "blog",
            self._load,
            strategy=Strategy.PASS_THROUGH,
            ttl_s=settings.shop_ttl_s,
            bloom=self.ids,
        )
        self._pages = cache.entries(
            "blog-hot", self._load_page, strategy=Strategy.LOGICAL, ttl_s=settings.list_ttl_s
        )
        self._likes = cache.entries(
            "blog-likes", self._load_likes, strategy=Strategy.MUTEX, ttl_s=settings.likes_ttl_s
        )
        self.likers = Indexes(
            cache,
            "liked",
            keys.blog_liked,
            self._load_likers,
            is_sorted=True,
            ttl_s=settings.likes_ttl_s,
        )

    def __repr__(self) -> str:
        return f"<Blogs {self.entries!r}>"

    async def read(self, blog_id: int, user_id: int | None = None) -> tuple[bytes | None, Source]:
        """One blog, None where there is none; with `isLike` where the reader is known."""
        answer, (likes, source) = await asyncio.gather(
            self.entries.read(blog_id), self._likes_of(user_id)
        )
        if answer.body is None or likes is None:
            return answer.body, answer.source
        return extended(answer.body, isLike=blog_id in likes), slowest([answer.source, source])

    async def hot(self, number: int, user_id: int | None = None) -> Page:
        """A page of the most liked blogs; the order may lag, the blogs themselves do not."""
        page = await self._pages.read(number)
        return await self._shown(page.value or [], page.source, user_id)

    async def written_by(self, author: int, number: int, user_id: int) -> Page:
        """A page of somebody's blogs, the newest first, as they are in MySQL now."""
        newest = select(blog.c.id).where(blog.c.user_id == author)
        falling = newest.order_by(blog.c.create_time.desc(), blog.c.id.desc())
        page = falling.offset((number - 1) * OWN_PAGE).limit(OWN_PAGE)
        ids = await self._database.run(lambda c: list(c.execute(page).scalars()))
        return await self._shown(ids, Source.LOAD, user_id)

    async def followed(self, user_id: int, last_ms: int, offset: int) -> tuple[Page, Scroll] | None:
        """What those whom the user follows have written, up to a time; None at the end."""
        scroll = await self._feeds.scroll(user_id, last_ms, offset)
        if scroll is None:
            return None
        return await self._shown(scroll.blog_ids, Source.HIT, user_id), scroll

    async def first_likers(self, blog_id: int) -> list[int]:
        """The ids of those who liked it first."""
        found = await self.likers.ask(_FIRST, [blog_id], "+inf", 0, FIRST_LIKES, 0)
        if found is None:
            return [member.id for member in (await self.likers.load(blog_id))[:FIRST_LIKES]]
        return list(found[::2])

    async def create(self, author: int, new: NewBlog) -> int | NotWritten:
        """The id of a new blog. Runs to its end even if the caller goes away."""
        return await asyncio.shield(self._cache.start(self._create(author, new)))

    async def like(self, blog_id: int, user_id: int) -> bool:
        """Like a blog, or no longer; False where there is none. Runs to its end."""

        async def toggle() -> bool:
            return await self.entries.update([blog_id], lambda: self._toggle(blog_id, user_id))

        async def ordered() -> bool:
            return await self._likes.update([user_id], toggle)

        return await self.likers.update([blog_id], ordered)

    async def warm(self) -> int:
        """Put the first page into the cache for good; how many entries that were."""
        return await self._pages.warm([1])

    async def _toggle(self, blog_id: int, user_id: int) -> bool:
        for _ in range(_TRIES):
            try:
                return await self._database.run(lambda c: _toggle(c, blog_id, user_id))
            except Duplicate:  # the same user twice at once: the other one liked, so this undoes it
                continue
        raise Unavailable("a blog is being liked too often at once")

    async def _create(self, author: int, new: NewBlog) -> int | NotWritten:
        loop = asyncio.get_running_loop()
        made: list[IndexMember] = []

        def work(connection: Connection) -> int | NotWritten:
            found = _write(connection, author, new, self._most)
            if isinstance(found, IndexMember):
                made.append(found)
                self.ids.add_from_thread([found.id], loop)  # or it would be denied once it is there
                return found.id
            return found

        try:
            return await self._database.run(work)
        finally:  # also where the COMMIT's answer was lost
            for member in made:
                await self._created(author, member)

    async def _created(self, author: int, member: IndexMember) -> None:
        await self.entries.invalidate(member.id)  # somebody may have asked for it too early
        with suppress(Unavailable):  # once more, for a filter that was rebuilt in between
            await self.ids.add([member.id])
        try:
            await self._feeds.push(author, member)
        except (Unavailable, Indeterminate) as trouble:
            log.warning("feeds were not told of a blog", blog=member.id, trouble=str(trouble))

    async def _shown(self, ids: Sequence[int], source: Source, user_id: int | None) -> Page:
        """Those of the blogs that are there, each with `isLike` where the reader is known."""
        answers, (likes, likes_source) = await asyncio.gather(
            asyncio.gather(*(self.entries.read(blog_id) for blog_id in ids)),
            self._likes_of(user_id),
        )
        shown = [
            answer.body if likes is None else extended(answer.body, isLike=blog_id in likes)
            for blog_id, answer in zip(ids, answers, strict=True)
            if answer.body is not None
        ]
        return assemble(shown, [source, likes_source, *(answer.source for answer in answers)])

    async def _likes_of(self, user_id: int | None) -> tuple[frozenset[int] | None, Source]:
        if user_id is None:
            return None, Source.HIT
        answer: Cached[list[int]] = await self._likes.read(user_id)
        return frozenset(answer.value or []), answer.source

    async def _load(self, blog_id: int | str) -> Record | None:
        query = (
            select(blog, *_AUTHOR)
            .select_from(blog.outerjoin(user, user.c.id == blog.c.user_id))
            .where(blog.c.id == blog_id)
        )
        row = await self._database.run(lambda connection: connection.execute(query).first())
        return None if row is None else record(row)

    async def _load_page(self, number: int | str) -> list[int] | None:
        start = (int(number) - 1) * HOT_PAGE
        by_likes = select(blog.c.id).order_by(blog.c.liked.desc(), blog.c.id)
        query = by_likes.offset(start).limit(HOT_PAGE)
        return await self._database.run(lambda c: list(c.execute(query).scalars()))

    async def _load_likes(self, user_id: int | str) -> list[int] | None:
        query = select(blog_like.c.blog_id).where(blog_like.c.user_id == user_id)
        latest = query.order_by(blog_like.c.create_time.desc()).limit(_LIKES_MAX)
        return await self._database.run(lambda c: list(c.execute(latest).scalars()))

    async def _load_likers(self, blog_id: int) -> list[IndexMember]:
        query = select(blog_like.c.user_id, blog_like.c.create_time)
        first = query.where(blog_like.c.blog_id == blog_id).order_by(
            blog_like.c.create_time, blog_like.c.user_id
        )
        rows: Sequence[Any] = await self._database.run(
            lambda c: c.execute(first.limit(_LIKERS_KEPT)).all()
        )
        return [IndexMember(row.user_id, unix_ms(row.create_time)) for row in rows]


def _write(
    connection: Connection, author: int, new: NewBlog, most: int
) -> IndexMember | NotWritten:
    if connection.execute(select(shop.c.id).where(shop.c.id == new.shop_id)).first() is None:
        return NotWritten.NO_SHOP
    held = select(func.count()).where(blog.c.user_id == author)
    if connection.execute(held).scalar_one() >= most:
        return NotWritten.TOO_MANY
    blog_id = connection.execute(insert(blog).values(user_id=author, **new.model_dump())).lastrowid
    at = select(blog.c.create_time).where(blog.c.id == blog_id)
    return IndexMember(blog_id, unix_ms(connection.execute(at).scalar_one()))


def _toggle(connection: Connection, blog_id: int, user_id: int) -> bool:
    """Move the like and the blog's count of likes together; False where there is no such blog.

    Raises Duplicate, and so rolls back, where the same user did the same thing meanwhile.
    """
    mine = (blog_like.c.user_id == user_id, blog_like.c.blog_id == blog_id)
    likes = connection.execute(select(blog_like.c.user_id).where(*mine)).first() is not None
    counted = connection.execute(
        update(blog).where(blog.c.id == blog_id).values(liked=blog.c.liked + (-1 if likes else 1))
    )
    if counted.rowcount != 1:
        return False
    if not likes:
        connection.execute(insert(blog_like).values(user_id=user_id, blog_id=blog_id))
    elif connection.execute(delete(blog_like).where(*mine)).rowcount != 1:
        raise Duplicate("the like was taken back at the same time")
    return True
