"""Blogs: the most liked ones, one by itself, and liking.

Who likes what is in MySQL alone; the cache holds each blog, pages of ids, and for every user who
signs in and reads the list of what they like.
"""

import asyncio

from sqlalchemy import Connection, delete, insert, select, update

from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Cached, Source
from flashsale.cache.strategies import Strategy
from flashsale.catalog.page import Page, Record, assemble, extended, record, shape_of, slowest
from flashsale.errors import Unavailable
from flashsale.settings import CatalogSettings
from flashsale.storage.mysql import Database, Duplicate
from flashsale.storage.tables import blog, blog_like, user

HOT_PAGE = 10
_AUTHOR = (user.c.nick_name.label("name"), user.c.icon)
BLOG = shape_of(blog.c, _AUTHOR, isLike={"type": "boolean"})
_LIKES_MAX = 10_000  # of one user: the latest
_TRIES = 3


class Blogs:
    """All blogs. Calls may raise Unavailable or Indeterminate."""

    def __init__(self, database: Database, cache: CacheClient, settings: CatalogSettings) -> None:
        self._database = database
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
        page, (likes, likes_source) = await asyncio.gather(
            self._pages.read(number), self._likes_of(user_id)
        )
        ids = page.value or []
        answers = await asyncio.gather(*(self.entries.read(blog_id) for blog_id in ids))
        shown = [
            answer.body if likes is None else extended(answer.body, isLike=blog_id in likes)
            for blog_id, answer in zip(ids, answers, strict=True)
            if answer.body is not None
        ]
        sources = [page.source, likes_source, *(answer.source for answer in answers)]
        return assemble(shown, sources)

    async def like(self, blog_id: int, user_id: int) -> bool:
        """Like a blog, or no longer; False where there is none. Runs to its end."""

        async def toggle() -> bool:
            return await self.entries.update([blog_id], lambda: self._toggle(blog_id, user_id))

        return await self._likes.update([user_id], toggle)

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
