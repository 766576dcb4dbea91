"""The three stores of one system, opened for seeding, and the place where their trouble ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, text

from flashsale.errors import Indeterminate, Unavailable, UnreachableError, UsageError
from flashsale.storage.mysql import engine, transaction
from flashsale.storage.roles import sync_client

_CURE = "start a stack with `flashsale serve --detach`, or check"


class StoreUrls(Protocol):
    """Where the three stores are; the ledger and the cache may be one Redis."""

    @property
    def ledger_url(self) -> str: ...
    @property
    def cache_url(self) -> str: ...
    @property
    def mysql_url(self) -> str: ...


@dataclass(frozen=True)
class Stores:
    """The stores, open. Their clients' errors end in `opened`."""

    pool: Engine
    ledger: Redis
    cache: Redis


@contextmanager
def opened(urls: StoreUrls) -> Iterator[Stores]:
    """The stores behind `urls`, each of which has answered.

    Raises UsageError for a malformed URL. Trouble with a store, now or inside the block, becomes
    an UnreachableError whose one line names the flag.
    """
    pool = engine(urls.mysql_url)
    if not pool.url.database:
        raise UsageError("--mysql-url: expected mysql://user:password@host:port/database")
    ledger = _redis("--ledger-url", urls.ledger_url)
    cache = _redis("--cache-url", urls.cache_url)
    try:
        _ping("--ledger-url", "the ledger", ledger)
        _ping("--cache-url", "the cache", cache)
        with transaction(pool) as connection:
            connection.execute(text("SELECT 1"))
        yield Stores(pool, ledger, cache)
    except RedisError as error:
        raise UnreachableError(f"Redis: {_line(error)}; the same command goes on from here") from (
            error
        )
    except (Unavailable, Indeterminate) as error:
        raise UnreachableError(f"{_line(error)}; {_CURE} --mysql-url") from error
    finally:
        ledger.close()
        cache.close()
        pool.dispose()


def _redis(flag: str, url: str) -> Redis:
    try:
        return sync_client(url)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}") from error


def _ping(flag: str, name: str, client: Redis) -> None:
    try:
        client.ping()
    except RedisError as error:
        raise UnreachableError(f"{name} does not answer: {_line(error)}; {_CURE} {flag}") from error


def _line(error: Exception) -> str:
    """The error on one line, without the driver's full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
