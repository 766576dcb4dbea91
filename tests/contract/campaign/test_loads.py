"""Loads by the database's own count: each SELECT of one shop, found or not, and nothing else.

Exact, whoever else asks the database beside it; and where it could not be, no count at all.
"""

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pymysql
import pytest
from sqlalchemy import Engine, make_url, select, text

from flashsale.campaign.loads import NOT_KEPT, OVERRUN, UNSEEN, DatabaseLoads, LoadCount
from flashsale.stack.mariadb import MariaDBServer
from flashsale.storage import mysql, tables

_THREADS, _LOADS_EACH = 24, 100
_KEPT = 4 * _THREADS * _LOADS_EACH
_PREPARE, _EXECUTE = 0x16, 0x17  # commands of the MySQL protocol
_SHOP, _TYPES = tables.shop, tables.shop_type


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDBServer]:
    """A MariaDB that keeps its statements."""
    with MariaDBServer(
        tmp_path_factory.mktemp("counting"),
        buffer_pool_mb=32,
        redo_log_mb=16,
        statistics=True,
        statements_kept=_KEPT,
    ) as server:
        yield server


@pytest.fixture
def pool(server: MariaDBServer) -> Iterator[Engine]:
    """Its database, with every table."""
    pool = mysql.engine(server.url, kept=_THREADS)  # a closed one takes its prepared statements
    tables.create_all(pool)
    yield pool
    pool.dispose()


def load(pool: Engine, shop_id: int, times: int = 1) -> None:
    with pool.connect() as connection:
        for _ in range(times):
            connection.execute(select(_SHOP).where(_SHOP.c.id == shop_id))


def test_each_load_counts_also_one_that_finds_nothing(server: MariaDBServer, pool: Engine) -> None:
    load(pool, 5)  # before: not counted
    count = LoadCount(server.url)
    load(pool, 5, times=3)
    with pool.connect() as connection:
        connection.execute(select(_SHOP).where(_SHOP.c.type_id == 5))
        connection.execute(select(_SHOP.c.id).where(_SHOP.c.id > 5))
        connection.execute(select(_TYPES).where(_TYPES.c.id == 5))
    assert count.settled() == DatabaseLoads(3)


def test_many_at_once_are_counted_to_the_last_beside_others(
    server: MariaDBServer, pool: Engine
) -> None:
    """Sums by digest come out short here now and then, by one or more."""
    count = LoadCount(server.url)

    def work(number: int) -> None:
        with pool.connect() as connection:
            connection.execute(
                text("PREPARE other FROM 'SELECT id FROM tb_shop_type WHERE id = ?'")
            )
            for shop_id in range(_LOADS_EACH):
                connection.execute(select(_SHOP).where(_SHOP.c.id == shop_id))
                if shop_id % 10 == number % 10:
                    connection.execute(select(_TYPES).where(_TYPES.c.id == shop_id))
                    connection.execute(text("EXECUTE other USING 1"))

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(work, range(_THREADS)))
    assert count.settled() == DatabaseLoads(_THREADS * _LOADS_EACH)


def test_loads_by_prepared_statements_count_too(server: MariaDBServer, pool: Engine) -> None:
    with prepared(server) as statement:
        statement.execute(4)
        count = LoadCount(server.url)
        for shop_id in range(7):
            statement.execute(shop_id)
        load(pool, 5)
        with pool.connect() as connection:
            connection.execute(text("PREPARE one FROM 'SELECT name FROM tb_shop WHERE id = ?'"))
            connection.execute(text("EXECUTE one USING 3"))
            assert count.settled() == DatabaseLoads(9)


@pytest.mark.slow
def test_prepared_statements_that_are_gone_leave_no_short_count(
    server: MariaDBServer, pool: Engine
) -> None:
    count = LoadCount(server.url)
    load(pool, 5)
    with prepared(server) as statement:
        statement.execute(4)
    assert count.settled() == DatabaseLoads(None, UNSEEN)


@pytest.mark.slow
def test_more_than_the_history_holds_leave_no_short_count(
    server: MariaDBServer, pool: Engine
) -> None:
    count = LoadCount(server.url)
    load(pool, 5, times=_KEPT)
    assert count.settled() == DatabaseLoads(None, OVERRUN)


def test_a_database_without_statistics_says_so(mariadb: MariaDBServer) -> None:
    assert LoadCount(mariadb.url).settled() == DatabaseLoads(None, NOT_KEPT)


class prepared:  # noqa: N801 - reads as `with prepared(server)`
    """A load as drivers of other languages send it, over the binary protocol of MySQL."""

    def __init__(self, server: MariaDBServer) -> None:
        url = make_url(server.url)
        assert url.host
        assert url.port
        self._connection: Any = pymysql.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password or "",
            database=url.database,
        )
        self._command(_PREPARE, b"SELECT id, name FROM tb_shop WHERE id = ?")
        head = self._connection._read_packet().get_all_data()
        self._id, columns, parameters = struct.unpack("<xIHH", head[:9])
        for _ in range(columns + parameters + 2):  # with the end of either list
            self._connection._read_packet()

    def __enter__(self) -> "prepared":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def execute(self, shop_id: int) -> None:
        body = struct.pack("<IBI", self._id, 0, 1) + b"\0\1\x03\0" + struct.pack("<i", shop_id)
        self._command(_EXECUTE, body)
        columns = self._connection._read_packet().get_all_data()[0]
        for _ in range(columns + 1):
            self._connection._read_packet()
        while not self._connection._read_packet().is_eof_packet():
            pass

    def _command(self, number: int, body: bytes) -> None:
        self._connection._execute_command(number, body)
