"""The three stores of one system, opened for seeding, and the place where their trouble ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from flashsale.errors import Indeterminate, Unavailable, UnreachableError, UsageError
from flashsale.storage.mysql import check_writable, engine
from flashsale.storage.roles import Ledgers
from flashsale.store_urls import CONNECT_TIMEOUT_S, StoreUrl, read_ledger_url, read_mysql_url

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
class OpenStores:
    """The stores, open. Their clients' errors end in `opened`."""

    pool: Engine
    ledgers: Ledgers
    cache: Redis

    @property
    def ledger(self) -> Redis:
        """The ledger where it is one server. Raises UsageError for a cluster's, of which whoever
        asks here would see a part."""
        if not self.ledgers.layout.is_whole:
            raise UsageError(
                "this knows no ledger on a Redis Cluster yet; docs/scaling.md lists what does"
            )
        return self.ledgers.home


@contextmanager
def opened(urls: StoreUrls) -> Iterator[OpenStores]:
    """The stores behind `urls`, each of which has answered.

    Raises UsageError for a malformed URL. Trouble with a store, now or inside the block, becomes
    an UnreachableError whose one line names the flag.
    """
    database = read_mysql_url(urls.mysql_url, "--mysql-url")
    places = [
        ("ledger", urls.ledger_url, read_ledger_url(urls.ledger_url, "--ledger-url")),
        ("cache", urls.cache_url, read_ledger_url(urls.cache_url, "--cache-url")),
    ]
    pool = engine(urls.mysql_url)
    ledger = Ledgers.at(urls.ledger_url)
    cache = Ledgers.at(urls.cache_url).home  # some name the ledger in its place, and ask nothing
    try:
        for role, url, place in places:
            _ping(role, url, place)
        _ask(pool, database)
        yield OpenStores(pool, ledger, cache)
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


def _ping(role: str, url: str, place: StoreUrl) -> None:
    try:
        found = Ledgers.at(url, timeout_s=CONNECT_TIMEOUT_S)
        for client, lane in zip(found.clients, found.layout.lanes, strict=True):
            with client:
                client.delete(lane.probe)  # a replica refuses it, and nothing is written
    except RedisError as error:
        raise UnreachableError(
            f"the {role} at {place} does not answer: {_line(error)}; {_CURE} --{role}-url"
        ) from error


def _ask(pool: Engine, place: StoreUrl) -> None:
    try:
        check_writable(pool)
    except (Unavailable, Indeterminate) as error:
        raise UnreachableError(f"{place}: {_line(error)}; {_CURE} --mysql-url") from error


def _line(error: Exception) -> str:
    """The error on one line, without the driver's full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
