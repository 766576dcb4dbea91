"""Strategy 2: a warmed entry never goes; an expired one is answered while it is rebuilt."""

import asyncio

import orjson
import pytest
from redis import Redis
from rig.until import eventually
from rig.versions import NoDatabase, Versions, client, kind, version_of

from flashsale import keys
from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Source, pack
from flashsale.cache.strategies import Entries, Strategy

pytestmark = pytest.mark.anyio

KEY = keys.cache_entry("thing", 1)
LOCK = keys.cache_lock("thing", 1)


def hot(cache: CacheClient, shelf: Versions, ttl_s: float = 60) -> Entries[dict[str, int]]:
    return kind(cache, shelf, Strategy.LOGICAL, ttl_s=ttl_s)


def expire(cache: Redis, version: int = 1) -> None:
    cache.set(KEY, pack(b'{"id":1,"version":%d}' % version, 1))


async def test_a_warmed_entry_has_no_end_but_a_time(cache_url: str, cache: Redis) -> None:
    async with client(cache_url) as mine:
        things = hot(mine, Versions(1, 2, 3))
        assert await things.warm([1, 2, 3, 4]) == 3, "4 does not exist"
        assert cache.pttl(KEY) == -1
        assert orjson.loads(str(cache.get(KEY)))["expireTime"] > 1_600_000_000_000
        assert (await things.read(1)).source is Source.HIT
        assert not cache.exists(LOCK)
        assert await things.warm([1, 2, 3]) == 3, "again is no harm"


async def test_only_logical_expiry_is_warmed(cache_url: str) -> None:
    async with client(cache_url) as mine:
        with pytest.raises(ValueError, match="only logical"):
            await kind(mine, Versions(1)).warm([1])


async def test_500_readers_of_an_expired_entry_wait_for_nobody(
    cache_url: str, cache: Redis
) -> None:
    shelf = Versions(1)
    shelf.versions[1] = 2
    expire(cache)
    shelf.hold()
    async with client(cache_url) as mine, client(cache_url) as other:
        things, others = hot(mine, shelf), hot(other, shelf)
        answers = await asyncio.gather(
            *(each.read(1) for each in (things, others) for _ in range(250))
        )
        assert {answer.source for answer in answers} == {Source.STALE}
        assert {answer.value and answer.value["version"] for answer in answers} == {1}
        await shelf.read.wait()
        shelf.open.set()

        async def rebuilt() -> bool:
            return (await things.read(1)).source is Source.HIT

        await eventually(rebuilt)
        assert await version_of(things, 1) == 2
        assert shelf.loads == 1, "one rebuild in two processes"
        assert cache.pttl(KEY) == -1


async def test_a_rebuild_survives_the_request_that_began_it(cache_url: str, cache: Redis) -> None:
    shelf = Versions(1)
    shelf.versions[1] = 2
    expire(cache)
    shelf.hold()
    async with client(cache_url) as mine:
        things = hot(mine, shelf)

        async def request() -> None:
            await things.read(1)
            await asyncio.sleep(60)

        caller = asyncio.create_task(request())
        await shelf.read.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        shelf.open.set()
        await eventually(lambda: b'"version":2' in str(cache.get(KEY)).encode())


async def test_an_update_marks_expired_and_ends_a_rebuild_that_read_before_it(
    cache_url: str, cache: Redis
) -> None:
    shelf = Versions(1)
    shelf.versions[1] = 2
    expire(cache)
    shelf.hold()
    async with client(cache_url) as mine:
        things = hot(mine, shelf)
        assert (await things.read(1)).source is Source.STALE
        await shelf.read.wait()  # the rebuild has read version 2
        assert await things.update([1], shelf.write(1)) == 3
        shelf.open.set()
        await eventually(lambda: things.loading.refused_fills == 1)
        answer = await things.read(1)
        assert answer.source is Source.STALE, "older data, and it says so"

        async def fresh() -> bool:
            seen = await things.read(1)
            assert seen.source in (Source.STALE, Source.HIT)
            if seen.source is Source.HIT:
                assert seen.value == {"id": 1, "version": 3}
            return seen.source is Source.HIT

        await eventually(fresh)


async def test_an_update_keeps_a_warmed_entry(cache_url: str, cache: Redis) -> None:
    shelf = Versions(1)
    async with client(cache_url) as mine:
        things = hot(mine, shelf)
        await things.warm([1])
        await things.update([1], shelf.write(1))
        assert orjson.loads(str(cache.get(KEY))) == {
            "expireTime": 1,
            "data": {"id": 1, "version": 1},
        }
        assert cache.pttl(KEY) == -1
        assert (await things.read(1)).source is Source.STALE


async def test_warming_cannot_put_back_what_an_update_replaced(cache_url: str) -> None:
    shelf = Versions(1)
    shelf.hold()
    async with client(cache_url) as mine:
        things = hot(mine, shelf)
        warming = asyncio.create_task(things.warm([1]))
        await shelf.read.wait()  # version 1
        await things.update([1], shelf.write(1))
        shelf.open.set()
        assert await warming == 1
        assert things.loading.refused_fills == 1
        answer = await things.read(1)
        assert (answer.source, answer.value) == (Source.HIT, {"id": 1, "version": 2})


async def test_without_a_database_the_old_answer_stays(cache_url: str, cache: Redis) -> None:
    shelf = Versions(1)
    shelf.failure = NoDatabase("away")
    expire(cache)
    async with client(cache_url, rebuild_pause_ms=200) as mine:
        things = hot(mine, shelf)
        for _ in range(20):
            assert (await things.read(1)).source is Source.STALE
            await asyncio.sleep(0.002)
        assert (shelf.loads, things.rebuild_failures) == (1, 1), "a key whose rebuild failed rests"
        shelf.failure = None

        async def rebuilt() -> bool:
            return (await things.read(1)).source is Source.HIT

        await eventually(rebuilt)


async def test_a_row_that_was_deleted_falls_out_of_the_hot_set(
    cache_url: str, cache: Redis
) -> None:
    expire(cache)
    async with client(cache_url) as mine:
        things = hot(mine, Versions())
        assert (await things.read(1)).source is Source.STALE

        async def gone() -> bool:
            return (await things.read(1)).source is Source.NULL

        await eventually(gone)
        assert int(str(cache.pttl(KEY))) > 0


async def test_what_was_not_warmed_is_read_as_under_mutex(cache_url: str, cache: Redis) -> None:
    shelf = Versions(1)
    async with client(cache_url) as mine:
        things = hot(mine, shelf)
        answers = await asyncio.gather(*(things.read(1) for _ in range(300)))
        assert shelf.loads == 1
        assert {answer.source for answer in answers} <= {Source.LOAD, Source.WAIT, Source.HIT}
        assert int(str(cache.pttl(KEY))) > 0


async def test_a_miss_that_meets_an_expired_entry_leaves_it_hot(
    cache_url: str, cache: Redis
) -> None:
    """Warmed, then updated, between a reader's look-up and its claim."""
    shelf = Versions(1)
    async with client(cache_url) as mine:
        things = hot(mine, shelf)
        ask = mine.ask

        async def late(call: object) -> object:
            expire(cache)
            things.loading._ask = ask
            return await ask(call)  # type: ignore[arg-type]

        things.loading._ask = late
        assert (await things.read(1)).source is Source.STALE
        await eventually(lambda: things.loading.fills == 1)
        assert cache.pttl(KEY) == -1


async def test_rebuilds_at_a_time_are_bounded(cache_url: str, cache: Redis) -> None:
    shelf = Versions(*range(1, 51))
    for each in range(1, 51):
        cache.set(keys.cache_entry("thing", each), pack(b'{"id":1,"version":1}', 1))
    shelf.hold()
    async with client(cache_url, rebuilds_max=5) as mine:
        things = hot(mine, shelf)
        answers = await asyncio.gather(*(things.read(each) for each in range(1, 51)))
        assert {answer.source for answer in answers} == {Source.STALE}
        await shelf.read.wait()
        await asyncio.sleep(0.02)
        assert shelf.loads == 5
        shelf.open.set()
