"""The limit on loads."""

import asyncio

import pytest

from flashsale.cache.limit import Limit
from flashsale.errors import Unavailable

pytestmark = pytest.mark.anyio


async def test_so_many_at_a_time_in_order() -> None:
    limit = Limit(2, waiting_max=10, wait_s=5)
    running, most, order = 0, 0, []

    async def work(i: int) -> None:
        nonlocal running, most
        async with limit.turn():
            running += 1
            most = max(most, running)
            order.append(i)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(work(i) for i in range(10)))
    assert (most, order) == (2, list(range(10)))
    assert (limit.running, limit.waiting, limit.refused) == (0, 0, 0)


async def test_one_more_than_may_wait_is_refused_at_once() -> None:
    limit = Limit(1, waiting_max=1, wait_s=5)
    async with limit.turn():
        waits = asyncio.create_task(limit.turn().__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many"):
            async with limit.turn():
                pass
    await waits
    assert (limit.running, limit.refused) == (1, 1)


async def test_nobody_waits_longer_than_that() -> None:
    limit = Limit(1, waiting_max=1, wait_s=0.005)
    async with limit.turn():
        with pytest.raises(Unavailable, match="in time"):
            async with limit.turn():
                pass
    async with limit.turn():
        assert limit.waiting == 0


async def test_a_turn_ends_with_trouble_and_with_cancellation() -> None:
    limit = Limit(1, waiting_max=5, wait_s=5)
    with pytest.raises(OSError, match="trouble"):
        async with limit.turn():
            raise OSError("trouble")
    async with limit.turn():
        gone = asyncio.create_task(limit.turn().__aenter__())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    async with limit.turn():
        assert (limit.running, limit.waiting) == (1, 0)
