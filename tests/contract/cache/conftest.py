"""Caches to be read, killed and paused. Async tests run on the loop that the replicas run on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage.roles import sync_client


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """uvloop, as in a replica."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def cache(cache_url: str) -> Iterator[Redis]:
    """The cache, empty, by the client of its role."""
    with sync_client(cache_url) as client:
        yield client


@pytest.fixture
def own_cache(tmp_path: Path) -> Iterator[RedisServer]:
    """A cache of this test's own: to be killed, paused or starved."""
    with RedisServer(RedisRole.CACHE, tmp_path / "own-cache") as server:
        yield server
