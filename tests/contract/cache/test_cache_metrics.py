"""What a scrape says of the cache."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from rig.versions import Versions, client, kind

from flashsale.cache.strategies import Strategy
from flashsale.server.metrics import CacheCollector

pytestmark = pytest.mark.anyio

THING = 'kind="thing",strategy="pass_through"'


def scrape(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


async def test_reads_loads_and_filters(cache_url: str) -> None:
    async with client(cache_url) as mine:
        things = kind(mine, Versions(1), Strategy.PASS_THROUGH)
        registry = CollectorRegistry()
        registry.register(CacheCollector(mine))
        before = scrape(registry)
        assert before[f"flashsale_cache_loads_total{{{THING}}}"] == 0
        assert before['flashsale_bloom_present{filter="thing"}'] == 0
        await mine.bloom("thing").rebuild([[1]], expected=1)
        for _ in range(3):
            await things.read(1)
        await asyncio.gather(*(things.read(each) for each in range(100, 120)))
        await mine.keep_once()
        after = scrape(registry)
        read = 'flashsale_cache_reads_total{kind="thing",outcome="%s",strategy="pass_through"}'
        assert [after[read % outcome] for outcome in ("hit", "load", "bloom", "stale")] == [
            2,
            1,
            20,
            0,
        ]
        assert after[f"flashsale_cache_loads_total{{{THING}}}"] == 1
        fills = 'flashsale_cache_fills_total{kind="thing",result="filled",strategy="pass_through"}'
        assert after[fills] == 1
        assert after['flashsale_bloom_present{filter="thing"}'] == 1
        assert after['flashsale_bloom_capacity_ids{filter="thing"}'] == 10_000
        assert 0 < after['flashsale_bloom_fill_ratio{filter="thing"}'] < 0.001
        assert after['flashsale_bloom_false_positive_ratio{filter="thing"}'] < 1e-9
        assert after["flashsale_cache_breaker_open"] == 0
        assert after["flashsale_cache_owed_deletes"] == 0


async def test_a_cache_that_is_away(cache_url: str) -> None:
    async with client("redis://127.0.0.1:1/0") as mine:
        things = kind(mine, Versions(1))
        registry = CollectorRegistry()
        registry.register(CacheCollector(mine))
        await things.read(1)
        await things.invalidate(1)
        after = scrape(registry)
        assert after["flashsale_cache_breaker_open"] == 1
        assert after["flashsale_cache_breaker_openings_total"] == 1
        assert after["flashsale_cache_owed_deletes"] == 1
