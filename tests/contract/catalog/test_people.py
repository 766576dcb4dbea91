"""Follows, feeds and the first who like, on real stores: in the family's own structures, which
MySQL can make again."""

import asyncio
from collections.abc import Iterable

import pytest
from redis import Redis
from rig.child import free_port
from rig.shops import Open, ShopStores
from rig.shops import ids as ids_on

from flashsale import keys
from flashsale.catalog.blog import NotWritten
from flashsale.catalog.indexes import IndexMember
from flashsale.catalog.json import NewBlog
from flashsale.catalog.people import FollowOutcome
from flashsale.catalog.storefront import Storefront

pytestmark = pytest.mark.anyio
FAR_MS = 10**15


@pytest.fixture(autouse=True)
def _people(stored: ShopStores) -> None:
    for user in range(2, 10):
        stored.sql(
            "INSERT INTO tb_user (id, phone, nick_name) VALUES (:id, :phone, :name)",
            id=user,
            phone=str(user),
            name=f"u{user}",
        )


def blog(title: str = "t") -> NewBlog:
    return NewBlog(shopId=1, title=title, content="c")


async def follow(front: Storefront, user: int, *others: int, follows: bool = True) -> None:
    for other in others:
        assert await front.people.follow(user, other, follows=follows) is FollowOutcome.DONE


async def feed(front: Storefront, user: int) -> list[int]:
    shown: list[int] = []
    last_ms, offset = FAR_MS, 0
    while found := await front.blogs.followed(user, last_ms, offset):
        page, scroll = found
        assert ids_on(page) == list(scroll.blog_ids)
        shown += scroll.blog_ids
        last_ms, offset = scroll.min_ms, scroll.offset
    return shown


def ids(people: Iterable[dict[str, object]]) -> list[object]:
    return [one["id"] for one in people]


async def test_a_follow_its_set_its_counts_and_its_end(
    stored: ShopStores, cache: Redis, open_front: Open
) -> None:
    async with open_front() as front, open_front() as other:
        for expected in (True, False, True):
            for _ in range(2):  # twice is once
                await follow(front, 7, 3, follows=expected)
            for reader in (front, other):
                assert await reader.people.does_follow(7, 3) is expected
            assert cache.smembers(keys.follows(7)[0]) == ({"0", "3"} if expected else {"0"})
            assert cache.ttl(keys.follows(7)[0]) > 0
            counts = "SELECT user_id, fans, followee FROM tb_user_info ORDER BY user_id"
            assert stored.sql(counts) == [(3, int(expected), 0), (7, 0, int(expected))]
        assert not await front.people.does_follow(3, 7)
        info = await front.people.info(3)
        assert info is not None
        assert (info["fans"], info["userId"], info["gender"], info["city"]) == (1, 3, 0, "")
        assert await front.people.info(9) is None


async def test_whom_two_follow(cache: Redis, open_front: Open) -> None:
    async with open_front() as front:
        await follow(front, 7, 1, 2, 3, 4)
        await follow(front, 8, 9, 4, 2, 7)
        for _ in range(2):
            common = await front.people.common(7, 8)
            assert ids(common) == [2, 4]
            assert common[0] == {"id": 2, "nickName": "u2", "icon": ""}
            cache.delete(keys.follows(8)[0])  # evicted: it is made again, not taken for empty
        assert await front.people.common(7, 5) == []


async def test_whom_nobody_can_follow(stored: ShopStores, open_front: Open) -> None:
    async with open_front(follows_max=2) as front:
        assert await front.people.follow(7, 7, follows=True) is FollowOutcome.ONESELF
        assert await front.people.follow(7, 99, follows=True) is FollowOutcome.NOBODY
        await follow(front, 7, 1, 2)
        assert await front.people.follow(7, 3, follows=True) is FollowOutcome.TOO_MANY
        await follow(front, 7, 1, follows=False)
        await follow(front, 7, 3)
    assert stored.sql("SELECT COUNT(*) FROM tb_follow") == [(2,)]


async def test_the_same_follow_many_times_at_once(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front, open_front() as other:
        asked = [one.people.follow(7, 3, follows=True) for _ in range(6) for one in (front, other)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert FollowOutcome.DONE in done
        assert await other.people.does_follow(7, 3)
    assert stored.sql("SELECT fans FROM tb_user_info WHERE user_id = 3") == [(1,)]
    assert stored.sql("SELECT COUNT(*) FROM tb_follow") == [(1,)]


async def test_a_feed_has_what_is_written_by_those_who_are_followed(
    stored: ShopStores, cache: Redis, open_front: Open
) -> None:
    async with open_front() as front, open_front() as other:
        await follow(front, 7, 2, 3)
        assert await feed(other, 7) == []
        assert cache.zrange(keys.feed(7)[0], 0, -1) == ["0"]
        written = [await front.blogs.create(2 + n % 2, blog()) for n in range(23)]
        await front.blogs.create(4, blog("of a stranger"))
        assert cache.zcard(keys.feed(7)[0]) == 24, "each was pushed into the feed that was there"
        expected = sorted(written, key=str)
        assert sorted(await feed(other, 7), key=str) == expected
        cache.delete(keys.feed(7)[0])
        assert sorted(await feed(other, 7), key=str) == expected, "made again from MySQL"
        await follow(front, 7, 3, follows=False)
        assert sorted(await feed(other, 7), key=str) == sorted(written[::2], key=str)
        assert ids_on(await other.blogs.written_by(2, 1, 7)) == sorted(written[::2])[::-1][:10]  # type: ignore[type-var]
        assert len(ids_on(await other.blogs.written_by(2, 2, 7))) == 2


async def test_a_feed_keeps_the_newest(cache: Redis, open_front: Open) -> None:
    async with open_front() as front:
        await follow(front, 7, 2)
        assert await feed(front, 7) == []
        for blog_id in range(1, 6):
            await front.feeds.indexes.push([7, 8], IndexMember(blog_id, 100 + blog_id), keep=3)
        assert cache.zrange(keys.feed(7)[0], 0, -1) == ["0", "3", "4", "5"]
        assert not cache.exists(keys.feed(8)[0]), "one that is not there is not begun"


async def test_what_was_read_before_a_blog_never_takes_its_place(
    cache: Redis, open_front: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_front() as front, open_front() as other:
        await follow(front, 7, 2)
        read, go_on = asyncio.Event(), asyncio.Event()
        load = front.feeds.indexes._load

        async def slow(user: int) -> object:
            found = await load(user)
            read.set()
            await go_on.wait()
            return found

        monkeypatch.setattr(front.feeds.indexes, "_load", slow)
        reading = asyncio.ensure_future(feed(front, 7))
        await asyncio.wait_for(read.wait(), 5)
        written = await other.blogs.create(2, blog())
        go_on.set()
        assert await reading == [written]
        assert cache.zrange(keys.feed(7)[0], 0, -1) == ["0", str(written)]


async def test_the_first_who_like(stored: ShopStores, cache: Redis, open_front: Open) -> None:
    async with open_front() as front, open_front() as other:
        assert await front.blogs.first_likers(3) == []
        for user in (9, 4, 6, 2, 8, 5, 7):
            await front.blogs.like(3, user)
            await asyncio.sleep(0.002)  # by when, to the millisecond
        assert await other.blogs.first_likers(3) == [9, 4, 6, 2, 8]
        await front.blogs.like(3, 4)
        assert await other.blogs.first_likers(3) == [9, 6, 2, 8, 5]
        assert cache.zrange(keys.blog_liked(3)[0], 0, 2) == ["0", "9", "6"]
        assert ids(await other.people.cards([9, 6, 99])) == [9, 6]


async def test_a_blog_is_written_whole_or_not_at_all(stored: ShopStores, open_front: Open) -> None:
    async with open_front(blogs_max=2) as front:
        await front.warming.run()
        pictured = NewBlog(shopId=2, title="t", content="c", images="/imgs/blogs/7/a.jpg")
        made = await front.blogs.create(7, pictured)
        assert isinstance(made, int)
        body, _ = await front.blogs.read(made, 7)
        assert body is not None, "the filter knows it"
        assert b'"images":"/imgs/blogs/7/a.jpg"' in body
        nowhere = NewBlog(shopId=99, title="t", content="c")
        assert await front.blogs.create(7, nowhere) is NotWritten.NO_SHOP
        assert isinstance(await front.blogs.create(7, blog()), int)
        assert await front.blogs.create(7, blog()) is NotWritten.TOO_MANY
    assert stored.sql("SELECT COUNT(*) FROM tb_blog WHERE user_id = 7") == [(2,)]


async def test_without_a_cache_mysql_answers(stored: ShopStores, open_front: Open) -> None:
    with free_port() as port:
        async with open_front(cache_url=f"redis://127.0.0.1:{port}/0") as front:
            await follow(front, 7, 2, 3)
            await follow(front, 8, 3)
            assert await front.people.does_follow(7, 3)
            assert ids(await front.people.common(7, 8)) == [3]
            stored.sql("UPDATE tb_blog SET user_id = 3 WHERE id IN (4, 5)")
            assert await feed(front, 7) == [5, 4]
            await front.blogs.like(4, 7)
            assert await front.blogs.first_likers(4) == [7]
