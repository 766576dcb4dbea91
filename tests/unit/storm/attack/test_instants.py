import asyncio
import time
from time import monotonic_ns

import anyio
import pytest
import uvloop

from flashsale.scenario.scenario import Timeouts
from flashsale.storm.attack import instants
from flashsale.storm.attack.instants import Alarm, Deadlines, unix_us_at, until_unix_us, wait_until

MS = 1_000_000


async def rings(*waits_ms: int) -> list[int]:
    """Set the alarm for each wait in turn; how long after its instant it rang, in ns."""
    loop = asyncio.get_running_loop()
    rung = asyncio.Event()
    clock = Alarm(loop, rung.set)
    lags = []
    for wait_ms in waits_ms:
        at_ns = monotonic_ns() + wait_ms * MS
        clock.set(at_ns)
        await asyncio.wait_for(rung.wait(), 5)
        rung.clear()
        lags.append(monotonic_ns() - at_ns)
    clock.close()
    clock.close()
    return lags


@pytest.mark.parametrize("timer_file", [True, False])
def test_it_rings_at_its_instant_and_at_once_for_one_that_has_passed(
    timer_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not timer_file:  # elsewhere than on Linux
        monkeypatch.setattr(instants, "_timer_file", lambda: None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lags = runner.run(rings(5, 1, -5, 3))
    early_ms = 0 if timer_file else 1  # the loop's own timers round to the millisecond
    assert all(-early_ms * MS <= lag < 2_000 * MS for lag in lags)


def test_an_alarm_that_is_closed_or_set_anew_does_not_ring_for_the_old_instant() -> None:
    async def set_anew() -> int:
        count = [0]

        def ring() -> None:
            count[0] += 1

        clock = Alarm(asyncio.get_running_loop(), ring)
        clock.set(monotonic_ns() + 5 * MS)
        clock.set(monotonic_ns() + 10 * MS)
        await asyncio.sleep(0.1)
        clock.set(monotonic_ns() + 5 * MS)
        clock.close()
        await asyncio.sleep(0.02)
        return count[0]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(set_anew()) == 1


def test_the_two_clocks_are_told_apart() -> None:
    ahead_ns = 3_000_000_000
    now_us = time.time_ns() // 1000
    assert abs(unix_us_at(monotonic_ns() + ahead_ns) - now_us - 3_000_000) < 1_000_000
    assert 0 < until_unix_us(now_us + 60_000_000) <= 60_000_000_000
    assert until_unix_us(now_us - 1) < 0


@pytest.mark.anyio
async def test_waiting_ends_at_the_instant_and_not_before() -> None:
    instant_ns = monotonic_ns() + 30_000_000
    with anyio.fail_after(10):
        await wait_until(instant_ns)
    assert monotonic_ns() >= instant_ns


@pytest.mark.anyio
async def test_an_instant_that_has_passed_is_not_waited_for() -> None:
    with anyio.fail_after(10):
        await wait_until(monotonic_ns() - 1)


# Deadlines ---------------------------------------------------------------------------------------


def deadlines() -> Deadlines:
    """A run of 100 ms with a drain of 30, whose barrier opens at 50 ms."""
    made = Deadlines(Timeouts(run_ms=100, drain_ms=30))
    made.start(50 * MS)
    return made


def test_a_run_has_an_end_counted_from_the_barrier() -> None:
    running = deadlines()
    assert running.passed(150 * MS - 1, all_sent=False) is None
    assert running.passed(150 * MS, all_sent=False) == "deadline"


def test_the_drain_is_counted_from_the_first_look_at_which_all_was_sent() -> None:
    running = deadlines()
    assert running.passed(60 * MS, all_sent=False) is None
    assert running.passed(70 * MS, all_sent=True) is None
    assert running.passed(100 * MS - 1, all_sent=True) is None
    assert running.passed(100 * MS, all_sent=True) == "deadline"


def test_told_to_stop_what_is_out_gets_a_moment_and_told_twice_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instants, "INTERRUPT_GRACE_S", 0.01)
    running = deadlines()
    assert not running.stopped
    assert running.stop(60 * MS, "aborted") is True
    assert running.stopped
    assert running.passed(70 * MS - 1, all_sent=True) is None
    assert running.passed(70 * MS, all_sent=True) == "aborted"
    again = deadlines()
    assert (again.stop(60 * MS, "aborted"), again.stop(61 * MS, "interrupted")) == (True, False)
    assert again.passed(61 * MS, all_sent=False) == "interrupted"
