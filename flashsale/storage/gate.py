"""The gate: what arrives while a call is in flight leaves together in the next one; who may wait
before it, and for how long; and gates of several lanes, whose calls leave in rounds."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flashsale.telemetry import LATENCY_S, SIZES, Buckets

Item = TypeVar("Item")
Reply = TypeVar("Reply")

_OF_LATE = 8
"""Over so many calls what one takes is averaged, roughly."""
_OVERRUN_ROOM, _OVERRUN_PATIENCE, _OVERRUN_MIN_S = 1, 4, 0.02
"""Calls, or so long at least: whose claims have room, and what nobody waits longer for."""
_CROWD_SHARE, _CROWD_MIN_S = 1 / 8, 0.1
"""A crowd has come within this share of the queue's time-out, or within so long at least."""
_WELL_SHARE, _LOOK_SHARE = 1 / 10, 1 / 4
"""A load is carried where no more than this share were too many for such a part of the time-out."""
_ROUND_PATIENCE, _ROUND_MIN_S, _ROUND_MOST_S = 2, 0.01, 0.05
"""How many calls' time, within these bounds, a round waits for its last call."""


class GateFull(Exception):  # noqa: N818 - a bound that was met, not a bug
    """There is no room before the gate; nothing was sent."""


class Overdue(GateFull):
    """It has waited for too long; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a gate takes: items in one call, calls in flight, items that may wait."""

    batch_max: int
    calls_max: int
    queue_max: int


class Admission:
    """How long claims may wait for their call, and how many.

    A crowd that comes at once is worth a queue: each waits for the whole time-out, and as many have
    room as are served within it. Where more come than can be served for as long as they come, who
    is served had better be served soon: those have room who leave with the next call, and nobody
    waits longer than four calls take. Such a load is known by one who has waited for the whole
    time-out, or by those who had no room for longer than a crowd takes to come. It is over when
    next to nobody was too many for a while. Instants are the caller's; nothing reads a clock here.
    """

    def __init__(self, bounds: Bounds, timeout_s: float) -> None:
        self._bounds, self._timeout_s = bounds, timeout_s
        self._crowd_s = max(_CROWD_MIN_S, timeout_s * _CROWD_SHARE)
        self._look_s = max(_CROWD_MIN_S, timeout_s * _LOOK_SHARE)
        self._looked_s = self._refused_s = self._refused_since_s = float("-inf")
        self._came = self._too_many = 0  # since it was looked at
        self.is_overrun = False
        self.call_s = 0.0  # what a call takes, of late

    def __repr__(self) -> str:
        return f"<Admission call_s={self.call_s:.4f} is_overrun={self.is_overrun}>"

    @property
    def most_s(self) -> float:
        """How long a claim may wait."""
        if not self.is_overrun:
            return self._timeout_s
        return self._of_calls(_OVERRUN_PATIENCE)

    def called(self, claims: int, took_s: float, now_s: float) -> int:
        """So many were served by a call; how many may wait from now on."""
        self.call_s += (took_s - self.call_s) / _OF_LATE
        self._came += claims
        if now_s - self._looked_s >= self._look_s:
            was_idle = now_s - self._looked_s >= 2 * self._look_s
            if was_idle or self._too_many <= self._came * _WELL_SHARE:
                self.is_overrun = False
            self._look_again(now_s)
        within_s = self._of_calls(_OVERRUN_ROOM) if self.is_overrun else self._timeout_s
        calls = max(_OVERRUN_ROOM, within_s / self.call_s) if self.call_s else float("inf")
        bounds = self._bounds
        return int(min(bounds.queue_max, calls * bounds.batch_max * bounds.calls_max))

    def refused(self, now_s: float) -> None:
        """There was no room for one."""
        self.shed()
        if now_s - self._refused_s > self._crowd_s:
            self._refused_since_s = now_s
        self._refused_s = now_s
        if now_s - self._refused_since_s >= self._crowd_s:
            self._overrun(now_s)

    def is_over(self, waited_s: float, now_s: float) -> bool:
        """Whether one has waited for too long."""
        if waited_s <= _OVERRUN_MIN_S and waited_s <= self._timeout_s:
            return False
        if waited_s > self._timeout_s:
            self._overrun(now_s)
        return waited_s > self.most_s

    def shed(self) -> None:
        """One was too many."""
        self._came += 1
        self._too_many += 1

    def _of_calls(self, count: int) -> float:
        return min(self._timeout_s, max(_OVERRUN_MIN_S, count * self.call_s))

    def _overrun(self, now_s: float) -> None:
        if not self.is_overrun:
            self.is_overrun = True
            self._look_again(now_s)

    def _look_again(self, now_s: float) -> None:
        self._looked_s, self._came, self._too_many = now_s, 0, 0


class Rounds:
    """Has the calls of several gates leave at the same moments.

    Six lanes that call as each of them likes make many small calls of what one ledger serves in a
    large one. So who has something to send while calls of a round are under way leaves in the next
    round, with all others who do: when those calls have ended, or have taken twice as long as a
    call does of late. One that has not ended by then is of no round any more: a lane whose master
    is away holds up no other for longer.
    """

    def __init__(self) -> None:
        self._number = 0
        self._under_way = 0  # calls of this round
        self._began_s = 0.0
        self._is_open = False
        self._next: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.call_s = 0.0  # what a call takes, of late

    def __repr__(self) -> str:
        return f"<Rounds number={self._number} under_way={self._under_way}>"

    async def begin(self) -> tuple[int, float]:
        """Return when a call may leave; `end` takes what it returns, whatever became of it."""
        loop = asyncio.get_running_loop()
        if self._under_way and not self._is_open:
            if self._next is None:
                self._next = loop.create_future()
                self._timer = loop.call_at(self._began_s + self._patience_s, self._release)
            await asyncio.shield(self._next)
        now_s = loop.time()
        if not self._under_way:
            self._began_s = now_s
            self._is_open = True
            loop.call_soon(self._shut)  # whoever is ready in this turn of the loop comes along
        self._under_way += 1
        return self._number, now_s

    def end(self, began: tuple[int, float]) -> None:
        """A call has ended."""
        number, began_s = began
        took_s = asyncio.get_running_loop().time() - began_s
        self.call_s += (took_s - self.call_s) / _OF_LATE
        if number == self._number:
            self._under_way -= 1
            if not self._under_way:
                self._release()

    def _shut(self) -> None:
        self._is_open = False

    @property
    def _patience_s(self) -> float:
        return min(max(_ROUND_MIN_S, _ROUND_PATIENCE * self.call_s), _ROUND_MOST_S)

    def _release(self) -> None:
        self._number += 1
        self._under_way = 0
        if self._timer is not None:
            self._timer.cancel()
        if self._next is not None:
            self._next.set_result(None)
        self._next = self._timer = None


class Gate(Generic[Item, Reply]):
    """Batches single requests into calls, in order of arrival, within fixed bounds.

    `send` takes a batch and answers a list of replies, in the same order; what it raises is
    raised to every caller of that batch who has no answer yet. A reply that takes longer than the
    call may be a future: it is passed on when it is there, and keeps no call in flight.
    `is_overdue` says of the first who waits whether that was too long, in place of a call. With
    `rounds` its calls leave with those of other gates.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Reply | asyncio.Future[Reply]]]],
        bounds: Bounds,
        is_overdue: Callable[[Item], bool] | None = None,
        rounds: Rounds | None = None,
    ) -> None:
        self._send = send
        self._bounds = bounds
        self._is_overdue = is_overdue
        self._rounds = rounds
        self._queue: deque[tuple[Item, asyncio.Future[Reply]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._start_due = False
        self.room = bounds.queue_max
        """How many may wait. `send` may leave less, for as long as anybody waits."""
        self.sizes = Buckets(SIZES)  # items a call
        self.durations_s = Buckets(LATENCY_S)  # of calls, answered or not
        self.refused = 0  # items, since the queue was full

    def __repr__(self) -> str:
        return f"<Gate waiting={self.waiting} in_flight={self.in_flight} {self._bounds}>"

    @property
    def calls(self) -> int:
        """Calls that were sent."""
        return self.sizes.count

    @property
    def items(self) -> int:
        """Items in those calls."""
        return int(self.sizes.sum)

    @property
    def waiting(self) -> int:
        """Items that have not been sent."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """Calls that have not been answered."""
        return len(self._tasks)

    def enter(self, item: Item) -> asyncio.Future[Reply]:
        """Queue `item`; the future brings its reply, or raises Overdue. Raises GateFull."""
        if len(self._queue) >= self.room:
            self.refused += 1
            raise GateFull
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        self._start()
        return future

    async def drain(self) -> None:
        """Wait until nothing waits and nothing is in flight."""
        while self._queue or self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)  # what ended may let the next one start in a callback

    def _start(self) -> None:
        if self._queue and not self._start_due and len(self._tasks) < self._bounds.calls_max:
            # It starts in the loop's next turn: whoever is ready in this one comes along.
            self._start_due = True
            task = asyncio.get_running_loop().create_task(self._call_on())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._start_due = False  # perhaps before it began
        else:
            task.result()
        if self._queue:
            self._start()

    async def _call_on(self) -> None:
        """One call after the other, for as long as anybody waits."""
        self._start_due = False
        queue, rounds = self._queue, self._rounds
        while queue:
            if rounds is None:
                await self._call()
            else:
                began = await rounds.begin()
                try:
                    await self._call()
                finally:
                    rounds.end(began)
            if queue:
                await asyncio.sleep(0)  # who has an answer now goes first
        self.room = self._bounds.queue_max

    async def _call(self) -> None:
        """One call, of those who wait and may go on; none where there are none."""
        items, futures = self._next()
        if not items:
            return
        if self._queue:
            self._start()
        self.sizes.add(len(items))
        began_s = time.perf_counter()
        try:
            replies = await self._send(items)
            for future, reply in list(zip(futures, replies, strict=True)):
                if isinstance(reply, asyncio.Future):
                    _pass_on(reply, future)
                elif not future.done():  # its caller may have gone
                    future.set_result(reply)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - a caller must never wait for ever, bug or not
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        finally:
            self.durations_s.add(time.perf_counter() - began_s)

    def _next(self) -> tuple[list[Item], list[asyncio.Future[Reply]]]:
        """Take those who leave now out of the queue, behind those who have waited for too long."""
        queue, is_overdue = self._queue, self._is_overdue
        items: list[Item] = []
        futures: list[asyncio.Future[Reply]] = []
        while queue and is_overdue is not None and is_overdue(queue[0][0]):
            _, future = queue.popleft()
            if not future.done():
                future.set_exception(Overdue())
        for _ in range(min(len(queue), self._bounds.batch_max)):
            item, future = queue.popleft()
            items.append(item)
            futures.append(future)
        return items, futures


def _pass_on(late: asyncio.Future[Reply], future: asyncio.Future[Reply]) -> None:
    """Give what `late` brings to `future`, whose caller may have gone by then."""

    def settle(_: object) -> None:
        if future.done():
            return
        if late.cancelled():
            future.cancel()
        elif error := late.exception():
            future.set_exception(error)
        else:
            future.set_result(late.result())

    late.add_done_callback(settle)
