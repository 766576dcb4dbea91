"""The judge's own connections to Redis and MySQL: for reading, and with one line for trouble."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pymysql
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from flashsale.errors import NothingJudgedError, UnreachableError
from flashsale.store_urls import (
    CONNECT_TIMEOUT_S,
    MySQLConnection,
    mysql_arguments,
    open_mysql,
    read_mysql_url,
    read_redis_url,
)

READ_TIMEOUT_S = 120
_NO_SUCH_TABLE, _NO_SUCH_COLUMN = 1146, 1054

Database = MySQLConnection


@dataclass(frozen=True, slots=True)
class Connections:
    """One connection to the ledger and one to MySQL, whose session is UTC and reads only."""

    ledger: Redis
    database: Database


@contextmanager
def connect(ledger_url: str, mysql_url: str) -> Iterator[Connections]:
    """Open both, close both; the block's driver errors become ours.

    Raises UnreachableError where a store does not answer or refuses, NothingJudgedError where
    MySQL has not the tables of a sale, UsageError where a URL is not one.
    """
    with _ledger(ledger_url) as ledger, _database(mysql_url) as database:
        yield Connections(ledger, database)


@contextmanager
def _ledger(url: str) -> Iterator[Redis]:
    place = read_redis_url(url, "--ledger-url")
    ledger = _redis(url, READ_TIMEOUT_S)
    try:
        with _redis(url, CONNECT_TIMEOUT_S) as first:
            first.ping()
        yield ledger
    except RedisError as error:
        raise UnreachableError(
            f"the ledger {place} cannot be read ({error}); "
            "start it, or name another with --ledger-url"
        ) from error
    finally:
        ledger.close()


def _redis(url: str, timeout_s: float) -> Redis:
    return Redis.from_url(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=timeout_s,
    )


@contextmanager
def _database(url: str) -> Iterator[Database]:
    place = read_mysql_url(url, "--mysql-url")
    database = None
    try:
        database = open_mysql(
            **mysql_arguments(place, read_timeout_s=READ_TIMEOUT_S), autocommit=True
        )
        yield database
    except pymysql.MySQLError as error:
        code, text = (*error.args, 0, "")[:2] if error.args else (0, str(error))
        if code in (_NO_SUCH_TABLE, _NO_SUCH_COLUMN):
            raise NothingJudgedError(
                f"{place} holds no sale ({text}); seed it with `flashsale seed`, "
                "or name another with --mysql-url"
            ) from error
        raise UnreachableError(
            f"{place} cannot be read ({text}); start it, or name another with --mysql-url"
        ) from error
    finally:
        if database is not None and database.open:
            database.close()
