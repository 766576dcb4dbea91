"""The cache Redis killed, paused and missing, under load: slower, bounded, never wrong."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from rig.until import eventually
from rig.versions import Row, Versions, client, kind, version_of

from flashsale.cache.calls import Breaker
from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Source
from flashsale.cache.strategies import Entries, Strategy
from flashsale.errors import Unavailable
from flashsale.stack.redis import RedisServer

pytestmark = pytest.mark.anyio

NOBODY = "redis://127.0.0.1:1/0"
IDS = range(1, 41)


def send(server: RedisServer, number: signal.Signals) -> None:
    assert server.process is not None
    os.kill(server.process.pid, number)


class Load:
    """Readers that never stop, and how long each read took."""

    def __init__(self, things: Entries[Row]) -> None:
        self._things = things
        self.took_s: list[float] = []
        self.failures: list[Exception] = []

    async def reader(self, start: int) -> None:
        each = start
        while True:
            each = each % len(IDS) + 1
            began = time.monotonic()
            try:
                assert (await self._things.read(each)).value is not None
            except Unavailable as error:
                self.failures.append(error)
            self.took_s.append(time.monotonic() - began)
            await asyncio.sleep(0.001)

    async def more(self, reads: int = 300) -> None:
        """Until so many more reads have been answered."""
        goal = len(self.took_s) + reads
        await eventually(lambda: len(self.took_s) >= goal)


@asynccontextmanager
async def under_load(things: Entries[Row], readers: int = 30) -> AsyncIterator[Load]:
    load = Load(things)
    tasks = [asyncio.create_task(load.reader(i)) for i in range(readers)]
    try:
        yield load
        for task in tasks:
            assert not task.done(), task.result()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def hits(cache: CacheClient, things: Entries[Row]) -> bool:
    return not cache.calls.breaker.is_open and (await things.read(1)).source is Source.HIT


async def test_killed_under_load(own_cache: RedisServer) -> None:
    shelf = Versions(*IDS)
    async with client(own_cache.url, loads_max=4, probe_ms=20) as mine:
        things = kind(mine, shelf)
        async with under_load(things) as load:
            await load.more(1500)
            assert shelf.loads == len(IDS)
            assert own_cache.process is not None
            own_cache.process.kill()
            await load.more()
            assert mine.calls.breaker.is_open
            assert shelf.loads > len(IDS)
            own_cache.start()
            await eventually(lambda: hits(mine, things))
            await load.more()
        assert load.failures == []
        assert shelf.most_at_once <= 4
        assert things.outcomes[Source.HIT] > 0


async def test_paused_under_load(own_cache: RedisServer) -> None:
    """Only those whose call was in flight wait for the time-out."""
    shelf = Versions(*IDS)
    async with client(own_cache.url, loads_max=4, timeout_ms=1_000, probe_ms=20) as mine:
        things = kind(mine, shelf)
        async with under_load(things, readers=20) as load:
            await load.more()
            load.took_s.clear()
            send(own_cache, signal.SIGSTOP)
            try:
                await load.more(1000)
                assert mine.calls.breaker.is_open
                waited = sum(each > 0.8 for each in load.took_s)
                assert waited <= 2 * 20, "once each, not a time-out a read"
            finally:
                send(own_cache, signal.SIGCONT)
            await eventually(lambda: hits(mine, things))
        assert load.failures == []
        assert shelf.most_at_once <= 4
        assert mine.calls.breaker.opened <= 3


async def test_an_update_while_it_is_paused_is_owed(own_cache: RedisServer) -> None:
    shelf = Versions(1)
    async with (
        client(own_cache.url, timeout_ms=300, probe_ms=20) as mine,
        client(own_cache.url) as other,
    ):
        things, others = kind(mine, shelf), kind(other, shelf)
        assert await version_of(things, 1) == await version_of(others, 1) == 1
        send(own_cache, signal.SIGSTOP)
        try:
            assert await things.update([1], shelf.write(1)) == 2, "the write is not failed"
            assert len(mine.calls.owed) == 1
            assert await version_of(things, 1) == 2
        finally:
            send(own_cache, signal.SIGCONT)
        await eventually(lambda: not mine.calls.breaker.is_open)
        assert await version_of(things, 1) == 2, "whatever the cache still has"
        assert await mine.keep_once() == 0
        assert await version_of(others, 1) == 2
        assert (await things.read(1)).source is Source.HIT


async def test_debts_are_bounded(cache_url: str) -> None:
    shelf = Versions(*IDS)
    async with client(NOBODY, owed_max=2) as mine:
        things = kind(mine, shelf)
        assert not await things.invalidate(1, 2)
        with pytest.raises(Unavailable, match="owed"):
            await things.update([3], shelf.write(3))
        assert shelf.versions[3] == 1, "it was not begun"
        assert await mine.keep_once() == 2


async def test_a_missing_cache_causes_no_stampede() -> None:
    shelf = Versions(*range(1, 501))
    shelf.delay_s = 0.01
    async with client(NOBODY, loads_max=8) as mine:
        things = kind(mine, shelf)
        answers = await asyncio.gather(*(things.read(1) for _ in range(2000)))
        assert {answer.body for answer in answers} == {b'{"id":1,"version":1}'}
        assert shelf.most_at_once == 1, "shared by whoever came before it began"
        assert shelf.loads < 50
        await asyncio.gather(*(things.read(each) for each in range(1, 501)))
        assert shelf.most_at_once <= 8


async def test_more_than_the_limit_is_refused_at_once() -> None:
    shelf = Versions(*range(1, 101))
    shelf.hold()
    async with client(NOBODY, loads_max=2, loads_waiting_max=5) as mine:
        things = kind(mine, shelf)
        readers = [asyncio.create_task(things.read(each)) for each in range(1, 101)]
        await eventually(lambda: sum(reader.done() for reader in readers) == 93)
        shelf.open.set()
        ended = await asyncio.gather(*readers, return_exceptions=True)
        assert sum(isinstance(each, Unavailable) for each in ended) == 93
        assert mine.limit.refused == 93


async def test_a_load_does_not_wait_for_its_turn_for_ever() -> None:
    shelf = Versions(1, 2)
    shelf.hold()
    async with client(NOBODY, loads_max=1, loads_wait_ms=20) as mine:
        things = kind(mine, shelf)
        first = asyncio.create_task(things.read(1))
        await shelf.read.wait()
        with pytest.raises(Unavailable, match="in time"):
            await things.read(2)
        shelf.open.set()
        await first


async def test_a_warmed_key_goes_on_being_stale_while_it_is_marked(own_cache: RedisServer) -> None:
    """Logical expiry keeps its promise as long as the cache is there."""
    shelf = Versions(*IDS)
    async with client(own_cache.url) as mine:
        things = kind(mine, shelf, Strategy.LOGICAL)
        await things.warm(IDS)
        shelf.delay_s = 0.05
        async with under_load(things) as load:
            for each in (1, 2, 3):
                await things.update([each], shelf.write(each))
            await load.more()
        assert things.outcomes[Source.WAIT] == things.outcomes[Source.LOAD] == 0


async def test_closing_while_it_is_away_ends(own_cache: RedisServer) -> None:
    shelf = Versions(1)
    async with client(own_cache.url, timeout_ms=100) as mine:
        things = kind(mine, shelf)
        send(own_cache, signal.SIGSTOP)
        reader = asyncio.create_task(things.read(1))
        await asyncio.sleep(0.01)
    try:
        assert (await reader).source is Source.LOAD
    finally:
        send(own_cache, signal.SIGCONT)


async def test_probing_that_failed_by_itself_is_no_secret() -> None:
    """A breaker that nobody will ever close again: the duty that looks at it ends the process."""

    async def probe() -> None:
        raise OverflowError("too long")

    breaker = Breaker(probe, interval_s=0.01)
    breaker.check()
    breaker.trip()
    await eventually(lambda: breaker._probing is not None and breaker._probing.done())
    with pytest.raises(OverflowError):
        breaker.check()
