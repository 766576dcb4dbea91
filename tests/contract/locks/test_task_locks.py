"""The general lock: one owner at a time, numbered; waits are quiet; nothing strands it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rig.until import eventually, until

from flashsale import keys
from flashsale.errors import Unavailable
from flashsale.locks.batch import LockCounts
from flashsale.locks.task import Grant, LockHeld, LockLost, TaskLocks
from flashsale.settings import LockSettings
from flashsale.stack.redis import RedisServer

pytestmark = pytest.mark.anyio

LOCK = keys.lock("job")
TESTS = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def owner(cache_url: str, ledger_url: str, **given: Any) -> AsyncIterator[TaskLocks]:
    """The locks of one process."""
    locks = TaskLocks(cache_url, ledger_url, LockSettings.load(**given))
    try:
        yield locks
    finally:
        await locks.aclose()


def calls(cache: Redis) -> int:
    stats: Any = cache.info("stats")
    return int(stats["total_commands_processed"])


async def test_take_number_and_release(cache_url: str, ledger_url: str, cache: Redis) -> None:
    async with owner(cache_url, ledger_url) as mine:
        async with mine.lock("job") as grant:
            assert cache.get(LOCK) == f"{grant.owner} {grant.fence}"
            assert 29_000 < int(str(cache.pttl(LOCK))) <= 30_000
            assert grant.held
        assert not cache.exists(LOCK)
        async with mine.lock("job") as again:
            assert again.fence == grant.fence + 1
            assert again.owner != grant.owner


async def test_one_owner_at_a_time_among_tasks_and_processes(
    cache_url: str, ledger_url: str
) -> None:
    inside, most, fences = 0, 0, []

    async def work(locks: TaskLocks) -> None:
        nonlocal inside, most
        async with locks.lock("job") as grant:
            inside += 1
            most = max(most, inside)
            fences.append(grant.fence)
            await asyncio.sleep(0.001)
            inside -= 1

    async with owner(cache_url, ledger_url) as one, owner(cache_url, ledger_url) as two:
        await asyncio.gather(*(work(locks) for locks in (one, two) for _ in range(15)))
    assert most == 1
    assert fences == sorted(set(fences)), "numbers grow from owner to owner"
    assert len(fences) == 30


async def test_reentrant_by_task(cache_url: str, ledger_url: str, cache: Redis) -> None:
    async with owner(cache_url, ledger_url) as mine:
        async with mine.lock("job") as outer:
            async with mine.lock("job", wait_s=0) as inner:
                assert inner is outer

            async def another_task() -> None:
                async with mine.lock("job", wait_s=0):
                    pass

            with pytest.raises(LockHeld, match="in this process"):
                await asyncio.create_task(another_task())
            assert cache.exists(LOCK), "the inner one does not release it"
            assert (mine.held, mine.counts) == (1, LockCounts(acquired=1, waited=1, refused=1))
        assert not cache.exists(LOCK)


async def test_waiting_is_bounded(cache_url: str, ledger_url: str) -> None:
    async with owner(cache_url, ledger_url) as one, owner(cache_url, ledger_url) as two:
        async with one.lock("job"):
            with pytest.raises(LockHeld, match="somebody else"):
                async with two.lock("job", wait_s=0):
                    pass
            began = time.monotonic()
            with pytest.raises(LockHeld):
                async with two.lock("job", wait_s=0.1):
                    pass
            assert 0.09 < time.monotonic() - began < 2
        async with two.lock("job", wait_s=0):
            pass


async def test_a_waiter_is_told_and_does_not_spin(
    cache_url: str, ledger_url: str, cache: Redis
) -> None:
    async with (
        owner(cache_url, ledger_url, poll_ms=30_000) as one,
        owner(cache_url, ledger_url, poll_ms=30_000) as two,
    ):

        async def wait() -> float:
            async with two.lock("job", wait_s=20):
                return time.monotonic()

        async with one.lock("job"):
            waiter = asyncio.create_task(wait())
            await eventually(lambda: any(c["cmd"] == "blpop" for c in cache.client_list()))
            before = calls(cache)
            await asyncio.sleep(0.3)
            assert calls(cache) - before <= 3, "it asks nothing while it waits"
            released = time.monotonic()
        assert await waiter - released < 1, "told at once, not at the next poll"


async def test_every_waiter_gets_its_turn(cache_url: str, ledger_url: str) -> None:
    """Each release wakes one; nobody is forgotten."""
    async with (
        owner(cache_url, ledger_url) as one,
        owner(cache_url, ledger_url) as two,
        owner(cache_url, ledger_url) as three,
    ):
        order: list[int] = []

        async def work(i: int, locks: TaskLocks) -> None:
            async with locks.lock("job", wait_s=10):
                order.append(i)

        async with asyncio.timeout(8):
            await asyncio.gather(*(work(i, (one, two, three)[i % 3]) for i in range(24)))
        assert sorted(order) == list(range(24))


async def test_the_watchdog_keeps_it(cache_url: str, ledger_url: str, cache: Redis) -> None:
    async with owner(cache_url, ledger_url, lease_ms=200, renew_ms=30) as mine:
        async with mine.lock("job") as grant:
            await asyncio.sleep(0.5)
            assert grant.held
            assert cache.exists(LOCK)
        await asyncio.sleep(0.05)
        assert not cache.exists(LOCK)


async def test_a_lock_that_was_lost_is_told(cache_url: str, ledger_url: str, cache: Redis) -> None:
    async with owner(cache_url, ledger_url, lease_ms=200, renew_ms=20) as mine:

        async def robbed() -> None:
            async with mine.lock("job") as grant:
                cache.set(LOCK, "somebody 99")
                await eventually(lambda: not grant.held)

        with pytest.raises(LockLost):
            await robbed()
        assert cache.get(LOCK) == "somebody 99", "nobody's lock but ours is released"

        async def robbed_in_trouble() -> None:
            async with mine.lock("other"):
                cache.delete(keys.lock("other"))
                raise OSError("inside")

        with pytest.raises(OSError, match="inside"):
            await robbed_in_trouble()


async def test_what_a_task_left_behind_is_given_back(cache_url: str, ledger_url: str) -> None:
    async with owner(cache_url, ledger_url) as mine:

        async def forgetful() -> Grant:
            return await mine.acquire("job", 1)

        grant = await asyncio.create_task(forgetful())
        async with mine.lock("job", wait_s=5) as next_one:
            assert next_one.fence > grant.fence
        with pytest.raises(RuntimeError, match="not this task's"):
            await mine.release("job")


async def test_a_store_that_is_away_is_said_so(
    cache_url: str, ledger_url: str, cache: Redis
) -> None:
    nobody = "redis://127.0.0.1:1/0"
    async with owner(nobody, ledger_url) as mine:
        with pytest.raises(Unavailable, match="could not be taken"):
            async with mine.lock("job"):
                pass
    async with owner(cache_url, nobody) as mine:
        with pytest.raises(Unavailable, match="could not be taken"):
            async with mine.lock("job"):
                pass
        assert not cache.exists(LOCK), "without a number it is given back"


async def test_the_cache_forgets_everything(own_cache: RedisServer, ledger_url: str) -> None:
    """Two believe that they own it; their numbers say who is the younger."""
    settings = {"lease_ms": 400, "renew_ms": 50}
    async with (
        owner(own_cache.url, ledger_url, **settings) as one,
        owner(own_cache.url, ledger_url, **settings) as two,
    ):

        async def forgotten() -> None:
            async with one.lock("job") as first:
                assert own_cache.process is not None
                own_cache.process.kill()
                own_cache.start()
                async with two.lock("job") as second:
                    assert second.fence > first.fence
                    await eventually(lambda: not first.held)

        with pytest.raises(LockLost):
            await forgotten()


class TestFence:
    async def test_paused_between_taking_and_numbering(
        self, cache_url: str, ledger_url: str, cache: Redis
    ) -> None:
        """The lease passes, another comes and goes: the sleeper must not own it with its number."""
        async with owner(cache_url, ledger_url) as sleeper, owner(cache_url, ledger_url) as other:
            ask = sleeper._ledger.ask
            fences: list[int] = []

            async def slow(*command: Any) -> Any:
                sleeper._ledger.ask = ask  # type: ignore[method-assign]
                drawn = await ask(*command)
                cache.delete(LOCK)  # the lease has passed
                async with other.lock("job") as grant:
                    fences.append(grant.fence)
                return drawn

            sleeper._ledger.ask = slow  # type: ignore[method-assign]
            async with sleeper.lock("job", wait_s=5) as grant:
                fences.append(grant.fence)
            assert fences == sorted(set(fences))


@contextmanager
def holder(
    cache_url: str, ledger_url: str, lease_ms: int, renew_ms: int
) -> Iterator["tuple[subprocess.Popen[str], int]"]:
    """Another process that holds the lock, and its number."""
    words = [cache_url, ledger_url, str(lease_ms), str(renew_ms)]
    child = subprocess.Popen(
        [sys.executable, "-m", "rig.lock_holder", *words],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            yield child, int(child.stdout.readline())
        finally:
            child.kill()


class TestAnotherProcess:
    async def test_killed_its_lock_ends_with_its_lease(
        self, cache_url: str, ledger_url: str, cache: Redis
    ) -> None:
        with holder(cache_url, ledger_url, 600, 200) as (child, fence):
            child.kill()
            child.wait()
            left_s = int(str(cache.pttl(LOCK))) / 1000
            assert left_s > 0
            async with owner(cache_url, ledger_url, poll_ms=100) as mine:
                began = time.monotonic()
                async with mine.lock("job", wait_s=5) as grant:
                    assert grant.fence > fence
                    assert time.monotonic() - began < left_s + 1.5

    async def test_paused_past_its_lease_it_learns_that_it_lost(
        self, cache_url: str, ledger_url: str, cache: Redis
    ) -> None:
        with holder(cache_url, ledger_url, 400, 100) as (child, fence):
            child.send_signal(signal.SIGSTOP)
            try:
                async with (
                    owner(cache_url, ledger_url, poll_ms=50) as mine,
                    mine.lock("job", wait_s=5) as grant,
                ):
                    assert grant.fence > fence
                    child.send_signal(signal.SIGCONT)
                    assert child.stdin is not None
                    assert child.stdout is not None
                    child.stdin.write("let go\n")
                    child.stdin.flush()
                    assert await asyncio.to_thread(child.stdout.readline) == "lost\n"
                    assert cache.get(LOCK) == f"{grant.owner} {grant.fence}"
            finally:
                child.send_signal(signal.SIGCONT)

    async def test_alive_it_keeps_it_and_hands_it_on(
        self, cache_url: str, ledger_url: str, cache: Redis
    ) -> None:
        with holder(cache_url, ledger_url, 300, 60) as (child, fence):
            async with owner(cache_url, ledger_url) as mine:
                with pytest.raises(LockHeld):
                    async with mine.lock("job", wait_s=0.6):
                        pass
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdin.write("let go\n")
                child.stdin.flush()
                async with mine.lock("job", wait_s=5) as grant:
                    assert grant.fence > fence
                assert child.stdout.readline() == "released\n"


class TestCancelled:
    """At every await point: what was taken is given back at once, not after the lease."""

    async def _free(self, cache_url: str, ledger_url: str, cache: Redis) -> None:
        await eventually(lambda: not cache.exists(LOCK), within_s=5)
        async with owner(cache_url, ledger_url) as other, other.lock("job", wait_s=1):
            pass

    @pytest.mark.parametrize("moment", ["before", "after"])
    @pytest.mark.parametrize("call", range(4))
    async def test_around_each_call(
        self, cache_url: str, ledger_url: str, cache: Redis, call: int, moment: str
    ) -> None:
        """Calls: take, draw, number, release."""
        async with owner(cache_url, ledger_url) as mine:
            made = 0
            run, ask = mine._cache.run, mine._ledger.ask

            async def cut(send: Any, *words: Any) -> Any:
                nonlocal made
                mine_now, made = made, made + 1
                if mine_now == call and moment == "before":
                    task.cancel()
                    await asyncio.sleep(0.01)
                reply = await send(*words)
                if mine_now == call and moment == "after":
                    task.cancel()
                    await asyncio.sleep(0.01)
                return reply

            mine._cache.run = lambda words: cut(run, words)  # type: ignore[method-assign]
            mine._ledger.ask = lambda *words: cut(ask, *words)  # type: ignore[method-assign]

            async def hold() -> None:
                async with mine.lock("job"):
                    pass

            task = asyncio.create_task(hold())
            with pytest.raises(asyncio.CancelledError):
                await task
            await self._free(cache_url, ledger_url, cache)

    async def test_after_any_number_of_turns(
        self, cache_url: str, ledger_url: str, cache: Redis
    ) -> None:
        """Real timing: a lock of 30 s is never left behind."""
        async with owner(cache_url, ledger_url) as mine:
            was_cut, turns = True, 0
            while was_cut:

                async def hold() -> None:
                    async with mine.lock("job"):
                        await asyncio.sleep(0)

                task = asyncio.create_task(hold())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                was_cut = task.cancelled()
                turns += 1 + turns // 12
            await self._free(cache_url, ledger_url, cache)

    async def test_while_waiting(self, cache_url: str, ledger_url: str, cache: Redis) -> None:
        async with owner(cache_url, ledger_url) as one, owner(cache_url, ledger_url) as two:

            async def wait() -> None:
                async with two.lock("job"):
                    pass

            async with one.lock("job"):
                waiters = [asyncio.create_task(wait()) for _ in range(3)]
                await eventually(lambda: any(c["cmd"] == "blpop" for c in cache.client_list()))
                for waiter in waiters[:2]:
                    waiter.cancel()
                await asyncio.gather(*waiters[:2], return_exceptions=True)
            await asyncio.wait_for(waiters[2], 5)
        await self._free(cache_url, ledger_url, cache)

    async def test_inside(self, cache_url: str, ledger_url: str, cache: Redis) -> None:
        async with owner(cache_url, ledger_url) as mine:
            inside = asyncio.Event()

            async def hold() -> None:
                async with mine.lock("job"):
                    inside.set()
                    await asyncio.sleep(60)

            task = asyncio.create_task(hold())
            await inside.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            until(lambda: not cache.exists(LOCK))
