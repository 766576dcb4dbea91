"""Running a request's coroutine in the name of a task, without a task's making and wake-ups.

To make, schedule and wake a task costs a few microseconds each, of the dozen that a bare answer
costs. So a request is given a standing task, which waits, and its steps are made by callbacks: the
first in the turn of the loop that parsed the request, each other in the callback of what it waited
for. Each is made in the name of that task: `asyncio.current_task()` and the context variables are
the task's from the first line on, so that time-outs, locks and cancellation find what they find in
any task. Whoever cancels the task wakes it: then the task itself takes the coroutine over, hears of
the cancellation where the coroutine waits, and serves it to its end.

A standing task serves one request after the other. It retires when a request has left something in
it that the next one would see: a context variable, or a cancellation.
"""

import asyncio
import types
from asyncio.tasks import _enter_task, _leave_task  # documented: "Extending asyncio"
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any

Work = Coroutine[Any, Any, None]
Ended = Callable[[BaseException | None], None]

_NOT_BEGUN: Any = object()
_TAKEN_OVER: Any = object()


class StandingTasks:
    """Tasks that wait for work; at most `idle_max` of them wait at a time."""

    def __init__(self, idle_max: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._idle_max = idle_max
        self._idle: list[_StandingTask] = []
        self._standing: set[_StandingTask] = set()
        self.clean = copy_context()

    def __repr__(self) -> str:
        return f"<StandingTasks idle={len(self._idle)} busy={self.busy}>"

    @property
    def busy(self) -> int:
        """How many serve a request, or are about to."""
        return len(self._standing) - len(self._idle)

    def run(self, work: Work, ended: Ended) -> None:
        """Run `work`; `ended` is told once, with what it raised. Not to be called from a task."""
        if self._idle:
            self._idle.pop().begin(work, ended)
        else:
            self._standing.add(_StandingTask(self, work, ended))

    def rest(self, standing: "_StandingTask") -> bool:
        """Keep `standing` for the next; False where it has to retire."""
        is_clean = standing.context == self.clean and not standing.task.cancelling()
        if is_clean and len(self._idle) < self._idle_max:
            self._idle.append(standing)
            return True
        return False

    def gone(self, standing: "_StandingTask") -> None:
        """`standing` has retired."""
        self._standing.discard(standing)

    async def aclose(self) -> None:
        """Cancel whatever still runs, and wait for its end."""
        self._idle.clear()
        tasks = [standing.task for standing in self._standing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _StandingTask:
    """One standing task. It serves its first work itself; it waits while callbacks serve others."""

    __slots__ = ("_ended", "_parked", "_tasks", "_waits_for", "_work", "context", "task")

    def __init__(self, tasks: StandingTasks, work: Work, ended: Ended) -> None:
        self._tasks = tasks
        self._work: Work | None = work
        self._ended = ended
        self._waits_for: Any = _NOT_BEGUN
        self._parked: asyncio.Future[None] = tasks.loop.create_future()
        self.context: Context = tasks.clean.copy()
        self.task = tasks.loop.create_task(self._serve(), context=self.context)
        self.task.add_done_callback(self._retired)

    def begin(self, work: Work, ended: Ended) -> None:
        """Make the first step of `work`, while the task waits."""
        self._work, self._ended = work, ended
        self.context.run(self._step, _NOT_BEGUN)

    def _step(self, waited_for: Any) -> None:
        """Make the step after the wait for `waited_for`, unless the task has taken over."""
        if waited_for is not self._waits_for or self._parked.done():
            return
        assert self._work is not None
        error: BaseException | None = None
        loop, task = self._tasks.loop, self.task
        _enter_task(loop, task)
        try:
            waits_for = self._work.send(None)
        except StopIteration:
            pass
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - told to `ended`
            error = raised
        else:
            self._wait(waits_for)
            return
        finally:
            _leave_task(loop, task)
        self._work, self._waits_for, ended = None, _NOT_BEGUN, self._ended
        if self._parked.done() or not self._tasks.rest(self):
            task.cancel()
        ended(error)

    def _wait(self, waits_for: Any) -> None:
        """As a task waits for what its coroutine has yielded."""
        self._waits_for = waits_for
        if self._parked.done():
            return  # the step has cancelled its own task, which takes over
        if isinstance(waits_for, asyncio.Future) and waits_for._asyncio_future_blocking:
            waits_for._asyncio_future_blocking = False
            waits_for.add_done_callback(self._step, context=self.context)
        elif waits_for is None:
            self._tasks.loop.call_soon(self._step, None, context=self.context)
        else:
            self._parked.set_result(None)  # whatever it is: the task takes over

    async def _serve(self) -> None:
        while True:
            work = await self._next()
            error: BaseException | None = None
            try:
                await work
            except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - as above
                error = raised
            self._work, self._waits_for, ended = None, _NOT_BEGUN, self._ended
            ended(error)
            if not self._tasks.rest(self):
                return

    async def _next(self) -> Awaitable[None]:
        """What the task itself has to serve: the first work, or one that it takes over."""
        if self._work is None:
            self._parked = self._tasks.loop.create_future()
            try:
                await self._parked
            except asyncio.CancelledError as cancelled:
                if self._work is None:
                    raise
                waits_for, self._waits_for = self._waits_for, _TAKEN_OVER
                if isinstance(waits_for, asyncio.Future):
                    waits_for.remove_done_callback(self._step)
                return _thrown(self._work, waits_for, cancelled)
        assert self._work is not None
        waits_for, self._waits_for = self._waits_for, _TAKEN_OVER
        return self._work if waits_for is _NOT_BEGUN else _rest_of(self._work, waits_for)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._tasks.gone(self)
        if self._work is not None:  # cancelled before it began
            self._work.close()
            self._ended(asyncio.CancelledError())
        if not task.cancelled():
            task.result()


@types.coroutine
def _rest_of(work: Work, waits_for: Any) -> Generator[Any, None, None]:
    """As `await work`, which has made steps elsewhere and waits for `waits_for`."""
    while True:
        try:
            yield waits_for
            break
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the work's
            try:
                waits_for = work.throw(error)
            except StopIteration:
                return
    yield from work


async def _thrown(work: Work, waits_for: Any, cancelled: asyncio.CancelledError) -> None:
    """Go on with `work`, cancelled while it waits for `waits_for`."""
    if isinstance(waits_for, asyncio.Future) and waits_for.cancel(*cancelled.args):
        waits_for._asyncio_future_blocking = True  # as it was when the work yielded it
        await _rest_of(work, waits_for)
        return
    try:
        waits_for = work.throw(cancelled)
    except StopIteration:
        return
    await _rest_of(work, waits_for)
