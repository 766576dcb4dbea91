"""The Bloom filter: 1,000,000 ids into a real Redis, and how many unknown ones pass."""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.table import Section, median, spread
from flashsale.cache.bloom import Bitmap, Bloom, Shape
from flashsale.cache.client import CacheClient
from flashsale.settings import BloomSettings, CacheSettings
from flashsale.stack.redis import RedisRole, RedisServer

IDS = 1_000_000
UNKNOWN = 100_000
LIMIT_S = 10.0
LIMIT_SHARE = 0.01
_PAGE = 10_000
_BATCH = 250


def measure(runs: int) -> Section:
    """`runs` times 1,000,000 ids, then 100,000 that are not among them."""
    section = Section(f"Bloom filter: {IDS:,} ids, rebuilt and switched to")
    with (
        tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder,
        RedisServer(RedisRole.CACHE, Path(folder, "cache")) as cache,
    ):
        figures = asyncio.run(_runs(cache.url, runs))
    seconds, cpu, shares, reads = (list(column) for column in zip(*figures, strict=True))
    took_s, share = median(seconds), max(shares)
    section.add("fill, s", spread(seconds, 2), f"≤ {LIMIT_S:g}", took_s <= LIMIT_S)
    section.add("fill, CPU s", spread(cpu, 2))
    section.add(
        f"false positives of {UNKNOWN:,}, %",
        spread([100 * each for each in shares], 3),
        f"< {100 * LIMIT_SHARE:g}",
        share < LIMIT_SHARE,
    )
    full = 100 * _at_capacity()
    section.add("the same at full capacity, in memory, %", f"{full:.3f}", "< 1.1", full < 1.1)
    section.add("peer: checks/s, 250 ids a call", spread(reads))
    shape = Shape.sized(round(IDS * BloomSettings().headroom), BloomSettings().false_positives)
    section.notes.append(f"{runs} runs; {shape}, {shape.bits / 8e6:.1f} MB, read in pages")
    return section


async def _runs(url: str, runs: int) -> list[tuple[float, ...]]:
    cache = CacheClient(url, CacheSettings.load(), BloomSettings.load(module=False))
    figures = [await _run(cache.bloom("bench"), seed) for seed in range(runs)]
    await cache.aclose()
    return figures


async def _run(bloom: Bloom, seed: int) -> tuple[float, ...]:
    """Seconds, CPU seconds, the share of unknown ids that passed, and checks a second."""
    started, cpu_started = time.perf_counter(), time.process_time()
    await bloom.rebuild(_pages(), expected=IDS, settle_ms=0)
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    rng = random.Random(seed)
    unknown = [rng.randrange(IDS + 1, 2**63) for _ in range(UNKNOWN)]
    started = time.perf_counter()
    passed = 0
    for start in range(0, UNKNOWN, _BATCH):
        passed += sum(
            told is not False for told in await bloom.check(unknown[start : start + _BATCH])
        )
    return took_s, cpu_s, passed / UNKNOWN, UNKNOWN / (time.perf_counter() - started)


def _pages() -> Iterator[Sequence[int]]:
    for start in range(1, IDS + 1, _PAGE):
        yield range(start, start + _PAGE)


def _at_capacity() -> float:
    shape = Shape.sized(200_000, BloomSettings().false_positives)
    bitmap = Bitmap(shape)
    bitmap.add(range(shape.capacity))
    return sum(each in bitmap for each in range(10**9, 10**9 + UNKNOWN)) / UNKNOWN
