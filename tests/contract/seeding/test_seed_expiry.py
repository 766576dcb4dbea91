"""Entries that are made to expire, and the wait for whoever warms them."""

import threading

import pytest
from redis import Redis

from flashsale import keys
from flashsale.cache.entry import pack, unpack
from flashsale.catalog.storefront import LOCK
from flashsale.errors import UnreachableError
from flashsale.seeding import warm

FRESH_MS = 2**45


@pytest.fixture
def shelf(cache_url: str) -> Redis:
    """Shop 1 warmed, shop 2 with a lifetime of its own, shop 3 absent, shop 4 not asked about."""
    cache: Redis = Redis.from_url(cache_url)
    for shop, expires_ms in ((1, FRESH_MS), (2, 0), (4, FRESH_MS)):
        cache.set(keys.cache_entry("shop", shop), pack(b"{}", expires_ms))
    return cache


def entry_of(cache: Redis, shop: int) -> int | None:
    raw = cache.get(keys.cache_entry("shop", shop))
    assert raw is None or isinstance(raw, bytes)
    entry = unpack(raw)
    return None if entry is None else entry.expires_ms


def test_dropped_shops_are_gone(shelf: Redis) -> None:
    assert warm.drop_shops(shelf, range(1, 4)) == 2
    assert [entry_of(shelf, shop) for shop in (1, 2, 4)] == [None, None, FRESH_MS]


def test_expired_shops_stay_and_are_stale(shelf: Redis) -> None:
    assert warm.expire_shops(shelf, range(1, 4)) == 1
    assert [entry_of(shelf, shop) for shop in (1, 2, 4)] == [1, 0, FRESH_MS]


def test_a_replica_that_warms_is_waited_for(shelf: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.set(keys.lock(LOCK), "somebody 1")
    with monkeypatch.context() as patch:
        patch.setattr(warm, "_WARMED_WITHIN_S", 0.1)
        with pytest.raises(UnreachableError, match="warms the cache"):
            warm.await_warmed(shelf)
    done = threading.Timer(0.1, lambda: shelf.delete(keys.lock(LOCK)))
    done.start()
    warm.await_warmed(shelf)
    done.join()
