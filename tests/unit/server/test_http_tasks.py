"""Standing tasks: the first step at once, the rest in a task, and nothing left for the next one."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from flashsale.server.http.tasks import StandingTasks, Work

pytestmark = pytest.mark.anyio

WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Crew:
    """Standing tasks, called from where a server calls them: outside of any task."""

    def __init__(self) -> None:
        self.tasks = StandingTasks(idle_max=2)
        self._loop = asyncio.get_running_loop()

    def begin(self, work: Work) -> "asyncio.Future[bool]":
        """Run it; whether it had ended when `run` returned, or what it raised, in the end."""
        ended: asyncio.Future[bool] = self._loop.create_future()
        at_once = [True]

        def tell(error: BaseException | None) -> None:
            if error is None:
                ended.set_result(at_once[0])
            else:
                ended.set_exception(error if isinstance(error, Exception) else OSError("cancelled"))

        def call() -> None:
            self.tasks.run(work, tell)
            at_once[0] = False

        self._loop.call_soon(call)
        return ended

    async def run(self, work: Work) -> bool:
        return await asyncio.wait_for(self.begin(work), 5)


@pytest.fixture
async def crew() -> AsyncIterator[Crew]:
    crew = Crew()
    await crew.run(_nothing())  # the first one finds nobody standing
    yield crew
    await crew.tasks.aclose()


async def _nothing() -> None:
    pass


async def _wait(times: int = 1) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_what_does_not_wait_has_ended_at_once(crew: Crew) -> None:
    assert await crew.run(_nothing()) is True
    assert await crew.run(_wait()) is False
    assert repr(crew.tasks) == "<StandingTasks idle=1 busy=0>"


async def test_the_first_step_is_made_at_once_and_in_the_same_task(crew: Crew) -> None:
    seen: list[Any] = []

    async def work() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0.001)
        seen.append(asyncio.current_task())
        await asyncio.wait_for(asyncio.sleep(0), 1)
        seen.append(asyncio.current_task())

    await crew.run(work())
    await crew.run(work())
    assert None not in seen
    assert len(set(map(id, seen))) == 1, "and one task serves one after the other"


async def test_values_and_errors_of_what_is_waited_for_arrive(crew: Crew) -> None:
    loop = asyncio.get_running_loop()
    good, bad = loop.create_future(), loop.create_future()
    got: list[Any] = []

    async def work() -> None:
        got.append(await good)
        try:
            await bad
        except KeyError as error:
            got.append(error.args[0])
        await asyncio.sleep(0)

    ended = crew.begin(work())
    loop.call_later(0.001, good.set_result, 1)
    loop.call_later(0.002, bad.set_exception, KeyError("x"))
    await ended
    assert got == [1, "x"]


@pytest.mark.parametrize("waits", [0, 1, 3])
async def test_errors_are_told(crew: Crew, waits: int) -> None:
    async def work() -> None:
        await _wait(waits)
        raise KeyError("x")

    for _ in range(2):
        with pytest.raises(KeyError):
            await crew.run(work())
    assert await crew.run(_nothing()) is True


@pytest.mark.parametrize("waits", [0, 1])
async def test_a_context_is_never_handed_on(crew: Crew, waits: int) -> None:
    async def work() -> None:
        assert WHO.get() == "nobody"
        WHO.set("me")
        await _wait(waits)
        assert WHO.get() == "me"

    for _ in range(4):
        await crew.run(work())
    assert WHO.get() == "nobody"


@pytest.mark.parametrize("waits", [0, 1])
async def test_a_cancellation_is_never_handed_on(crew: Crew, waits: int) -> None:
    async def work() -> None:
        await _wait(waits)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        task.cancel()
        await asyncio.sleep(1)

    for _ in range(4):
        with pytest.raises(OSError, match="cancelled"):
            await crew.run(work())
        await crew.run(_wait(2))


async def test_a_cancellation_without_a_wait_is_not_handed_on_either(crew: Crew) -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    for _ in range(3):
        assert await crew.run(work()) is True
        await crew.run(_wait(2))


async def test_a_cancellation_on_the_way_is_heard_where_the_work_waits(crew: Crew) -> None:
    """Between the first step and the task's own; what was waited for is cancelled with it."""
    loop = asyncio.get_running_loop()
    for waited in (loop.create_future(), None):
        tasks: list[Any] = []
        heard: list[str] = []

        async def work(future: Any, tasks: list[Any], heard: list[str]) -> None:
            tasks.append(asyncio.current_task())
            try:
                await (asyncio.sleep(0) if future is None else future)
            except asyncio.CancelledError:
                heard.append("cancelled")
            tasks[0].uncancel()
            await asyncio.sleep(0)
            heard.append("ended")

        ended = crew.begin(work(waited, tasks, heard))
        loop.call_soon(lambda tasks=tasks: tasks[0].cancel())
        await ended
        assert heard == ["cancelled", "ended"]
        assert waited is None or waited.cancelled()


async def test_a_time_out_ends_the_wait_and_the_work_goes_on(crew: Crew) -> None:
    heard: list[str] = []

    async def work() -> None:
        never = asyncio.get_running_loop().create_future()
        for wait in (never, asyncio.sleep(10)):
            try:
                async with asyncio.timeout(0.01):
                    await wait
            except TimeoutError:
                heard.append("too late")
        assert never.cancelled()
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.001))
        with anyio.move_on_after(0.01):
            await asyncio.sleep(10)
        heard.append("ended")

    assert await crew.run(work()) is False
    assert heard == ["too late", "too late", "ended"]
    heard.clear()
    assert await crew.run(work()) is False, "and it leaves nothing behind"
    assert await crew.run(_nothing()) is True


@pytest.mark.parametrize("first", ["the value", "the cancellation"])
async def test_a_value_and_a_cancellation_in_one_turn(crew: Crew, first: str) -> None:
    """As in a task: where both have come before the next step, the work hears of the latter."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    tasks: list[Any] = []
    heard: list[Any] = []

    async def work() -> None:
        tasks.append(asyncio.current_task())
        try:
            heard.append(await asyncio.shield(future))
        except asyncio.CancelledError:
            heard.append("cancelled")
            tasks[0].uncancel()
        heard.append(await asyncio.sleep(0, "ended"))

    def both() -> None:
        steps = [lambda: future.set_result(7), tasks[0].cancel]
        for step in steps if first == "the value" else reversed(steps):
            step()

    ended = crew.begin(work())
    await asyncio.sleep(0)
    both()
    await ended
    assert heard == ["cancelled", "ended"]
    assert await crew.run(_wait(3)) is False


async def test_each_step_is_made_in_the_requests_own_context(crew: Crew) -> None:
    seen: list[str] = []

    async def work(name: str) -> None:
        WHO.set(name)
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(WHO.get())

    await asyncio.gather(*(crew.begin(work(name)) for name in "ab"))
    assert sorted(seen) == [*"aaabbb"]


async def test_many_at_a_time(crew: Crew) -> None:
    gate = asyncio.Event()

    async def work() -> None:
        await gate.wait()

    ended = [crew.begin(work()) for _ in range(50)]
    await asyncio.sleep(0.01)
    assert "busy=50" in repr(crew.tasks)
    gate.set()
    await asyncio.gather(*ended)
    await asyncio.sleep(0.01)
    assert repr(crew.tasks) == "<StandingTasks idle=2 busy=0>", "no more than may be idle"


async def test_closing_cancels_what_still_runs() -> None:
    crew = Crew()
    ended = crew.begin(asyncio.sleep(100))
    await asyncio.sleep(0.01)
    await crew.tasks.aclose()
    with pytest.raises(OSError, match="cancelled"):
        await ended
