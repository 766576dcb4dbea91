"""The general lock of asyncio tasks: a lease on the cache Redis, a number from the ledger.

What must never be written by two rests on the number, not on the lease: a process that sleeps
past its lease wakes up believing in it. So a number is drawn while the lock is held and written
into it only while it still is: numbers grow from owner to owner, and no two owners share one.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.locks.batch import LockCounts
from flashsale.lua.scripts import Call, script
from flashsale.settings import LockSettings
from flashsale.storage.channel import Channel
from flashsale.storage.lanes import ledger_channel

_TAKE = script("lock_take")
_NUMBER = script("lock_number")
_RENEW = script("lock_renew")
_PASS = script("lock_pass")

_CONNECTIONS = 4
_UNNUMBERED = 0
_LATE_S = 0.5
_PAUSE_S = 0.25


class LockHeld(Unavailable):
    """The lock was somebody else's for as long as we were ready to wait."""


class LockLost(Exception):  # noqa: N818 - a fact about the past, not a bug
    """The lock was not ours to the end of the block: somebody may have worked beside us."""


@dataclass(eq=False)
class Grant:
    """An acquired lock. `fence` grows with every owner; what it protects should check it."""

    name: str
    owner: str
    fence: int
    task: asyncio.Task[Any]
    now_s: Callable[[], float] = field(repr=False)
    ends_s: float  # on that clock, which runs while the process is paused
    depth: int = 1
    watchdog: asyncio.Task[None] | None = field(default=None, repr=False)
    is_lost: bool = False

    @property
    def holder(self) -> str:
        """What the lock says while it is ours."""
        return f"{self.owner} {self.fence}"

    @property
    def held(self) -> bool:
        """False once the lease may have passed. True is a hint: only the fence is proof."""
        return not self.is_lost and self.now_s() < self.ends_s


@dataclass(eq=False)
class _LocalQueue:
    """Where the tasks of this process queue, so that one alone asks Redis."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    grant: Grant | None = None


class TaskLocks:
    """The locks of one process, re-entrant by task."""

    def __init__(self, cache_url: str, ledger_url: str, settings: LockSettings) -> None:
        self._settings = settings
        timeout_s = settings.timeout_ms / 1000
        self._cache = Channel(cache_url, connections_max=_CONNECTIONS, timeout_s=timeout_s)
        self._ledger = ledger_channel(ledger_url, connections_max=1, timeout_s=timeout_s)
        self._waiting = Channel(  # each waiter holds a connection for as long as it waits
            cache_url,
            connections_max=settings.waiters_max,
            timeout_s=timeout_s + settings.poll_ms / 1000,
        )
        self._queues: dict[str, _LocalQueue] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self.counts = LockCounts()

    def __repr__(self) -> str:
        held = [name for name, queue in self._queues.items() if queue.grant]
        return f"<TaskLocks held={held}>"

    @property
    def held(self) -> int:
        """How many are held in this process now."""
        return sum(queue.grant is not None for queue in self._queues.values())

    def lock(self, name: str, *, wait_s: float | None = None) -> "TaskLock":
        """The lock `name`, for `async with`; 0 waits for nobody, None as long as is set."""
        return TaskLock(self, name, self._settings.wait_ms / 1000 if wait_s is None else wait_s)

    async def aclose(self) -> None:
        """Let releases under way end, then close. Locks still held end with their lease."""
        await asyncio.gather(*self._background, return_exceptions=True)
        for queue in self._queues.values():
            if queue.grant is not None and queue.grant.watchdog is not None:
                queue.grant.watchdog.cancel()
        for channel in (self._cache, self._ledger, self._waiting):
            await channel.aclose()

    async def acquire(self, name: str, wait_s: float) -> Grant:
        """Ours, at the latest after `wait_s`. Raises LockHeld, or Unavailable without a store."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lock is taken by a task")
        queue = self._queues.setdefault(name, _LocalQueue())
        if queue.grant is not None and queue.grant.task is task:
            queue.grant.depth += 1
            return queue.grant
        queue.users += 1
        try:
            grant = await self._take_turn(queue, name, task, wait_s)
        except BaseException:
            self._leave(name, queue)
            raise
        self.counts.acquired += 1
        queue.grant = grant
        grant.watchdog = asyncio.get_running_loop().create_task(self._watch(queue, grant))
        return grant

    async def release(self, name: str) -> None:
        """Give it back, once for each time it was acquired. Raises LockLost.

        A cancellation does not stop the release; a cache that is away leaves it to the lease.
        """
        queue = self._queues.get(name)
        grant = queue.grant if queue else None
        if queue is None or grant is None or grant.task is not asyncio.current_task():
            raise RuntimeError(f"the lock {name} is not this task's")
        grant.depth -= 1
        if grant.depth:
            return
        was_held = grant.held
        if grant.watchdog is not None:
            grant.watchdog.cancel()
        queue.grant = None
        released = await asyncio.shield(self._start(self._release(name, queue, grant.owner)))
        if released is False or (released is None and not was_held):
            self.counts.lost += 1
            raise LockLost(f"the lock {name} was lost before it was released")

    async def _take_turn(
        self, queue: _LocalQueue, name: str, task: asyncio.Task[Any], wait_s: float
    ) -> Grant:
        give_up_s = self._now_s() + wait_s
        has_waited = queue.turn.locked()
        self.counts.waited += has_waited
        try:
            async with asyncio.timeout_at(max(give_up_s, self._now_s() + 0.001)):
                await queue.turn.acquire()
        except TimeoutError:
            self.counts.refused += 1
            raise LockHeld(f"the lock {name} is held in this process") from None
        try:
            return await self._contend(name, task, give_up_s, has_waited)
        except BaseException:
            queue.turn.release()
            raise

    async def _contend(
        self, name: str, task: asyncio.Task[Any], give_up_s: float, has_waited: bool
    ) -> Grant:
        while True:
            # An attempt runs to its end whatever happens to us: cancelled halfway, its commands
            # could still arrive, after the release that was to undo them.
            owner = secrets.token_hex(8)
            attempt = self._start(self._attempt(name, owner, task))
            try:
                grant: Grant | None = await asyncio.shield(attempt)
            except asyncio.CancelledError:
                self._start(self._undo(attempt, name, owner))
                raise
            if grant is not None:
                return grant
            self.counts.waited += not has_waited
            has_waited = True
            left_s = give_up_s - self._now_s()
            if left_s <= 0:
                self.counts.refused += 1
                raise LockHeld(f"the lock {name} is held by somebody else")
            await self._listen(name, min(left_s, self._settings.poll_ms / 1000))

    async def _attempt(self, name: str, owner: str, task: asyncio.Task[Any]) -> Grant | None:
        """One try: take, draw a number, write it in. None where the lock is another's."""
        lock, lease_ms = keys.lock(name), self._settings.lease_ms
        try:
            taken = await self._cache.evaluate(Call(_TAKE, (lock,), (owner, _UNNUMBERED, lease_ms)))
            if taken != [1]:
                return None
            fence = int(await self._ledger.ask("INCR", self._ledger.layout.home.lock_fence))
            asked_s = self._now_s()
            holders = (f"{owner} {_UNNUMBERED}", f"{owner} {fence}")
            if await self._cache.evaluate(Call(_NUMBER, (lock,), (*holders, lease_ms))) != 1:
                return None  # paused past the lease in between: it never was ours
        except (Unavailable, Indeterminate) as error:
            await self._pass_on(name, owner)
            raise Unavailable(f"the lock {name} could not be taken: {error}") from error
        return Grant(name, owner, fence, task, self._now_s, asked_s + lease_ms / 1000)

    async def _undo(self, attempt: asyncio.Task[Grant | None], name: str, owner: str) -> None:
        with suppress(Unavailable, Indeterminate):
            await attempt
            await self._pass_on(name, owner)

    async def _listen(self, name: str, longest_s: float) -> None:
        """Wait until somebody gives the lock back, or as long as that."""
        longest_s = max(longest_s, 0.01)  # 0 would be for ever
        with suppress(TimeoutError, Unavailable, Indeterminate):
            async with asyncio.timeout(longest_s + _LATE_S):  # also for a free connection
                await self._waiting.ask("BLPOP", keys.lock_wake(name), f"{longest_s:.3f}")
                return
        await asyncio.sleep(min(longest_s, _PAUSE_S))

    async def _watch(self, queue: _LocalQueue, grant: Grant) -> None:
        """Renew until released. What a task left behind when it ended is given back for it."""
        lock, lease_ms = keys.lock(grant.name), self._settings.lease_ms
        while True:
            await asyncio.wait({grant.task}, timeout=self._settings.renew_ms / 1000)
            if grant.task.done():
                queue.grant = None
                self._start(self._release(grant.name, queue, grant.owner))
                return
            asked_s = self._now_s()
            try:
                renewed = await self._cache.evaluate(
                    Call(_RENEW, (lock,), (grant.holder, lease_ms))
                )
            except (Unavailable, Indeterminate):
                continue  # the lease has time for another try
            if renewed != 1:
                grant.is_lost = True
                return
            grant.ends_s = asked_s + lease_ms / 1000

    async def _release(self, name: str, queue: _LocalQueue, owner: str) -> bool | None:
        """Whether it was ours to the end; None where nobody knows."""
        try:
            return await self._pass_on(name, owner)
        finally:
            queue.turn.release()
            self._leave(name, queue)

    async def _pass_on(self, name: str, owner: str) -> bool | None:
        lock_keys = (keys.lock(name), keys.lock_wake(name))
        try:
            reply = await self._cache.evaluate(
                Call(_PASS, lock_keys, (owner, self._settings.lease_ms))
            )
        except (Unavailable, Indeterminate):
            return None
        return bool(reply == 1)

    def _leave(self, name: str, queue: _LocalQueue) -> None:
        queue.users -= 1
        if not queue.users:
            self._queues.pop(name, None)

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, should its caller be gone

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


class TaskLock:
    """One lock by name: `async with locks.lock("warm") as grant:`."""

    def __init__(self, locks: TaskLocks, name: str, wait_s: float) -> None:
        self._locks = locks
        self._name = name
        self._wait_s = wait_s

    def __repr__(self) -> str:
        return f"<TaskLock {self._name}>"

    async def __aenter__(self) -> Grant:
        return await self._locks.acquire(self._name, self._wait_s)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._locks.release(self._name)
        except LockLost:
            if error is None:  # what went wrong inside says more
                raise
