"""The judge's own connections to Redis and MySQL: for reading, and with one line for trouble."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from flashsale.errors import NothingJudgedError, UnreachableError, UsageError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 120
_NO_SUCH_TABLE, _NO_SUCH_COLUMN = 1146, 1054

Database: TypeAlias = "Connection[Cursor]"


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
    place = _place(url)
    try:
        ledger = Redis.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=READ_TIMEOUT_S,
        )
    except ValueError as error:
        raise UsageError(f"--ledger-url: expected redis://host:port/db, got {place}") from error
    try:
        ledger.ping()
        yield ledger
    except RedisError as error:
        raise UnreachableError(
            f"the ledger Redis at {place} cannot be read ({error}); "
            "start it, or name another with --ledger-url"
        ) from error
    finally:
        ledger.close()


@contextmanager
def _database(url: str) -> Iterator[Database]:
    place = _place(url)
    database = None
    try:
        database = _open_database(url)
        yield database
    except pymysql.MySQLError as error:
        code, text = (*error.args, 0, "")[:2] if error.args else (0, str(error))
        if code in (_NO_SUCH_TABLE, _NO_SUCH_COLUMN):
            raise NothingJudgedError(
                f"MySQL at {place} holds no sale ({text}); seed it with `flashsale seed`, "
                "or name another with --mysql-url"
            ) from error
        raise UnreachableError(
            f"MySQL at {place} cannot be read ({text}); start it, or name another with --mysql-url"
        ) from error
    finally:
        if database is not None and database.open:
            database.close()


def _open_database(url: str) -> Database:
    parts = urlsplit(url)
    if not parts.scheme.startswith(("mysql", "mariadb")) or not parts.path.strip("/"):
        raise UsageError(
            f"--mysql-url: expected mysql://user:password@host:port/database, got {_place(url)}"
        )
    socket = parse_qs(parts.query).get("unix_socket", [None])[0]
    return pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        database=parts.path.strip("/"),
        unix_socket=socket,
        charset="utf8mb4",
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        autocommit=True,
        init_command="SET time_zone = '+00:00'",
    )


def _place(url: str) -> str:
    """The URL without its user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
