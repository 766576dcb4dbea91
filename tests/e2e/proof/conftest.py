"""Desks to prove storm and judge at: stores of their own, and the command line."""

import os
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from rig.judged_storm import JudgedStorm
from sqlalchemy import create_engine, text

from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.redis import RedisServer
from flashsale.storage import tables

OpenDesk = Callable[[str], JudgedStorm]


@pytest.fixture(scope="module")
def open_desk(
    tmp_path_factory: pytest.TempPathFactory, ledger_server: RedisServer, mariadb: MariaDBServer
) -> Iterator[OpenDesk]:
    """Makes a desk whose stores are empty, for as long as the module lasts."""
    names: list[str] = []
    server = create_engine(mariadb.url)

    def open_it(name: str) -> JudgedStorm:
        folder = tmp_path_factory.mktemp(name)
        database = f"flashsale_proof_{os.getpid()}_{len(names)}"
        names.append(database)
        with server.begin() as connection:
            connection.execute(text(f"CREATE DATABASE `{database}`"))
        engine = create_engine(mariadb.url_of(database))
        tables.create_all(engine)
        engine.dispose()
        with Redis.from_url(ledger_server.url) as ledger:
            ledger.flushall()
        return JudgedStorm(folder, ledger_server.url, mariadb.url_of(database))

    yield open_it
    with server.begin() as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE `{name}`"))
    server.dispose()
