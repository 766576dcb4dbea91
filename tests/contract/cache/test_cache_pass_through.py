"""Strategy 3: the Bloom filter first, then the cache, then the database; absence is remembered."""

import asyncio

import pytest
from redis import Redis
from rig.until import eventually
from rig.versions import Versions, client, kind

from flashsale import keys
from flashsale.cache.entry import Source, pack
from flashsale.cache.strategies import Strategy

pytestmark = pytest.mark.anyio


async def test_unknown_ids_never_reach_the_database(cache_url: str) -> None:
    known = range(1, 2001)
    shelf = Versions(*known)
    async with client(cache_url) as mine:
        things = kind(mine, shelf, Strategy.PASS_THROUGH)
        await mine.bloom("thing").rebuild([known], expected=2000)
        unknown = range(1_000_000, 1_010_000)
        answers = await asyncio.gather(*(things.read(each) for each in unknown))
        rejected = sum(answer.source is Source.BLOOM for answer in answers)
        assert all(answer.value is None for answer in answers)
        assert shelf.loads == 10_000 - rejected < 100, "less than 1 % pass"
        assert (await things.read(7)).value == {"id": 7, "version": 1}
        assert (await things.read(7)).source is Source.HIT


async def test_without_a_filter_everything_passes(cache_url: str) -> None:
    shelf = Versions(1)
    async with client(cache_url) as mine:
        things = kind(mine, shelf, Strategy.PASS_THROUGH)
        assert (await things.read(1)).source is Source.LOAD
        assert (await things.read(2)).source is Source.LOAD
        assert (await things.read(2)).source is Source.NULL


async def test_a_false_positive_is_loaded_once_and_remembered_two_minutes(
    cache_url: str, cache: Redis
) -> None:
    shelf = Versions()
    async with client(cache_url) as mine:
        things = kind(mine, shelf, Strategy.PASS_THROUGH)
        await mine.bloom("thing").rebuild([[5]], expected=1)
        sources = [(await things.read(5)).source for _ in range(3)]
        assert sources == [Source.LOAD, Source.NULL, Source.NULL]
        assert shelf.loads == 1
        assert 107_000 < int(str(cache.pttl(keys.cache_entry("thing", 5)))) <= 132_000


async def test_an_entry_outranks_the_filter(cache_url: str, cache: Redis) -> None:
    async with client(cache_url) as mine:
        things = kind(mine, Versions(), Strategy.PASS_THROUGH)
        await mine.bloom("thing").rebuild([[1]], expected=1)
        cache.set(keys.cache_entry("thing", 9), pack(b'{"id":9,"version":1}'))
        assert (await things.read(9)).source is Source.HIT


async def test_nobody_waits_for_another_process(cache_url: str, cache: Redis) -> None:
    shelf = Versions(1)
    cache.set(keys.cache_lock("thing", 1), "another", px=60_000)
    async with client(cache_url) as mine:
        things = kind(mine, shelf, Strategy.PASS_THROUGH)
        answers = await asyncio.gather(*(things.read(1) for _ in range(100)))
        assert {answer.body for answer in answers} == {b'{"id":1,"version":1}'}
        assert shelf.loads == 1, "and still one load in a process"
        assert not cache.exists(keys.cache_entry("thing", 1))


async def test_an_update_ends_a_load_under_way(cache_url: str) -> None:
    shelf = Versions(1)
    shelf.hold()
    async with client(cache_url) as mine:
        things = kind(mine, shelf, Strategy.PASS_THROUGH)
        early = asyncio.create_task(things.read(1))
        await shelf.read.wait()
        await things.update([1], shelf.write(1))
        late = asyncio.create_task(things.read(1))
        await eventually(lambda: mine.calls.reads.items == 2)
        shelf.open.set()
        await early
        assert (await late).value == {"id": 1, "version": 2}


async def test_a_damaged_filter_lets_everything_pass(cache_url: str, cache: Redis) -> None:
    async with client(cache_url) as mine:
        things = kind(mine, Versions(1), Strategy.PASS_THROUGH)
        await mine.bloom("thing").rebuild([[2]], expected=1)
        assert (await things.read(1)).source is Source.BLOOM
        _, *slots = keys.bloom("thing")
        cache.delete(*slots)
        assert (await things.read(1)).source is Source.LOAD
        cache.delete(keys.bloom("thing")[0])
        cache.set(keys.bloom("thing")[0], "of another type")
        assert (await things.read(3)).source is Source.LOAD, "trouble means unknown"
        assert mine.calls.breaker.opened == 0, "and the cache is not away for it"


async def test_pass_through_needs_a_filter(cache_url: str) -> None:
    async with client(cache_url) as mine:
        with pytest.raises(ValueError, match="needs a Bloom filter"):
            kind(mine, Versions(), Strategy.PASS_THROUGH, bloom=None)
        with pytest.raises(ValueError, match="taken"):
            mine.entries("order", Versions().load, strategy=Strategy.MUTEX, ttl_s=1)
