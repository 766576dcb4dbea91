"""Settling a lost batch: the table, and the replays around it on a ledger made of answers."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from flashsale.errors import Indeterminate, Unavailable
from flashsale.failpoints import armed
from flashsale.lua.scripts import CLAIM_OUTCOMES, Call
from flashsale.model import Outcome
from flashsale.seckill.batch import SHED, Batch, Claimed, make_batch, settled
from flashsale.seckill.claims import REPLAYS_MAX, Settlement
from flashsale.seckill.ids import LedgerClock

pytestmark = pytest.mark.anyio

MINE = "515385561440059393"
OTHER = "515385561440059394"
LOST = Indeterminate("lost")


@pytest.mark.parametrize(
    ("code", "held", "answer"),
    [
        (0, MINE, Claimed(Outcome.SOLD, MINE)),
        (0, OTHER, Claimed(Outcome.SOLD, OTHER)),
        (2, MINE, Claimed(Outcome.SOLD, MINE)),
        (2, OTHER, Claimed(Outcome.DUPLICATE, OTHER)),
        (7, "", SHED),
        (1, "", None),
        (3, "", None),
        (4, "", None),
        (5, "", None),
        (6, "", None),
        (8, "", None),
        (9, "permit", None),
        (9, "books", None),
    ],
)
def test_table(code: int, held: str, answer: Claimed | None) -> None:
    assert settled([code, held], [MINE]) == [answer]


def test_table_covers_every_code() -> None:
    final = {code for code in CLAIM_OUTCOMES if settled([code, MINE], [MINE])[0] is not None}
    assert final == {0, 2, 7}


def test_one_user_twice_in_a_batch_is_sold_once() -> None:
    """The lost call sold the first pair; the replay finds its receipt for both."""
    assert settled([2, MINE, 2, MINE], [MINE, OTHER]) == [
        Claimed(Outcome.SOLD, MINE),
        Claimed(Outcome.DUPLICATE, MINE),
    ]


def test_unknown_code_is_no_answer() -> None:
    with pytest.raises(KeyError):
        settled([10, ""], [MINE])


def test_reply_of_another_length_is_no_answer() -> None:
    with pytest.raises(ValueError, match="argument"):
        settled([0, MINE], [MINE, OTHER])


class Ledger:
    """A channel that gives one prepared reply after the other; an exception raised is raised."""

    def __init__(self, *replies: Any) -> None:
        self._replies = list(replies)
        self.calls: list[Call] = []

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        await asyncio.sleep(0)
        self.calls += calls
        reply = self._replies.pop(0)
        if isinstance(reply, Unavailable):
            raise reply
        return [reply]


async def no_clock() -> tuple[int, int]:
    raise AssertionError("settling asks nobody for the time")


def batch_of(ids: Sequence[str], deadline_ms: int) -> Batch:
    sessions = [f"login:token:{order_id}" for order_id in ids]
    return make_batch(1, sessions, ids, deadline_ms, (60_000, 1_000, 90_000))


async def settle(ledger: Ledger, ids: Sequence[str] = (MINE,)) -> list[Claimed]:
    """The answers for a lost batch whose deadline has passed a moment ago."""
    batch = batch_of(ids, int(time.time() * 1000) - 50)
    settlement = Settlement(ledger, LedgerClock(no_clock))  # type: ignore[arg-type]
    answers = await asyncio.wait_for(asyncio.gather(*settlement.start(batch)), 2)
    await settlement.drain()
    assert settlement.replays == len(ledger.calls)
    assert all(call == batch.call for call in ledger.calls), "the replay is the very same call"
    return answers


async def test_a_receipt_of_mine_is_sold() -> None:
    assert await settle(Ledger([2, MINE])) == [Claimed(Outcome.SOLD, MINE)]


async def test_a_replay_that_sells_is_sold() -> None:
    assert await settle(Ledger([0, MINE])) == [Claimed(Outcome.SOLD, MINE)]


async def test_anothers_receipt_is_duplicate_with_the_id_held() -> None:
    assert await settle(Ledger([2, OTHER])) == [Claimed(Outcome.DUPLICATE, OTHER)]


async def test_past_the_deadline_without_a_receipt_is_shed() -> None:
    assert await settle(Ledger([7, ""])) == [SHED]


@pytest.mark.parametrize("code", [1, 3, 4, 5, 6, 8])
async def test_a_refusal_is_asked_again(code: int) -> None:
    """The lost call may still arrive and find the sale changed: sold out is no answer yet."""
    ledger = Ledger([code, ""], [2, MINE])
    assert await settle(ledger) == [Claimed(Outcome.SOLD, MINE)]
    assert len(ledger.calls) == 2


@pytest.mark.parametrize("trouble", [LOST, Unavailable("value"), Unavailable("raised")])
async def test_trouble_is_asked_again(trouble: Exception) -> None:
    assert await settle(Ledger(trouble, trouble, [2, MINE])) == [Claimed(Outcome.SOLD, MINE)]


async def test_unknown_comes_last_and_carries_my_id() -> None:
    ledger = Ledger(*[LOST] * REPLAYS_MAX)
    assert await settle(ledger) == [Claimed(Outcome.UNKNOWN, MINE)]
    assert len(ledger.calls) == REPLAYS_MAX


async def test_each_claim_is_settled_by_itself() -> None:
    ids = ("11", "12", "13")
    ledger = Ledger([2, "11", 1, "", 1, ""], [2, "11", 7, "", 1, ""], LOST)
    assert await settle(ledger, ids) == [
        Claimed(Outcome.SOLD, "11"),
        SHED,
        Claimed(Outcome.UNKNOWN, "13"),
    ]


async def test_what_is_settled_does_not_change() -> None:
    """The first final answer stands, whatever a later replay of the others says."""
    ids = ("11", "12")
    ledger = Ledger([2, "11", 1, ""], [7, "", 2, "12"])
    assert await settle(ledger, ids) == [Claimed(Outcome.SOLD, "11"), Claimed(Outcome.SOLD, "12")]


async def test_the_second_replay_waits_for_the_deadline() -> None:
    ledger = Ledger([1, ""], [7, ""])
    deadline_ms = int(time.time() * 1000) + 60
    batch = batch_of([MINE], deadline_ms)
    settlement = Settlement(ledger, LedgerClock(no_clock))  # type: ignore[arg-type]
    assert await settlement.start(batch)[0] == SHED
    assert time.time() * 1000 > deadline_ms


async def test_a_caller_who_left_does_not_stop_the_others() -> None:
    ledger = Ledger([2, "11", 2, "12"])
    batch = batch_of(["11", "12"], 0)
    settlement = Settlement(ledger, LedgerClock(no_clock))  # type: ignore[arg-type]
    gone, stays = settlement.start(batch)
    gone.cancel()
    assert await stays == Claimed(Outcome.SOLD, "12")


@pytest.mark.parametrize("reply", [[10, ""], [0, MINE, 0, MINE]], ids=["code", "length"])
async def test_a_reply_that_cannot_be_read_is_unknown(reply: list[Any]) -> None:
    """Not a caller who waits for ever, and not `failed`: it may have sold."""
    ledger = Ledger(*[reply] * REPLAYS_MAX)
    seen: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    batch = batch_of([MINE], 0)
    settlement = Settlement(ledger, LedgerClock(no_clock))  # type: ignore[arg-type]
    answer = await asyncio.wait_for(settlement.start(batch)[0], 1)
    assert answer == Claimed(Outcome.UNKNOWN, MINE)
    await settlement.drain()


async def test_drain_waits_for_what_is_open() -> None:
    ledger = Ledger([1, ""], [7, ""])
    settlement = Settlement(ledger, LedgerClock(no_clock))  # type: ignore[arg-type]
    (future,) = settlement.start(batch_of([MINE], 0))
    assert "open=1" in repr(settlement)
    await settlement.drain()
    assert future.result() == SHED


@pytest.mark.parametrize("point", ["settlement.replaying", "settlement.replayed"])
async def test_whoever_breaks_between_two_steps_leaves_nobody_waiting(point: str) -> None:
    def break_down() -> None:
        raise RuntimeError("planted")

    seen: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    settlement = Settlement(Ledger([2, MINE]), LedgerClock(no_clock))  # type: ignore[arg-type]
    with armed(point, break_down):
        answer = await asyncio.wait_for(settlement.start(batch_of([MINE], 0))[0], 1)
        await settlement.drain()
    assert answer == Claimed(Outcome.UNKNOWN, MINE)


async def test_a_clock_that_was_set_back_makes_no_claim_wait_for_ever() -> None:
    """The deadline is of tomorrow then; a claim still has its answer in a few time-outs."""
    ledger = Ledger([1, ""], [1, ""], [1, ""])
    settlement = Settlement(ledger, LedgerClock(no_clock), timeout_s=0.05)  # type: ignore[arg-type]
    batch = batch_of((MINE,), int((time.time() + 86_400) * 1000))
    answers = await asyncio.wait_for(asyncio.gather(*settlement.start(batch)), 10)
    assert answers == [Claimed(Outcome.UNKNOWN, MINE)]
