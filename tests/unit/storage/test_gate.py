"""The gate: batching, bounds, order, and that nobody who entered is left without an answer; and
gates whose calls leave in rounds."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.until import eventually

from flashsale.errors import Indeterminate, Unavailable
from flashsale.storage.gate import Bounds, Gate, GateFull, Rounds

pytestmark = pytest.mark.anyio


class Calls:
    """A `send` that waits to be told what to answer; its batches are on record."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._waiting: list[asyncio.Future[Sequence[str]]] = []
        self.open_max = 0

    @property
    def open(self) -> int:
        return sum(not call.done() for call in self._waiting)

    async def __call__(self, items: list[int]) -> Sequence[str]:
        self.batches.append(items)
        call: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        self._waiting.append(call)
        self.open_max = max(self.open_max, self.open)
        return await call

    def answer(self, nth: int, replies: Sequence[str] | None = None) -> None:
        self._waiting[nth].set_result(
            [f"r{item}" for item in self.batches[nth]] if replies is None else replies
        )

    def fail(self, nth: int, error: BaseException) -> None:
        self._waiting[nth].set_exception(error)


async def turns(count: int = 5) -> None:
    """Let the loop turn: enough for a flush and what follows it."""
    for _ in range(count):
        await asyncio.sleep(0)


def make(batch_max: int = 10, calls_max: int = 1, queue_max: int = 100) -> tuple[Gate, Calls]:  # type: ignore[type-arg]
    calls = Calls()
    return Gate(calls, Bounds(batch_max, calls_max, queue_max)), calls


async def test_who_arrives_in_one_turn_leaves_together() -> None:
    gate, calls = make()
    futures = [gate.enter(item) for item in (1, 2, 3)]
    await turns()
    assert calls.batches == [[1, 2, 3]]
    calls.answer(0)
    assert await asyncio.gather(*futures) == ["r1", "r2", "r3"]


async def test_who_arrives_during_a_call_leaves_together_after_it() -> None:
    gate, calls = make()
    first = gate.enter(1)
    await turns()
    late = []
    for item in (2, 3, 4):
        late.append(gate.enter(item))
        await turns()
    assert calls.batches == [[1]]
    assert gate.waiting == 3
    calls.answer(0)
    await first
    await turns()
    assert calls.batches == [[1], [2, 3, 4]]
    calls.answer(1)
    assert await asyncio.gather(*late) == ["r2", "r3", "r4"]


async def test_a_batch_has_its_bound_and_order_holds() -> None:
    gate, calls = make(batch_max=3)
    futures = [gate.enter(item) for item in range(8)]
    for nth in range(3):
        await turns()
        calls.answer(nth)
    assert await asyncio.gather(*futures) == [f"r{item}" for item in range(8)]
    assert calls.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


async def test_calls_in_flight_have_their_bound() -> None:
    gate, calls = make(batch_max=1, calls_max=2)
    futures = [gate.enter(item) for item in range(5)]
    await turns()
    assert (calls.open, gate.in_flight, gate.waiting) == (2, 2, 3)
    for nth in range(5):
        calls.answer(nth)
        await turns()
    await asyncio.gather(*futures)
    assert calls.open_max == 2


async def test_calls_are_answered_in_any_order() -> None:
    gate, calls = make(batch_max=1, calls_max=2)
    first, second = gate.enter(1), gate.enter(2)
    await turns()
    calls.answer(1)
    assert await second == "r2"
    assert not first.done()
    calls.answer(0)
    assert await first == "r1"


async def test_a_full_queue_refuses_and_takes_again() -> None:
    gate, calls = make(batch_max=1, queue_max=2)
    futures = [gate.enter(1)]
    await turns()
    futures += [gate.enter(2), gate.enter(3)]
    with pytest.raises(GateFull):
        gate.enter(4)
    calls.answer(0)
    await turns()
    futures.append(gate.enter(5))
    for nth in (1, 2, 3):
        await turns()
        calls.answer(nth)
    assert await asyncio.gather(*futures) == ["r1", "r2", "r3", "r5"]
    assert calls.batches == [[1], [2], [3], [5]], "the refused one was never sent"


async def test_less_room_is_left_only_while_somebody_waits() -> None:
    gate, calls = make(batch_max=1)
    futures = [gate.enter(1), gate.enter(2), gate.enter(3)]
    await turns()
    gate.room = 2
    with pytest.raises(GateFull):
        gate.enter(4)
    calls.answer(0)
    await turns()
    futures.append(gate.enter(5))
    for nth in (1, 2, 3):
        calls.answer(nth)
        await turns()
    assert await asyncio.gather(*futures) == ["r1", "r2", "r3", "r5"]
    assert gate.room == 100


@pytest.mark.parametrize("trouble", [Unavailable("away"), Indeterminate("lost")])
async def test_trouble_reaches_every_caller_of_the_batch_and_no_other(trouble: Exception) -> None:
    gate, calls = make(batch_max=2)
    hit = [gate.enter(1), gate.enter(2)]
    spared = gate.enter(3)
    await turns()
    calls.fail(0, trouble)
    assert await asyncio.gather(*hit, return_exceptions=True) == [trouble, trouble]
    await turns()
    calls.answer(1)
    assert await spared == "r3"


def _broken() -> list[Callable[[Calls], None]]:
    return [
        lambda calls: calls.fail(0, KeyError(9)),
        lambda calls: calls.answer(0, ["only one"]),
        lambda calls: calls.answer(0, ["one", "two", "three", "too many"]),
    ]


@pytest.mark.parametrize("breaks", _broken(), ids=["bug", "too few replies", "too many replies"])
async def test_a_bug_in_send_leaves_nobody_waiting(breaks: Callable[[Calls], None]) -> None:
    """An answer of any kind: a caller who waits for ever is the one thing that must not be."""
    gate, calls = make(batch_max=2)
    hit = [gate.enter(1), gate.enter(2)]
    after = gate.enter(3)
    await turns()
    breaks(calls)
    answers = await asyncio.wait_for(asyncio.gather(*hit, return_exceptions=True), 1)
    assert all(isinstance(answer, (KeyError, ValueError)) for answer in answers), "no wrong answer"
    await turns()
    assert calls.batches == [[1, 2], [3]], "the gate stays open for those who come after"
    calls.answer(1)
    assert await after == "r3"


async def test_a_caller_who_left_disturbs_nobody() -> None:
    gate, calls = make()
    gone, stays = gate.enter(1), gate.enter(2)
    await turns()
    gone.cancel()
    calls.answer(0)
    assert await stays == "r2"
    assert gone.cancelled()


async def test_a_caller_who_left_a_failed_batch_disturbs_nobody() -> None:
    gate, calls = make()
    gone, stays = gate.enter(1), gate.enter(2)
    await turns()
    gone.cancel()
    calls.fail(0, Unavailable("away"))
    with pytest.raises(Unavailable):
        await stays


async def test_a_cancelled_call_leaves_nobody_waiting() -> None:
    gate, _ = make()
    future = gate.enter(1)
    await turns()
    for task in list(gate._tasks):
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(future, 1)
    await turns()
    assert gate.in_flight == 0


async def test_it_counts_and_tells_its_state() -> None:
    gate, calls = make(batch_max=2)
    futures = [gate.enter(item) for item in range(3)]
    await turns()
    assert "waiting=1" in repr(gate)
    assert "in_flight=1" in repr(gate)
    calls.answer(0)
    await turns()
    calls.answer(1)
    await asyncio.gather(*futures)
    assert (gate.calls, gate.items, gate.waiting, gate.in_flight) == (2, 3, 0, 0)


@pytest.mark.parametrize("late_by", ["a value", "an error", "a cancellation"])
async def test_a_reply_that_is_a_future_is_passed_on_and_keeps_no_call(late_by: str) -> None:
    gate, calls = make()
    future, gone, plain = gate.enter(1), gate.enter(2), gate.enter(3)
    await turns()
    late: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in "12"]
    calls.answer(0, [late[0], late[1], "r3"])  # type: ignore[list-item]
    assert await plain == "r3"
    await turns()
    assert gate.in_flight == 0
    assert not future.done()
    gone.cancel()
    late[1].set_result("r2")
    if late_by == "a value":
        late[0].set_result("r1")
        assert await future == "r1"
    elif late_by == "an error":
        late[0].set_exception(Unavailable("later"))
        with pytest.raises(Unavailable, match="later"):
            await future
    else:
        late[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await future


@given(
    sizes=st.lists(st.integers(0, 7), max_size=12),
    batch_max=st.integers(1, 5),
    calls_max=st.integers(1, 3),
)
@settings(max_examples=60)
async def test_every_item_is_sent_once_in_order_within_bounds(
    sizes: list[int], batch_max: int, calls_max: int
) -> None:
    sent: list[int] = []
    in_flight = [0, 0]

    async def send(items: list[int]) -> list[int]:
        assert 0 < len(items) <= batch_max
        sent.extend(items)
        in_flight[0] += 1
        in_flight[1] = max(in_flight)
        await asyncio.sleep(0)
        in_flight[0] -= 1
        return [-item for item in items]

    gate: Gate[int, int] = Gate(send, Bounds(batch_max, calls_max, 1000))
    futures = []
    for size in sizes:
        futures += [gate.enter(len(futures) + n) for n in range(size)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*futures) == [-item for item in range(len(futures))]
    assert sent == list(range(len(futures)))
    assert in_flight[1] <= calls_max


# Rounds -------------------------------------------------------------------------------------------


def make_lanes(count: int = 3) -> tuple[list[Gate], list[Calls]]:  # type: ignore[type-arg]
    calls, rounds = [Calls() for _ in range(count)], Rounds()
    return [Gate(each, Bounds(10, 1, 100), rounds=rounds) for each in calls], calls


async def test_what_comes_while_a_round_is_under_way_leaves_with_the_others_in_the_next() -> None:
    gates, calls = make_lanes()
    first = [gate.enter(1) for gate in gates[:2]]
    await turns()
    later = [gates[2].enter(2), gates[0].enter(2), gates[2].enter(3)]
    await turns()
    assert [each.batches for each in calls] == [[[1]], [[1]], []]
    calls[0].answer(0)
    await turns()
    assert [each.batches for each in calls] == [[[1]], [[1]], []], "one of the round is under way"
    calls[1].answer(0)
    await turns(8)
    assert [each.batches for each in calls] == [[[1], [2]], [[1]], [[2, 3]]]
    calls[0].answer(1)
    calls[2].answer(0)
    assert await asyncio.gather(*first, *later) == ["r1", "r1", "r2", "r2", "r3"]


async def test_a_call_that_does_not_end_holds_up_no_other_for_long() -> None:
    gates, calls = make_lanes(2)
    stuck = gates[0].enter(1)
    await turns()
    for number in range(5):
        future = gates[1].enter(number)
        await eventually(lambda number=number: len(calls[1].batches) == number + 1)
        calls[1].answer(number)
        assert await future == f"r{number}"
    assert not stuck.done()
    calls[0].answer(0)
    assert await stuck == "r1"
    again = gates[0].enter(2)
    await turns()
    calls[0].answer(1)
    assert await again == "r2"


async def test_a_call_that_fails_ends_its_round_and_one_that_is_cancelled_too() -> None:
    gates, calls = make_lanes(2)
    failing, cancelled = gates[0].enter(1), gates[1].enter(1)
    await turns()
    waiting = gates[0].enter(2)
    calls[0].fail(0, Unavailable("away"))
    next(iter(gates[1]._tasks)).cancel()
    await turns(8)
    assert calls[0].batches == [[1], [2]]
    calls[0].answer(1)
    assert await waiting == "r2"
    with pytest.raises(Unavailable):
        await failing
    assert cancelled.cancelled()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=40))
@settings(max_examples=60)
async def test_in_rounds_too_everybody_is_answered_once(arrivals: list[tuple[int, int]]) -> None:
    rounds, sent = Rounds(), []

    async def send(items: list[int]) -> list[int]:
        sent.extend(items)
        await turns(len(items))
        return items

    gates: list[Gate[int, int]] = [Gate(send, Bounds(3, 2, 100), rounds=rounds) for _ in range(3)]
    futures = []
    for number, (lane, pause) in enumerate(arrivals):
        futures.append(gates[lane].enter(number))
        await turns(pause)
    assert await asyncio.gather(*futures) == list(range(len(arrivals)))
    assert sorted(sent) == list(range(len(arrivals)))
    for gate in gates:
        await gate.drain()
    assert (rounds._under_way, rounds._next) == (0, None)
