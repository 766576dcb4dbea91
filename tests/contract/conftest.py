"""Tests against real Redis and MariaDB. Async ones run on the loop that the replicas run on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rig.clustered import Clustered, clustered
from sqlalchemy import Engine

from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage.mysql import engine
from flashsale.storage.roles import sync_client


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """uvloop, as in a replica."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Redis]:
    """The ledger, empty, by the client of its role."""
    with sync_client(ledger_url) as client:
        yield client


@pytest.fixture
def cache(cache_url: str) -> Iterator[Redis]:
    """The cache, empty."""
    with sync_client(cache_url) as client:
        yield client


@pytest.fixture
def pool(mysql_url: str) -> Iterator[Engine]:
    """MariaDB with every table, all empty."""
    pool = engine(mysql_url)
    yield pool
    pool.dispose()


@pytest.fixture
def own_ledger(tmp_path: Path) -> Iterator[RedisServer]:
    """A ledger of this test's own: to be stopped, starved or reconfigured."""
    with RedisServer(RedisRole.LEDGER, tmp_path / "own-ledger") as server:
        yield server


@pytest.fixture(scope="session")
def _masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    with clustered(tmp_path_factory.mktemp("cluster")) as masters:
        yield masters


@pytest.fixture
def cluster(_masters: Clustered) -> Clustered:
    """Three masters of a Redis Cluster, empty, without scripts; lanes may be where others moved
    them."""
    _masters.flush()
    return _masters


@pytest.fixture
def own_cache(tmp_path: Path) -> Iterator[RedisServer]:
    """A cache of this test's own: to be killed, paused or starved."""
    with RedisServer(RedisRole.CACHE, tmp_path / "own-cache") as server:
        yield server
