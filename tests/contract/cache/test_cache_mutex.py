"""Strategy 1: a miss is loaded once, everybody else waits, and older data never comes back."""

import asyncio

import orjson
import pytest
from redis import Redis
from rig.until import eventually
from rig.versions import NoDatabase, Versions, client, kind, version_of

from flashsale import keys
from flashsale.cache.entry import Loading, Source, pack

pytestmark = pytest.mark.anyio

KEY = keys.cache_entry("thing", 1)
LOCK = keys.cache_lock("thing", 1)


async def test_2000_readers_of_one_process_cause_one_load(cache_url: str) -> None:
    shelf = Versions(1)
    shelf.delay_s = 0.05
    async with client(cache_url) as mine:
        things = kind(mine, shelf)
        answers = await asyncio.gather(*(things.read(1) for _ in range(2000)))
        assert shelf.loads == things.loading.loads == 1
        assert {answer.body for answer in answers} == {b'{"id":1,"version":1}'}
        assert things.outcomes[Source.LOAD] == 1
        assert things.outcomes[Source.WAIT] + things.outcomes[Source.HIT] == 1999
        assert (await things.read(1)).source is Source.HIT


async def test_every_missing_key_is_loaded_once_and_hits_leave_together(cache_url: str) -> None:
    shelf = Versions(*range(1, 201))
    async with client(cache_url) as mine:
        things = kind(mine, shelf)
        for source in (Source.LOAD, Source.HIT):
            answers = await asyncio.gather(*(things.read(each) for each in range(1, 201)))
            assert {answer.source for answer in answers} == {source}
            assert [answer.value["id"] for answer in answers if answer.value] == [*range(1, 201)]
        assert shelf.loads == 200
        assert mine.calls.reads.calls <= 6, "400 reads, a few calls"


async def test_an_entry_is_json_with_a_jittered_life(cache_url: str, cache: Redis) -> None:
    ids = range(1, 61)
    async with client(cache_url, jitter=0.2) as mine:
        things = kind(mine, Versions(*ids), ttl_s=100)
        await asyncio.gather(*(things.read(each) for each in ids))
    entry = orjson.loads(str(cache.get(KEY)))
    assert entry == {"expireTime": 0, "data": {"id": 1, "version": 1}}
    lives = [int(str(cache.pttl(keys.cache_entry("thing", each)))) for each in ids]
    assert all(79_000 < life <= 120_000 for life in lives)
    assert max(lives) - min(lives) > 10_000, "spread, so that they do not end together"
    assert not cache.exists(LOCK)


async def test_what_does_not_exist_is_remembered_for_a_while(cache_url: str, cache: Redis) -> None:
    shelf = Versions()
    async with client(cache_url) as mine:
        things = kind(mine, shelf, ttl_s=3600)
        assert (await things.read(1)).source is Source.LOAD
        answer = await things.read(1)
        assert (answer.source, answer.value, answer.body) == (Source.NULL, None, None)
        assert shelf.loads == 1
        assert 100_000 < int(str(cache.pttl(KEY))) <= 132_000
        await things.update([1], shelf.write(1))  # it is made
        assert await version_of(things, 1) == 1


async def test_a_failed_load_reaches_every_reader_and_frees_the_lock(
    cache_url: str, cache: Redis
) -> None:
    shelf = Versions(1)
    shelf.failure, shelf.delay_s = NoDatabase("away"), 0.02
    async with client(cache_url) as mine:
        things = kind(mine, shelf)
        outcomes = await asyncio.gather(
            *(things.read(1) for _ in range(50)), return_exceptions=True
        )
        assert all(isinstance(outcome, NoDatabase) for outcome in outcomes)
        assert (shelf.loads, things.loading.failures) == (1, 1)
        assert not cache.exists(LOCK)
        shelf.failure = None
        assert (await things.read(1)).source is Source.LOAD


async def test_a_load_that_takes_too_long_is_given_up(cache_url: str, cache: Redis) -> None:
    shelf = Versions(1)
    shelf.hold()
    async with client(cache_url, load_timeout_ms=30) as mine:
        things = kind(mine, shelf)
        with pytest.raises(Exception, match="too long"):
            await things.read(1)
        assert not cache.exists(LOCK)
        shelf.open.set()
        assert (await things.read(1)).source is Source.LOAD


class TestAnotherProcessLoads:
    async def test_every_key_is_loaded_once_however_long_the_queue(self, cache_url: str) -> None:
        """Three processes want the same keys, and the database is far slower than they wait: who
        queues for a turn holds no lock, and finds what was loaded meanwhile."""
        ids, shelf = range(1, 101), Versions(*range(1, 101))
        shelf.delay_s = 0.005
        async with (
            client(cache_url, loads_max=2, wait_ms=50, retry_ms=5) as one,
            client(cache_url, loads_max=2, wait_ms=50, retry_ms=5) as two,
            client(cache_url, loads_max=2, wait_ms=50, retry_ms=5) as three,
        ):
            kinds = [kind(each, shelf) for each in (one, two, three)]
            answers = await asyncio.gather(*(things.read(i) for i in ids for things in kinds))
        assert shelf.loads == len(ids)
        assert all(answer.value is not None for answer in answers)
        assert max(things.loading.loads for things in kinds) < len(ids)

    async def test_its_load_is_waited_for(self, cache_url: str, cache: Redis) -> None:
        shelf = Versions(1)
        cache.set(LOCK, "another", px=10_000)
        async with client(cache_url, retry_ms=5) as mine:
            things = kind(mine, shelf)
            readers = [asyncio.create_task(things.read(1)) for _ in range(20)]
            await eventually(lambda: mine.calls.scripts.items >= 3)
            cache.set(KEY, pack(b'{"id":1,"version":9}'))
            answers = await asyncio.gather(*readers)
        assert {answer.source for answer in answers} == {Source.WAIT}
        assert shelf.loads == 0

    async def test_but_not_for_ever(self, cache_url: str, cache: Redis) -> None:
        """It was killed: its lock stays to the end of its lease."""
        shelf = Versions(1)
        cache.set(LOCK, "dead", px=60_000)
        async with client(cache_url, wait_ms=60, retry_ms=10) as mine:
            things = kind(mine, shelf)
            answers = await asyncio.gather(*(things.read(1) for _ in range(100)))
        assert {answer.body for answer in answers} == {b'{"id":1,"version":1}'}
        assert shelf.loads == 1
        assert not cache.exists(KEY), "only the holder of the lock fills"
        assert cache.get(LOCK) == "dead"


class TestUpdate:
    async def test_a_slow_loader_cannot_put_older_data_back(
        self, cache_url: str, cache: Redis
    ) -> None:
        shelf = Versions(1)
        shelf.hold()
        async with client(cache_url) as mine:
            things = kind(mine, shelf)
            early = asyncio.create_task(things.read(1))
            await shelf.read.wait()  # it has read version 1
            assert await things.update([1], shelf.write(1)) == 2
            late = asyncio.create_task(things.read(1))  # joins the load under way
            await eventually(lambda: mine.calls.reads.items == 2)
            shelf.open.set()
            first, second = (await early).value, (await late).value
            assert first == {"id": 1, "version": 1}, "it came before the update"
            assert second == {"id": 1, "version": 2}
            assert things.loading.refused_fills == 1
            assert (await things.read(1)).source is Source.HIT
            assert await version_of(things, 1) == 2

    async def test_without_tokens_it_could(
        self, cache_url: str, cache: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same history with a plain SET: what the token is for."""

        async def careless(
            self: Loading[object],
            pair: tuple[str, str],
            token: str,
            body: bytes,
            *_: object,
            **__: object,
        ) -> bool:
            cache.set(pair[0], pack(body))
            return True

        monkeypatch.setattr(Loading, "fill", careless)
        shelf = Versions(1)
        shelf.hold()
        async with client(cache_url) as mine:
            things = kind(mine, shelf)
            early = asyncio.create_task(things.read(1))
            await shelf.read.wait()
            await things.update([1], shelf.write(1))
            shelf.open.set()
            await early
            assert await version_of(things, 1) == 1, "older data for as long as the entry lives"

    async def test_of_another_process_ends_our_load(self, cache_url: str) -> None:
        shelf = Versions(1)
        shelf.hold()
        async with client(cache_url) as mine, client(cache_url) as other:
            things, others = kind(mine, shelf), kind(other, shelf)
            early = asyncio.create_task(things.read(1))
            await shelf.read.wait()
            await others.update([1], shelf.write(1))
            late = asyncio.create_task(others.read(1))
            later = asyncio.create_task(things.read(1))
            await eventually(lambda: shelf.loads == 2)
            shelf.open.set()
            await early
            assert (await late).value == (await later).value == {"id": 1, "version": 2}

    async def test_runs_to_its_end_though_its_caller_is_cancelled(self, cache_url: str) -> None:
        shelf = Versions(1)
        async with client(cache_url) as mine:
            things = kind(mine, shelf)
            assert await version_of(things, 1) == 1
            committed = asyncio.Event()

            async def slow() -> None:
                await asyncio.sleep(0.03)
                await shelf.write(1)()
                committed.set()

            caller = asyncio.create_task(things.update([1], slow))
            await asyncio.sleep(0.005)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            assert not committed.is_set()
            await committed.wait()

            async def fresh() -> bool:
                return await version_of(things, 1) == 2

            await eventually(fresh)

    async def test_that_may_have_happened_drops_too(self, cache_url: str) -> None:
        shelf = Versions(1)
        async with client(cache_url) as mine:
            things = kind(mine, shelf)
            assert await version_of(things, 1) == 1

            async def unknown() -> None:
                await shelf.write(1)()
                raise ConnectionError("the COMMIT was not answered")

            with pytest.raises(ConnectionError):
                await things.update([1], unknown)
            assert await version_of(things, 1) == 2

    async def test_of_many_at_once(self, cache_url: str) -> None:
        ids = range(1, 501)
        shelf = Versions(*ids)
        async with client(cache_url) as mine:
            things = kind(mine, shelf)
            await asyncio.gather(*(things.read(each) for each in ids))
            assert await things.invalidate(*ids)
            answers = await asyncio.gather(*(things.read(each) for each in ids))
        assert {answer.source for answer in answers} == {Source.LOAD}


async def test_a_load_survives_its_readers(cache_url: str) -> None:
    shelf = Versions(1)
    shelf.hold()
    async with client(cache_url) as mine:
        things = kind(mine, shelf)
        reader = asyncio.create_task(things.read(1))
        await shelf.read.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        other = asyncio.create_task(things.read(1))
        await asyncio.sleep(0.01)
        shelf.open.set()
        assert (await other).source is Source.WAIT
        assert shelf.loads == 1


@pytest.mark.parametrize(
    "rubbish", [b"", b"rubbish", b"\xff\xfe", b'{"data":1}', b'{"expireTime":x,"data":1}', b"{}"]
)
async def test_a_strangers_value_is_a_miss_and_is_replaced(
    cache_url: str, cache: Redis, rubbish: bytes
) -> None:
    cache.set(KEY, rubbish)
    cache.set(keys.cache_entry("thing", 2), pack(b'{"id":2,"version":7}'))
    async with client(cache_url) as mine:
        things = kind(mine, Versions(1))
        one, two = await asyncio.gather(things.read(1), things.read(2))
        assert (one.source, two.source) == (Source.LOAD, Source.HIT)
        assert (await things.read(1)).source is Source.HIT


async def test_a_key_of_another_type_is_a_miss_and_is_replaced(
    cache_url: str, cache: Redis
) -> None:
    cache.hset(KEY, "a", "b")
    async with client(cache_url) as mine:
        things = kind(mine, Versions(1))
        assert (await things.read(1)).source is Source.LOAD
        assert (await things.read(1)).source is Source.HIT
        cache.delete(KEY)
        cache.hset(KEY, "a", "b")
        assert await things.invalidate(1)
        assert not cache.exists(KEY)
