"""The Bloom filter on a real Redis: it never says "no" to an id that exists."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from redis import Redis
from rig.until import eventually
from rig.versions import client

from flashsale import keys
from flashsale.cache.bloom import Bitmap, Bloom, Shape
from flashsale.cache.client import CacheClient
from flashsale.errors import Unavailable
from flashsale.settings import BloomSettings, CacheSettings
from flashsale.stack.redis import RedisServer

pytestmark = pytest.mark.anyio

META, *SLOTS = keys.bloom("thing")
FILL = keys.bloom_fill("thing")
BIG = 2**63 - 1


@pytest.fixture
async def mine(cache_url: str) -> AsyncIterator[CacheClient]:
    async with client(cache_url) as made:
        yield made


@pytest.fixture
def bloom(mine: CacheClient) -> Bloom:
    return mine.bloom("thing")


class TestCheck:
    async def test_known_and_unknown(self, bloom: Bloom) -> None:
        known = [1, 2, 2**53 + 1, BIG, "all", "café"]
        assert await bloom.rebuild([known], expected=10) == 6
        assert await bloom.check(known) == [True] * 6
        assert await bloom.check([3, 2**53, 2**53 + 2, "none"]) == [False] * 4
        assert await bloom.check(["1"]) == [True], "a number and its text are one id"
        assert await bloom.check([]) == []

    async def test_no_filter_means_unknown(self, bloom: Bloom) -> None:
        assert await bloom.check([1, 2]) == [None, None]
        assert not await bloom.present()
        assert await bloom.measure() is None
        await bloom.add([1])
        assert not await bloom.present(), "adding to no filter makes none"

    @pytest.mark.parametrize("damage", ["delete", "cut", "meta"])
    async def test_a_damaged_filter_means_unknown(
        self, bloom: Bloom, cache: Redis, damage: str
    ) -> None:
        await bloom.rebuild([[1]], expected=1)
        if damage == "delete":
            cache.delete(*SLOTS)
        elif damage == "cut":
            cache.set(SLOTS[0], b"\xff")
        else:
            cache.delete(META)
        assert await bloom.check([1, 2]) == [None, None]
        await bloom.add([3])
        assert await bloom.check([1, 2, 3]) == [None] * 3, "not a new filter of one id"
        await bloom.rebuild([[1]], expected=1)
        assert await bloom.check([1, 2]) == [True, False]

    async def test_python_and_lua_set_the_same_bits(self, bloom: Bloom, cache_url: str) -> None:
        rng = random.Random(7)
        ids = [rng.randrange(1, BIG) for _ in range(2000)]
        await bloom.rebuild([[]], expected=2000)
        await bloom.add(ids)
        bitmap = Bitmap(Shape.sized(10_000, 0.01))
        bitmap.add(ids)
        with Redis.from_url(cache_url, protocol=2) as raw:
            assert raw.get(SLOTS[0]) == bytes(bitmap.data)

    async def test_no_cache_is_said_so(self) -> None:
        async with client("redis://127.0.0.1:1/0") as nobody:
            with pytest.raises(Unavailable):
                await nobody.bloom("thing").check([1])
            with pytest.raises(Unavailable):
                await nobody.bloom("thing").add([1])
            with pytest.raises(Unavailable):
                await nobody.bloom("thing").rebuild([[1]], expected=1)


class TestAdd:
    async def test_an_added_id_is_there(self, bloom: Bloom) -> None:
        await bloom.rebuild([[]], expected=0)
        await bloom.add(range(1, 1301))
        assert await bloom.check(range(1, 1301)) == [True] * 1300
        await asyncio.to_thread(bloom.add_from_thread, [BIG], asyncio.get_running_loop())
        assert await bloom.check([BIG]) == [True]

    async def test_a_failure_to_add_is_raised(self, bloom: Bloom, cache: Redis) -> None:
        """So that the write is rolled back: the row must not exist without its bits."""
        await bloom.rebuild([[]], expected=0)
        cache.delete(META)
        cache.set(META, "of another type")
        with pytest.raises(Unavailable, match="could not be added"):
            await bloom.add([1])

    async def test_it_works_in_a_full_memory(self, own_cache: RedisServer) -> None:
        async with client(own_cache.url) as mine:
            bloom = mine.bloom("thing")
            await bloom.rebuild([[]], expected=0)
            with Redis.from_url(own_cache.url, protocol=2) as raw:
                raw.config_set("maxmemory", "1mb")
            await bloom.add([1])
            assert await bloom.check([1]) == [True]


class TestRebuild:
    async def test_a_rebuild_forgets_what_is_gone(self, bloom: Bloom) -> None:
        await bloom.rebuild([[1, 2]], expected=2)
        await bloom.rebuild([[2], [3]], expected=2)
        assert await bloom.check([1, 2, 3]) == [False, True, True]

    async def test_it_can_change_the_size(self, bloom: Bloom, cache: Redis) -> None:
        await bloom.rebuild([[1]], expected=1)
        await bloom.rebuild([range(1, 20_001)], expected=20_000)
        assert all(await bloom.check(range(1, 20_001)))
        saturation = bloom.saturation
        assert saturation is not None
        assert saturation.capacity == 30_000
        assert saturation.estimated_ids == pytest.approx(20_000, rel=0.03)
        assert 0.0001 < saturation.false_positives < 0.003
        assert not cache.exists(FILL)
        assert sum(cache.exists(slot) for slot in SLOTS) == 1

    async def test_ids_come_in_any_kind_of_chunks(self, bloom: Bloom) -> None:
        async def pages() -> AsyncIterator[Sequence[int]]:
            for start in range(0, 5000, 1700):
                await asyncio.sleep(0)
                yield range(start, min(5000, start + 1700))

        assert await bloom.rebuild(pages(), expected=5000) == 5000
        assert all(await bloom.check(range(5000)))

    async def test_it_goes_in_parts(self, cache_url: str) -> None:
        settings = BloomSettings.load(settle_ms=0, chunk_bytes=1024)
        mine = CacheClient(cache_url, CacheSettings.load(), settings)
        bloom = mine.bloom("thing")
        await bloom.rebuild([range(3000)], expected=3000)
        assert all(await bloom.check(range(3000)))
        assert mine.calls.scripts.items > 12
        await mine.aclose()

    async def test_the_old_filter_answers_until_the_new_one_does(self, bloom: Bloom) -> None:
        await bloom.rebuild([[1]], expected=1)
        seen: list[list[bool | None]] = []

        async def pages() -> AsyncIterator[Sequence[int]]:
            yield [2]
            seen.append(await bloom.check([1, 2]))
            await bloom.add([3])
            seen.append(await bloom.check([3]))
            yield [4]

        await bloom.rebuild(pages(), expected=3)
        assert seen == [[True, False], [True]]
        assert await bloom.check([1, 2, 3, 4]) == [False, True, True, True]

    async def test_a_younger_rebuild_supersedes_an_older(self, bloom: Bloom) -> None:
        await bloom.rebuild([[1]], expected=1)

        async def pages() -> AsyncIterator[Sequence[int]]:
            await bloom.rebuild([[7]], expected=1)
            yield [2]

        with pytest.raises(Unavailable, match="superseded"):
            await bloom.rebuild(pages(), expected=1)
        assert await bloom.check([1, 2, 7]) == [False, False, True]

    @pytest.mark.parametrize("lost", [FILL, SLOTS[1], META, "all"])
    async def test_a_rebuild_that_lost_a_part_does_not_switch(
        self, bloom: Bloom, cache: Redis, lost: str
    ) -> None:
        await bloom.rebuild([[1]], expected=1)

        def pages() -> Iterator[Sequence[int]]:
            yield [1, 2]
            if lost == "all":
                cache.flushall()
            else:
                cache.delete(lost)

        with pytest.raises(Unavailable, match="superseded"):
            await bloom.rebuild(pages(), expected=1)
        assert (await bloom.check([1]))[0] is not False
        await bloom.rebuild([[1]], expected=1)
        assert await bloom.check([1, 2]) == [True, False]

    async def test_an_abandoned_rebuild_harms_nobody(self, bloom: Bloom) -> None:
        await bloom.rebuild([[1]], expected=1)

        def pages() -> Iterator[Sequence[int]]:
            yield [2]
            raise OSError("the database went away")

        with pytest.raises(OSError, match="went away"):
            await bloom.rebuild(pages(), expected=1)
        await bloom.add([3])
        assert await bloom.check([1, 2, 3]) == [True, False, True]
        await bloom.rebuild([[1, 3]], expected=1)
        assert await bloom.check([1, 2, 3]) == [True, False, True]

    async def test_a_cache_that_is_killed_halfway(self, own_cache: RedisServer) -> None:
        async with client(own_cache.url, probe_ms=10) as mine:
            bloom = mine.bloom("thing")
            await bloom.rebuild([[1]], expected=1)

            def pages() -> Iterator[Sequence[int]]:
                yield [1]
                assert own_cache.process is not None
                own_cache.process.kill()

            with pytest.raises(Unavailable):
                await bloom.rebuild(pages(), expected=1)
            own_cache.start()
            await eventually(lambda: not mine.calls.breaker.is_open)
            assert await bloom.check([1]) == [None]
            await bloom.rebuild([[1]], expected=1)
            assert await bloom.check([1, 2]) == [True, False]


class Rows:
    """A table: ids are committed a while after they were added to the filter."""

    def __init__(self, bloom: Bloom) -> None:
        self.bloom = bloom
        self.committed: list[int] = []
        self.rejected: list[int] = []
        self.checks = 0
        self.ended = False

    async def insert(self, first: int, rng: random.Random) -> None:
        for each in range(first, first + 250):
            await self.bloom.add([each])
            await asyncio.sleep(rng.random() / 200)  # the rest of the transaction, below 5 ms
            self.committed.append(each)

    async def ask(self, rng: random.Random) -> None:
        while not self.ended:
            await asyncio.sleep(0)
            ids = rng.choices(self.committed, k=20) if self.committed else []
            verdicts = await self.bloom.check(ids)
            self.rejected += [
                each for each, told in zip(ids, verdicts, strict=True) if told is False
            ]
            self.checks += len(ids)

    def note(self, ids: Sequence[int], verdicts: Sequence[bool | None]) -> None:
        told = zip(ids, verdicts, strict=True)
        self.rejected += [each for each, verdict in told if verdict is False]
        self.checks += len(ids)

    def all(self) -> Iterator[Sequence[int]]:
        """What a SELECT sees when it is begun."""
        yield list(self.committed)


async def race(bloom: Bloom, rebuild: Any) -> Rows:
    rows, rng = Rows(bloom), random.Random(3)
    checkers = [asyncio.create_task(rows.ask(rng)) for _ in range(3)]
    adders = [asyncio.create_task(rows.insert(1000 * i, rng)) for i in range(1, 6)]
    rebuilds = 0
    while not all(adder.done() for adder in adders):
        await rebuild(rows)
        rebuilds += 1
    rows.ended = True
    await asyncio.gather(*adders, *checkers)
    rows.note(rows.committed, await bloom.check(rows.committed))
    assert rebuilds >= 3
    assert rows.checks > 1000
    return rows


async def test_no_valid_id_is_rejected_while_rebuilds_race_adders(bloom: Bloom) -> None:
    async def rebuild(rows: Rows) -> None:
        await bloom.rebuild(rows.all(), expected=5000, settle_ms=60)

    assert (await race(bloom, rebuild)).rejected == []


async def test_a_rebuild_that_does_not_let_transactions_settle_is_found_out(bloom: Bloom) -> None:
    async def rebuild(rows: Rows) -> None:
        await bloom.rebuild(rows.all(), expected=5000, settle_ms=0)

    assert (await race(bloom, rebuild)).rejected


async def test_a_rebuild_in_place_is_found_out(bloom: Bloom, cache: Redis) -> None:
    """One generation, emptied and filled again: the window that two generations close."""

    async def rebuild(rows: Rows) -> None:
        if not await bloom.present():
            await bloom.rebuild([[]], expected=5000)
        live = SLOTS[int(str(cache.hget(META, "live")))]
        cache.setrange(live, 0, b"\0" * int(str(cache.strlen(live))))
        await asyncio.sleep(0.002)
        await bloom.add(rows.committed)

    assert (await race(bloom, rebuild)).rejected
