"""A storefront on real stores."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from redis import Redis
from rig.shops import Open, ShopStores
from sqlalchemy import Engine

from flashsale.cache.client import CacheClient
from flashsale.catalog.storefront import Storefront
from flashsale.settings import BloomSettings, CacheSettings, CatalogSettings
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import Database, engine


@pytest.fixture
def stored(pool: Engine, cache: Redis, ledger: Redis) -> ShopStores:
    stored = ShopStores(pool, cache, ledger)
    stored.sql("INSERT INTO tb_dataset (id, seed) VALUES ('d', 1)")
    stored.sql(
        "INSERT INTO tb_shop_type (id, name, sort) VALUES (1, 'A', 2), (2, 'B', 1), (3, 'C', 3)"
    )
    stored.sql("INSERT INTO tb_user (id, phone, nick_name, icon) VALUES (1, '1', 'Ann', '/a.jpg')")
    for shop_id in range(1, 13):
        stored.add_shop(shop_id, y=30 + shop_id / 100)
    stored.add_shop(13, type_id=2, name="50%_off \\o/")
    for blog_id in range(1, 14):
        stored.add_blog(blog_id, liked=100 * blog_id)
    return stored


@pytest.fixture
def open_front(cache_url: str, ledger_url: str, mysql_url: str) -> Iterator[Open]:
    """Opens a storefront: that of one more process."""

    @asynccontextmanager
    async def opened(**given: Any) -> AsyncIterator[Storefront]:
        cache_settings = CacheSettings(**given.pop("cache", {}))
        blooms = BloomSettings(settle_ms=0)
        client = CacheClient(given.pop("cache_url", cache_url), cache_settings, blooms)
        database = Database(engine(mysql_url), threads_max=8)
        ledger = Channel(given.pop("ledger_url", ledger_url), connections_max=2, timeout_s=0.5)
        front = Storefront(database, client, ledger, CatalogSettings(**given))
        try:
            yield front
        finally:
            await front.aclose()
            await ledger.aclose()
            database.close()

    with structlog.testing.capture_logs():
        yield opened
