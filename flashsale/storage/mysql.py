"""MySQL: engine, transactions from threads and from asyncio, and its driver's errors as ours."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from flashsale.errors import Indeterminate, Unavailable
from flashsale.store_urls import (
    MySQLConnection,
    mysql_arguments,
    open_mysql,
    read_mysql_url,
)

T = TypeVar("T")

_OFF = ("0", "OFF")
DUPLICATE_KEY = 1062
_QUERY_TIMEOUT_S = 60.0
_LOST_DURING_QUERY = frozenset({1053, 1927, 2006, 2013, 2055, 3169, 4031})
"""The connection went away or was killed under a statement, a COMMIT perhaps."""
_DEMOTED = frozenset({1047, 1290, 1792, 1836})
"""The server takes no writes, or none any more: nothing was done, a COMMIT neither."""
_RECYCLE_S = 300
"""A connection older than this is made anew: behind one name another server may have taken over."""


class Duplicate(Exception):  # noqa: N818 - a fact about the data, not a bug
    """A row with this key exists already; the transaction was rolled back."""


def engine(url: str, *, kept: int = 10, at_most: int = 50, wait_s: float = 30.0) -> Engine:
    """A pooled engine: READ COMMITTED, UTC, utf8mb4, at most `at_most` connections.

    Raises UsageError where `url` is not one of a database in MySQL.
    """
    read = read_mysql_url(url, "FLASHSALE_MYSQL_URL")
    pool = create_engine(
        URL.create(
            "mysql+pymysql",
            username=read.user,
            password=read.password,
            host=read.host,
            port=read.port,
            database=read.database,
            query={"charset": "utf8mb4"},
        ),
        isolation_level="READ COMMITTED",
        pool_size=kept,
        max_overflow=at_most - kept,
        pool_timeout=wait_s,
        pool_pre_ping=True,
        pool_recycle=_RECYCLE_S,
        connect_args=mysql_arguments(read, read_timeout_s=_QUERY_TIMEOUT_S),
    )
    event.listen(pool, "do_connect", _open)
    event.listen(pool, "handle_error", _end_demoted)
    return pool


def _open(dialect: Any, record: Any, words: Any, arguments: dict[str, Any]) -> MySQLConnection:
    return open_mysql(**arguments)


def _end_demoted(context: ExceptionContext) -> None:
    """Close every connection of the pool where the server turns out to be read-only."""
    args = getattr(context.original_exception, "args", ())
    if args and args[0] in _DEMOTED:
        context.is_disconnect = True


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors inside the block into Duplicate, Unavailable or Indeterminate."""
    try:
        yield
    except PoolTimeoutError as error:
        raise Unavailable(f"no MySQL connection was free: {error}") from error
    except DBAPIError as error:
        code = error_code(error)
        if code == DUPLICATE_KEY:
            raise Duplicate(str(error.orig)) from error
        if code in _DEMOTED:
            raise Unavailable(f"MySQL takes no writes: {error.orig}") from error
        if code in _LOST_DURING_QUERY or error.connection_invalidated:
            raise Indeterminate(f"MySQL went away: {error.orig}") from error
        raise Unavailable(f"MySQL refused: {error.orig}") from error


def error_code(error: DBAPIError) -> int:
    """The server's error number, 0 where there is none."""
    args = getattr(error.orig, "args", ())
    return args[0] if args and isinstance(args[0], int) else 0


@contextmanager
def transaction(pool: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end of the block, rolled back by any error in it.

    Raises Duplicate or Unavailable (nothing was written), or Indeterminate (the connection went
    away: the COMMIT may have happened).
    """
    with translated(), pool.begin() as connection:
        yield connection


def check_writable(pool: Engine) -> None:
    """Raises Unavailable where the server takes no writes, once every connection to it is closed;
    Indeterminate where it went away."""
    with transaction(pool) as connection:
        flags = connection.execute(text("SELECT @@global.read_only, @@global.innodb_read_only"))
        is_writable = all(str(flag) in _OFF for flag in flags.one())
    if not is_writable:
        pool.dispose()
        raise Unavailable("MySQL takes no writes: it is set read_only")


class Database:
    """An engine and the threads that use it; at most `threads_max` transactions at a time."""

    def __init__(self, pool: Engine, *, threads_max: int) -> None:
        self._pool = pool
        self._threads = ThreadPoolExecutor(threads_max, thread_name_prefix="mysql")

    def __repr__(self) -> str:
        return f"<Database {self._pool.url!r}>"

    async def run(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, run in one transaction.

        Raises Duplicate, Unavailable or Indeterminate, as `transaction` does.
        """

        def in_transaction() -> T:
            with transaction(self._pool) as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._threads, in_transaction)

    async def check_writable(self) -> None:
        """Raises Unavailable or Indeterminate where MySQL cannot be written to."""
        check = partial(check_writable, self._pool)
        await asyncio.get_running_loop().run_in_executor(self._threads, check)

    def close(self) -> None:
        """Wait for the transactions under way, then close every connection."""
        self._threads.shutdown()
        self._pool.dispose()


def unix_ms(moment: datetime) -> int:
    """A time of MySQL's, or one with its offset, as Unix milliseconds."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
