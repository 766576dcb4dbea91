"""A cached read: CPU in the process that reads, and in Redis, by strategy."""

import asyncio
import resource
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.cpu import cpu_s
from benchmarks.table import Section, median, spread
from flashsale.cache.client import CacheClient
from flashsale.cache.strategies import Entries, Strategy
from flashsale.settings import BloomSettings, CacheSettings
from flashsale.stack.redis import RedisRole, RedisServer

READS = 40_000
SHOPS = 1_000
READERS = 64
LIMIT_US = 32.0
"""The bare HTTP answer's (section `peers`): with it a cached read costs at most twice as much."""

_SHOP = {"name": "A tea house by the lake", "typeId": 1, "images": "x" * 300, "score": 47}

Figures = list[tuple[float, float]]


def measure(runs: int) -> Section:
    """`runs` times 40,000 hits of 1,000 shops by 64 readers."""
    section = Section(f"cached read: {READERS} readers of {SHOPS:,} entries, all hits")
    with (
        tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder,
        RedisServer(RedisRole.CACHE, Path(folder, "cache")) as cache,
    ):
        assert cache.process is not None
        figures = uvloop.run(_figures(cache.url, cache.process.pid, runs))
    for what, taken in figures.items():
        own = [each for each, _ in taken]
        section.add(
            f"{what}: µs a read", spread(own, 1), f"≤ {LIMIT_US:g}", median(own) <= LIMIT_US
        )
        section.add(f"{what}: µs of Redis", spread([redis for _, redis in taken], 1))
    section.notes.append(f"{runs} runs of {READS:,} reads; CPU, not wall time; no HTTP around it")
    return section


async def _figures(url: str, redis_pid: int, runs: int) -> dict[str, Figures]:
    cache = CacheClient(url, CacheSettings.load(), BloomSettings.load(module=False))

    async def load(shop_id: int) -> dict[str, Any]:
        return {"id": shop_id, **_SHOP}

    async def nobody(shop_id: int) -> None:
        return None

    filter_ = cache.bloom("shop")
    await filter_.rebuild([range(1, SHOPS + 1)], expected=SHOPS, settle_ms=0)
    kinds: dict[str, tuple[Entries[Any], int]] = {
        "mutex": (cache.entries("m", load, strategy=Strategy.MUTEX, ttl_s=600), 1),
        "logical": (cache.entries("l", load, strategy=Strategy.LOGICAL, ttl_s=600), 1),
        "pass-through": (
            cache.entries("p", load, strategy=Strategy.PASS_THROUGH, ttl_s=600, bloom=filter_),
            1,
        ),
        "rejected by Bloom": (
            cache.entries("u", nobody, strategy=Strategy.PASS_THROUGH, ttl_s=600, bloom=filter_),
            10**9,
        ),
    }
    await kinds["logical"][0].warm(range(1, SHOPS + 1))
    taken: dict[str, Figures] = {}
    for what, (entries, first) in kinds.items():
        await asyncio.gather(*(entries.read(first + i) for i in range(SHOPS)))
        taken[what] = [await _run(entries.read, first, redis_pid) for _ in range(runs)]
    await cache.aclose()
    return taken


async def _run(
    read: Callable[[int], Awaitable[object]], first: int, redis_pid: int
) -> tuple[float, float]:
    async def reader(start: int) -> None:
        for i in range(READS // READERS):
            await read(first + (start + i * READERS) % SHOPS)

    own, redis = _own_s(), cpu_s(redis_pid)
    await asyncio.gather(*(reader(start) for start in range(READERS)))
    return (_own_s() - own) / READS * 1e6, (cpu_s(redis_pid) - redis) / READS * 1e6


def _own_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
