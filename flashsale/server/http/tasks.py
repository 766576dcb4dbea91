"""Running a request's coroutine: its first step at once, the rest in a task that is there already.

To make, schedule and await a task costs a few microseconds, of the dozen that a bare answer costs.
But a coroutine that ends in its first step needs none, and a claim has queued at its gate after
that step. So the step is made in the turn of the loop that parsed the request, in the name of a
standing task: `asyncio.current_task()` and the context variables are that task's from the first
line on, so that time-outs, locks and cancellation find what they find in any task. Where the
coroutine waits, the standing task wakes up, waits in its place, and serves it to its end.

A standing task serves one request after the other. It retires when a request has left something in
it that the next one would see: a context variable, or a cancellation.
"""

import asyncio
import types
from asyncio.tasks import _enter_task, _leave_task  # documented: "Extending asyncio"
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any

Work = Coroutine[Any, Any, None]
Ended = Callable[[BaseException | None], None]

_NOT_BEGUN: Any = object()


class StandingTasks:
    """Tasks that wait for work; at most `idle_max` of them wait at a time."""

    def __init__(self, idle_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_max = idle_max
        self._idle: list[_Seat] = []
        self._seats: set[_Seat] = set()
        self.clean = copy_context()

    def __repr__(self) -> str:
        return f"<StandingTasks idle={len(self._idle)} busy={self.busy}>"

    @property
    def busy(self) -> int:
        """How many serve a request that has waited, or are about to."""
        return len(self._seats) - len(self._idle)

    def run(self, work: Work, ended: Ended) -> None:
        """Run `work`; `ended` is told once, with what it raised. Not to be called from a task."""
        if not self._idle:
            self._seats.add(_Seat(self, (work, _NOT_BEGUN, ended)))
            return
        seat = self._idle.pop()
        error: BaseException | None = None
        loop, task = self._loop, seat.task
        _enter_task(loop, task)
        try:
            waits_for = seat.context.run(work.send, None)
        except StopIteration:
            pass
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - told to `ended`
            error = raised
        else:
            seat.go_on(work, waits_for, ended)
            return
        finally:
            _leave_task(loop, task)
        if seat.context == self.clean and not task.cancelling():
            self._idle.append(seat)
        else:
            task.cancel()
        ended(error)

    def rest(self, seat: "_Seat") -> bool:
        """Keep `seat` for the next; False where it has to retire."""
        is_clean = seat.context == self.clean and not seat.task.cancelling()
        if is_clean and len(self._idle) < self._idle_max:
            self._idle.append(seat)
            return True
        return False

    def gone(self, seat: "_Seat") -> None:
        """`seat` has retired."""
        self._seats.discard(seat)

    async def aclose(self) -> None:
        """Cancel whatever still runs, and wait for its end."""
        self._idle.clear()
        tasks = [seat.task for seat in self._seats]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Seat:
    """One standing task."""

    __slots__ = ("_crew", "_mail", "_parked", "context", "task")

    def __init__(self, crew: StandingTasks, mail: tuple[Work, Any, Ended] | None) -> None:
        self._crew = crew
        self._mail = mail
        self._parked: asyncio.Future[None] | None = None
        self.context: Context = crew.clean.copy()
        self.task = asyncio.get_running_loop().create_task(self._serve(), context=self.context)
        self.task.add_done_callback(self._retired)

    def go_on(self, work: Work, waits_for: Any, ended: Ended) -> None:
        """Wait for `waits_for` in the place of `work`, then serve it to its end."""
        self._mail = (work, waits_for, ended)
        parked = self._parked
        if parked is not None and not parked.done():  # done: the first step cancelled its own task
            parked.set_result(None)

    async def _serve(self) -> None:
        while True:
            if self._mail is None:
                await self._park()
            if self._mail is None:
                return
            work, waits_for, ended = self._mail
            self._mail = None
            error: BaseException | None = None
            try:
                await (work if waits_for is _NOT_BEGUN else _rest_of(work, waits_for))
            except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - as above
                error = raised
            ended(error)
            if not self._crew.rest(self):
                return

    async def _park(self) -> None:
        """Wait for work. A cancellation that arrives together with it is the work's to hear."""
        self._parked = asyncio.get_running_loop().create_future()
        try:
            await self._parked
        except asyncio.CancelledError as cancelled:
            if self._mail is None:
                raise
            work, waits_for, ended = self._mail
            self._mail = (_thrown(work, waits_for, cancelled), _NOT_BEGUN, ended)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._crew.gone(self)
        if not task.cancelled():
            task.result()


@types.coroutine
def _rest_of(work: Work, waits_for: Any) -> Generator[Any, None, None]:
    """As `await work`, of which the first step was made elsewhere and waits for `waits_for`."""
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
    if waits_for is not None and waits_for.cancel():
        await _rest_of(work, waits_for)
        return
    try:
        waits_for = work.throw(cancelled)
    except StopIteration:
        return
    await _rest_of(work, waits_for)
