import time
from time import monotonic_ns

import anyio
import pytest

from flashsale.storm.attack.barrier import unix_us_at, until_unix_us, wait_until

pytestmark = pytest.mark.anyio


def test_the_two_clocks_are_told_apart() -> None:
    ahead_ns = 3_000_000_000
    now_us = time.time_ns() // 1000
    assert abs(unix_us_at(monotonic_ns() + ahead_ns) - now_us - 3_000_000) < 1_000_000
    assert 0 < until_unix_us(now_us + 60_000_000) <= 60_000_000_000
    assert until_unix_us(now_us - 1) < 0


async def test_waiting_ends_at_the_instant_and_not_before() -> None:
    instant_ns = monotonic_ns() + 30_000_000
    with anyio.fail_after(10):
        await wait_until(instant_ns)
    assert monotonic_ns() >= instant_ns


async def test_an_instant_that_has_passed_is_not_waited_for() -> None:
    with anyio.fail_after(10):
        await wait_until(monotonic_ns() - 1)
