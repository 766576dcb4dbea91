"""Real servers for the tests: private, on free ports, one set per test process, gone afterwards.

`make test` runs `flashsale services install` first; where the programs are missing, these
fixtures fail with the command that brings them.
"""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, create_engine, text

from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.redis import RedisRole, RedisServer

# The same examples in every run, nothing written down, and no failure for a busy machine.
settings.register_profile(
    "flashsale",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("flashsale")

# The suite starts the command hundreds of times: it is compiled once, and not each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Two hundred servers and a thousand run folders come and go: a disk would be waited for at each of
# their syncs, and keeps none of it. `--basetemp` or this variable puts them elsewhere.
_MEMORY, _ROOM_BYTES = "/dev/shm", 4 << 30
if (
    os.path.ismount(_MEMORY)
    and not (_disk := os.statvfs(_MEMORY)).f_flag & os.ST_NOEXEC
    and _disk.f_bavail * _disk.f_frsize > _ROOM_BYTES
    and psutil.virtual_memory().available > _ROOM_BYTES
):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)

# A shell lets what it runs in the background ignore Ctrl-C, and so would every child of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# `nohup` lets it ignore the end of its terminal.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Keep thousands of collected tests out of every collection of garbage that is still to come:
    each storm begins with one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def ledger_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A ledger with the policy that sales rest on."""
    with RedisServer(RedisRole.LEDGER, tmp_path_factory.mktemp("ledger")) as server:
        yield server


@pytest.fixture(scope="session")
def cache_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A cache that evicts."""
    with RedisServer(RedisRole.CACHE, tmp_path_factory.mktemp("cache")) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDBServer]:
    """A MariaDB with an empty database."""
    directory = tmp_path_factory.mktemp("mariadb")
    with MariaDBServer(directory, buffer_pool_mb=64, redo_log_mb=16) as server:
        yield server


@pytest.fixture
def ledger_url(ledger_server: RedisServer) -> str:
    """The ledger, empty, without scripts."""
    return _flushed(ledger_server.url)


@pytest.fixture
def cache_url(cache_server: RedisServer) -> str:
    """The cache, empty."""
    return _flushed(cache_server.url)


@pytest.fixture(scope="session")
def _schema(mariadb: MariaDBServer) -> Iterator[Engine]:
    from flashsale.storage import mysql, tables

    engine = mysql.engine(mariadb.url)
    tables.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def mysql_url(mariadb: MariaDBServer, _schema: Engine) -> str:
    """A database with every table, all empty."""
    from flashsale.storage import tables

    names = [table.name for table in tables.metadata.sorted_tables]
    filled = " UNION ALL ".join(f"(SELECT '{name}' FROM {name} LIMIT 1)" for name in names)
    with _schema.begin() as connection:
        if used := connection.scalars(text(filled)).all():
            connection.execute(text("SET foreign_key_checks = 0"))
            for name in used:
                connection.execute(text(f"TRUNCATE TABLE {name}"))
            connection.execute(text("SET foreign_key_checks = 1"))
    return mariadb.url


@pytest.fixture
def blank_mysql_url(mariadb: MariaDBServer, tmp_path: Path) -> Iterator[str]:
    """A database of this test's own, without any table."""
    name = f"flashsale_{tmp_path.name}"[:60].replace("-", "_").lower()
    engine = create_engine(mariadb.url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE DATABASE `{name}`"))
    yield mariadb.url_of(name)
    with engine.begin() as connection:
        connection.execute(text(f"DROP DATABASE `{name}`"))
    engine.dispose()


def _flushed(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.script_flush()
        client.config_resetstat()
    return url
