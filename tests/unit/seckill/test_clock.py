"""The ledger's clock: Redis' time, from its own answers."""

import time

import pytest

from flashsale.errors import Unavailable
from flashsale.seckill.clock import LedgerClock

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("ahead_s", [-90_000.0, 0.0, 3.25])
async def test_follows_redis_not_this_machine(ahead_s: float) -> None:
    async def read() -> tuple[int, int]:
        seconds, fraction = divmod(time.time() + ahead_s, 1)
        return int(seconds), int(fraction * 1e6)

    clock = LedgerClock(read)
    await clock.sync()
    assert clock.now_s() - time.time() == pytest.approx(ahead_s, abs=0.5)
    assert clock.now_ms() == pytest.approx(clock.now_s() * 1000, abs=500)


async def test_a_failed_reading_keeps_the_last_offset() -> None:
    answers = [(int(time.time()) + 1000, 0)]

    async def read() -> tuple[int, int]:
        if not answers:
            raise Unavailable("away")
        return answers.pop()

    clock = LedgerClock(read)
    await clock.sync()
    with pytest.raises(Unavailable):
        await clock.sync()
    assert clock.now_s() - time.time() == pytest.approx(1000, abs=2)
