"""Ten times what a replica carries, on a simulated clock: who is served is served soon, the rest is
told so soon, and when it is over it is over.
"""

import asyncio
import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from rig.scripted_ledger import Ledger, Sale
from rig.scripted_redis import Fate, Greeting, ScriptedRedis
from rig.virtual_loop import EPOCH_S, VirtualLoop, clocks_of

from flashsale.model import Outcome
from flashsale.seckill.claims import Claims
from flashsale.settings import ClaimSettings, SessionSettings
from flashsale.storage.gate import Admission, Bounds

CARRIES_PER_S = 280  # two calls of four claims take 28 ms on average
BEFORE, CALM, STORM, AFTER = (0.0, 1.0), (1.0, 4.0), (4.0, 9.0), (9.0, 12.0)
"""Nine tenths of what it carries, while it connects and then; ten times all; nine tenths again."""
KNOWN_S = 0.5
"""By then such a load is told from a crowd: the queue is full after 2 s / 9, and for 2 s / 8."""


class Answered(NamedTuple):
    """One claim: when it came, how long it took, and what it was told."""

    came_s: float
    took_s: float
    outcome: Outcome


class Replica:
    """One replica before a ledger of one speed."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        draw = random.Random(1)
        self.ledger = Ledger(lambda: EPOCH_S + self.loop.time(), draw)
        self.ledger.kept.sales["1"] = Sale(10**9)
        fine = ({Fate.FINE: 1.0}, {Greeting.FINE: 1.0})
        self.redis = ScriptedRedis(self.loop, self.ledger, draw, *fine, 1.0, lambda _: None)
        self.redis.moment_s = 0.02
        self.loop.connect = self.redis.connect
        self.answered: list[Answered] = []
        self.waiting_max = 0

    def run(self, instants: list[float], times: int = 1) -> None:
        """Somebody comes at each instant, so many times, each as soon as he has his answer."""
        with clocks_of(self.loop):
            asyncio.set_event_loop(self.loop)
            try:
                self.loop.run_until_complete(self._run(instants, times))
            finally:
                asyncio.set_event_loop(None)
                self.loop.close()

    async def _run(self, instants: list[float], times: int) -> None:
        self.claims = Claims(
            "redis://ledger.invalid", ClaimSettings(batch_max=4), SessionSettings()
        )
        users = (self._come(n, at_s, times) for n, at_s in enumerate(instants))
        await asyncio.gather(*users)
        await self.claims.aclose()

    async def _come(self, number: int, at_s: float, times: int) -> None:
        await asyncio.sleep(at_s - self.loop.time())
        for time in range(times):
            await self._claim(f"{number}-{time}")

    async def _claim(self, user: str) -> None:
        session = f"login:token:{user}"
        self.ledger.kept.sessions[session] = user
        came_s = self.loop.time()
        answer = await self.claims.claim(1, session)
        assert answer is not None
        self.waiting_max = max(self.waiting_max, self.claims.gate.waiting)
        self.answered.append(Answered(came_s, self.loop.time() - came_s, answer.outcome))

    def of(self, span: tuple[float, float], *outcomes: Outcome) -> list[Answered]:
        begin_s, end_s = span
        return [
            it for it in self.answered if begin_s <= it.came_s < end_s and it.outcome in outcomes
        ]


def arrivals(*phases: tuple[tuple[float, float], float]) -> Iterator[float]:
    """Evenly, at a rate each."""
    for (begin_s, end_s), per_s in phases:
        for n in range(int((end_s - begin_s) * per_s)):
            yield begin_s + n / per_s


def p99(answered: list[Answered]) -> float:
    return sorted(it.took_s for it in answered)[int(len(answered) * 0.99)]


@pytest.fixture(scope="module")
def replica() -> Replica:
    replica = Replica()
    calm = 0.9 * CARRIES_PER_S
    replica.run(
        list(arrivals((BEFORE, calm), (CALM, calm), (STORM, 10 * CARRIES_PER_S), (AFTER, calm)))
    )
    return replica


def test_within_what_it_carries_nobody_is_shed(replica: Replica) -> None:
    assert not replica.of(CALM, Outcome.SHED)


def test_who_is_served_in_overload_is_served_soon(replica: Replica) -> None:
    """But for its beginning, which might be a crowd that comes at once."""
    after_s = STORM[0] + KNOWN_S
    capacity, overload = (
        replica.of(CALM, Outcome.SOLD),
        replica.of((after_s, STORM[1]), Outcome.SOLD),
    )
    assert p99(overload) <= p99(capacity)
    rate = len(overload) / (STORM[1] - after_s)
    assert rate >= 0.9 * CARRIES_PER_S, "it serves as many as it can"


def test_it_is_known_before_a_hundredth_of_a_minute_was_served_late(replica: Replica) -> None:
    late = [it for it in replica.of(STORM, Outcome.SOLD) if it.took_s > 0.1]
    assert len(late) <= 0.01 * 60 * CARRIES_PER_S
    assert max(it.took_s for it in late) <= KNOWN_S


def test_the_rest_is_told_so_soon(replica: Replica) -> None:
    shed = replica.of((STORM[0] + KNOWN_S, STORM[1]), Outcome.SHED)
    assert len(shed) > 0.8 * (STORM[1] - STORM[0] - KNOWN_S) * 10 * CARRIES_PER_S
    assert max(it.took_s for it in shed) <= p99(replica.of(CALM, Outcome.SOLD))


def test_no_more_wait_than_are_served_in_time(replica: Replica) -> None:
    assert replica.waiting_max <= 2 * 1.5 * CARRIES_PER_S


def test_when_it_is_over_it_is_over(replica: Replica) -> None:
    soon = (AFTER[0] + 1.0, AFTER[1])
    assert not replica.of(soon, Outcome.SHED)
    assert p99(replica.of(soon, Outcome.SOLD)) <= 1.5 * p99(replica.of(CALM, Outcome.SOLD))


def test_a_crowd_that_comes_at_once_is_served() -> None:
    """All that can be served within the time-out of the queue."""
    replica = Replica()
    replica.run([1.0] * int(1.7 * CARRIES_PER_S))
    assert {it.outcome for it in replica.answered} == {Outcome.SOLD}


def test_a_queue_that_never_ends_but_moves_is_no_overload() -> None:
    """Users who each wait for their answer before they come again: it is never empty, and nobody
    waits for as long as the time-out, so nobody is shed."""
    replica = Replica()
    replica.run([0.0] * 200, times=8)
    assert len(replica.answered) == 1_600
    assert max(it.came_s for it in replica.answered) > 4
    assert {it.outcome for it in replica.answered} == {Outcome.SOLD}


BOUNDS = Bounds(batch_max=10, calls_max=1, queue_max=10_000)


def known_overrun(now_s: float = 0.0) -> Admission:
    admission = Admission(BOUNDS, 2.0)
    assert admission.called(10, 0.08, now_s) == 2.0 / 0.01 * 10
    assert admission.is_over(2.1, now_s)
    return admission


def test_a_crowd_may_wait_for_the_whole_time_out_and_fill_the_queue() -> None:
    admission = Admission(BOUNDS, 2.0)
    admission.called(10, 0.08, 0.0)
    for instant in range(24):
        admission.refused(instant / 100)
    assert not admission.is_over(2.0, 0.24)
    assert not admission.is_overrun


def test_no_room_for_longer_than_a_crowd_takes_is_an_overrun() -> None:
    admission = Admission(BOUNDS, 2.0)
    admission.called(10, 0.08, 0.0)
    for instant in range(26):
        admission.refused(instant / 100)
    assert admission.is_overrun
    assert admission.is_over(0.05, 0.3)
    assert not admission.is_over(0.04, 0.3)
    admission.call_s = 0.04
    assert admission.called(10, 0.04, 0.31) == 10


def test_refusals_far_apart_are_none() -> None:
    admission = Admission(BOUNDS, 2.0)
    for instant in range(9):
        admission.refused(instant * 0.3)
    assert not admission.is_overrun


@pytest.mark.parametrize(("call_s", "expected"), [(0.001, 0.02), (0.1, 0.4), (5.0, 2.0)])
def test_in_an_overrun_nobody_waits_longer_than_four_calls(call_s: float, expected: float) -> None:
    admission = known_overrun()
    admission.call_s = call_s
    assert admission.most_s == expected


@pytest.mark.parametrize(("too_many", "is_over"), [(9, True), (15, False)])
def test_an_overrun_is_over_when_next_to_nobody_was_too_many(too_many: int, is_over: bool) -> None:
    admission = known_overrun()
    for _ in range(too_many):
        admission.shed()
    admission.called(100, 0.01, 0.4)
    assert admission.is_overrun
    admission.called(1, 0.01, 0.6)
    assert admission.is_overrun is not is_over


def test_an_overrun_is_over_when_nobody_came_for_a_while() -> None:
    admission = known_overrun()
    for _ in range(100):
        admission.shed()
    admission.called(1, 0.01, 60.0)
    assert not admission.is_overrun
