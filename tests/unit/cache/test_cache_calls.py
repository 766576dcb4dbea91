"""The breaker: open after one failure, until a probe has found the cache again."""

import asyncio

import pytest
from rig.until import eventually

from flashsale.cache.calls import Breaker
from flashsale.errors import Unavailable

pytestmark = pytest.mark.anyio


class Cache:
    """Away for so many probes."""

    def __init__(self, away_for: int) -> None:
        self.away_for = away_for
        self.probes = 0

    async def ping(self) -> None:
        self.probes += 1
        if self.probes <= self.away_for:
            raise Unavailable("away")


async def test_the_first_probe_is_at_once() -> None:
    cache = Cache(away_for=0)
    breaker = Breaker(cache.ping, interval_s=60)
    breaker.trip()
    assert breaker.is_open
    await asyncio.sleep(0)
    assert not breaker.is_open


async def test_open_until_found_and_tripped_again() -> None:
    cache = Cache(away_for=3)
    breaker = Breaker(cache.ping, interval_s=0.001)
    breaker.trip()
    breaker.trip()
    await eventually(lambda: not breaker.is_open)
    assert (cache.probes, breaker.opened) == (4, 1), "tripping an open one changes nothing"
    breaker.trip()
    assert (breaker.is_open, breaker.opened) == (True, 2)
    await breaker.aclose()


async def test_closing_ends_the_probes_for_good() -> None:
    cache = Cache(away_for=10**9)
    breaker = Breaker(cache.ping, interval_s=0.001)
    breaker.trip()
    await asyncio.sleep(0)
    await breaker.aclose()
    seen = cache.probes
    breaker.is_open = False
    breaker.trip()
    await asyncio.sleep(0.01)
    assert cache.probes == seen
