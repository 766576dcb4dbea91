"""Blogs on real stores: the most liked first, likes counted once a user."""

import asyncio
import json

import pytest
from rig.shops import Open, ShopStores, ids

from flashsale.cache.entry import Source

pytestmark = pytest.mark.anyio


def counts(stored: ShopStores, blog_id: int) -> tuple[int, int]:
    """The blog's own count, and the likes that there are."""
    [(liked,)] = stored.sql("SELECT liked FROM tb_blog WHERE id = :id", id=blog_id)
    [(likes,)] = stored.sql("SELECT COUNT(*) FROM tb_blog_like WHERE blog_id = :id", id=blog_id)
    return liked, likes


async def test_the_most_liked_come_first(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        pages = [ids(await front.blogs.hot(number)) for number in (1, 2, 3)]
        assert pages == [[13, 12, 11, 10, 9, 8, 7, 6, 5, 4], [3, 2, 1], []]


async def test_a_blog_with_its_author(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        body, source = await front.blogs.read(3)
        assert body is not None
        blog = json.loads(body)
        assert (blog["id"], blog["liked"], blog["name"], blog["icon"]) == (3, 300, "Ann", "/a.jpg")
        assert "isLike" not in blog
        assert source is Source.LOAD
        assert (await front.blogs.read(3))[1] is Source.HIT


async def test_a_like_and_its_end(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front, open_front() as other:
        for expected in (True, False, True):
            assert await front.blogs.like(3, 7)
            for reader in (front, other):
                body, _ = await reader.blogs.read(3, 7)
                assert body is not None
                blog = json.loads(body)
                assert (blog["isLike"], blog["liked"]) == (expected, 300 + expected)
                page = json.loads((await reader.blogs.hot(2, 7)).body)
                assert [one["isLike"] for one in page] == [expected, False, False]
            assert counts(stored, 3) == (300 + expected, expected)
        strangers, _ = await other.blogs.read(3, 8)
        assert strangers is not None
        assert json.loads(strangers)["isLike"] is False


async def test_a_user_who_taps_wildly_counts_once_at_most(
    stored: ShopStores, open_front: Open
) -> None:
    async with open_front() as front, open_front() as other:
        taps = [one.blogs.like(3, 7) for _ in range(5) for one in (front, other)]
        done = await asyncio.gather(*taps, return_exceptions=True)
        assert any(answer is True for answer in done)
        liked, likes = counts(stored, 3)
        assert (liked - 300, likes) in ((0, 0), (1, 1))


async def test_many_users_at_once(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert all(await asyncio.gather(*(front.blogs.like(3, user) for user in range(1, 31))))
        assert counts(stored, 3) == (330, 30)


async def test_no_such_blog(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert not await front.blogs.like(99, 7)
        assert (await front.blogs.read(99, 7))[0] is None
        await front.warming.run()
        assert (await front.blogs.read(12_345))[1] is Source.BLOOM
    assert stored.sql("SELECT COUNT(*) FROM tb_blog_like") == [(0,)]
