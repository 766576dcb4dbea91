"""The Redis behind Sentinels: which server is the primary now, and connections that lead there.

Nobody keeps an address. Each new connection asks the Sentinels in turn, the one that answered last
first, goes where they say, and asks the server for its role before anything else is sent: one that
is no primary, or no more, is left. After a failover the old connections end (the server is gone, or
refuses the next write, or Sentinel closes them when it demotes it), so the next ones follow it.

The *term* counts failovers: what Sentinel calls the configuration epoch. It only rises, so that of
two servers that both call themselves primary the one of the lower term is the old one.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import redis
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.asyncio.connection import ConnectionPool as AsyncPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, ConnectionPool
from redis.exceptions import MasterDownError, RedisError
from redis.retry import Retry

from flashsale.store_urls import StoreUrl, sentinel_url, server_url

SENTINEL_TIMEOUT_S = 0.5
"""A Sentinel that has not answered by then is passed over: a claim waits for all that are away."""


@dataclass(frozen=True, slots=True)
class Primary:
    """The server that sells, as Sentinels name it."""

    host: str
    port: int
    term: int


class NoPrimary(MasterDownError):  # noqa: N818 - a state of things, as its base
    """Nobody was found who may be written to; nothing was sent."""


class Sentinels:
    """The Sentinels of one Redis, by the URL that names them."""

    def __init__(self, place: StoreUrl) -> None:
        self._place = place
        self._urls = [sentinel_url(place, host, port) for host, port in place.sentinels]

    def __repr__(self) -> str:
        return f"<Sentinels of {self._place}>"

    def ask(self) -> Primary:
        """Who is the primary. Raises NoPrimary."""
        silent = 0
        for url in list(self._urls):
            try:
                with sentinel_client(url) as sentinel:
                    found = primary_of(sentinel.sentinel_masters(), self._place.primary)
            except (RedisError, OSError):
                silent += 1
                continue
            if found is not None:
                self._prefer(url)
                return found
        raise self._nobody(silent)

    async def ask_within_loop(self) -> Primary:
        """The same, without blocking. Raises NoPrimary."""
        silent = 0
        for url in list(self._urls):
            sentinel = AsyncRedis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **_LIMITS)
            try:
                found = primary_of(await sentinel.sentinel_masters(), self._place.primary)
            except (RedisError, OSError, TimeoutError):
                silent += 1
                continue
            finally:
                with suppress(RedisError, OSError, asyncio.TimeoutError):
                    await sentinel.aclose()
            if found is not None:
                self._prefer(url)
                return found
        raise self._nobody(silent)

    def _prefer(self, url: str) -> None:
        self._urls = [url, *(other for other in self._urls if other != url)]

    def _nobody(self, silent: int) -> NoPrimary:
        count = len(self._urls)
        told = f"{silent} of {count} Sentinels do not answer"
        if silent < count:
            told = f"no Sentinel that answers knows a primary {self._place.primary} that is up"
        return NoPrimary(told)


DRIVER: dict[str, Any] = {"driver_info": redis.DriverInfo()} if hasattr(redis, "DriverInfo") else {}
"""Told to every server. Without it each new connection reads it from the package's own files, which
takes milliseconds: at the worst time in a loop that serves."""

_LIMITS: dict[str, Any] = {
    **DRIVER,
    "protocol": 2,
    "decode_responses": True,
    "socket_connect_timeout": SENTINEL_TIMEOUT_S,
    "socket_timeout": SENTINEL_TIMEOUT_S,
}


def sentinel_client(url: str) -> Redis:
    """A client of one Sentinel, by its plain URL: it is asked once, and soon passed over."""
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_LIMITS)


_Master: TypeAlias = Mapping[str, Any]


def primary_of(masters: Mapping[str, _Master] | Sequence[_Master], name: str) -> Primary | None:
    """The primary called `name` in a reply to SENTINEL MASTERS, in either of redis-py's shapes;
    None where it is not known, or known to be down. Pure."""
    each = masters.values() if isinstance(masters, Mapping) else masters
    found = next((master for master in each if master["name"] == name), None)
    if not found or not found["is_master"] or found["is_sdown"] or found["is_odown"]:
        return None
    return Primary(str(found["ip"]), int(found["port"]), int(found["config-epoch"]))


_ROLE_ASKED = ("INFO", "replication")
"""ROLE says it, too, but an account that sells may not ask that: it is among what is dangerous."""
_ROLE = re.compile(r"^role:(\w+)", re.MULTILINE)


def check_role(reply: Any, place: str) -> None:
    """Raises NoPrimary unless a reply to INFO replication is a primary's. Pure."""
    told = reply.decode() if isinstance(reply, bytes) else str(reply)
    found = _ROLE.search(told)
    if found is None or found[1] != "master":
        raise NoPrimary(f"{place} is no primary, or no more: the Sentinels are asked again")


def client_url(place: StoreUrl, url: str) -> str:
    """The URL to make a client of, whose pool then has to `follow`: redis-py knows only plain ones.
    Pure."""
    return server_url(place) if place.sentinels else url


def follow(pool: ConnectionPool | AsyncPool, place: StoreUrl) -> None:
    """Have every connection of `pool` lead to the primary, where `place` names Sentinels."""
    if not place.sentinels:
        return
    pool.connection_kwargs["sentinels"] = Sentinels(place)
    if isinstance(pool, AsyncPool):
        pool.connection_class = _following_in_loop(pool.connection_class)  # type: ignore[arg-type]  # a class has a hash
    else:
        pool.connection_class = _following(pool.connection_class)


class Followed:
    """The term of whom a client's connections lead to; the client follows where that changes."""

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool
        self._sentinels: Sentinels | None = self._pool.connection_kwargs.get("sentinels")
        self._primary: Primary | None = None

    def __repr__(self) -> str:
        return f"<Followed {self._sentinels!r} {self._primary}>"

    def term(self) -> int | None:
        """The primary's term now; None without Sentinels, and the last one that was known while
        none of them answers. Where another server is named than before, idle connections end, so
        that the next ones lead there. Raises NoPrimary."""
        if self._sentinels is None:
            return None
        try:
            found = self._sentinels.ask()
        except NoPrimary:
            if self._primary is None:
                raise
            return self._primary.term
        if found != self._primary:
            self._pool.disconnect(inuse_connections=False)
        self._primary = found
        return found.term


@cache
def _following(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """`kind` of connection, but to the primary that the `sentinels` it is made with name."""

    class Following(kind):  # type: ignore[valid-type,misc]  # one of redis-py's two over TCP
        def __init__(self, *, sentinels: Sentinels, **words: Any) -> None:
            super().__init__(**words)
            self._sentinels = sentinels

        def _connect(self) -> Any:
            primary = self._sentinels.ask()
            self.host, self.port = primary.host, primary.port
            return super()._connect()

        def on_connect_check_health(self, check_health: bool = True) -> None:
            super().on_connect_check_health(check_health=check_health)
            self.send_command(*_ROLE_ASKED, check_health=False)
            check_role(self.read_response(), f"{self.host}:{self.port}")

    return Following


@cache
def _following_in_loop(kind: type[AsyncConnection]) -> type[AsyncConnection]:
    """The same of asyncio's kinds."""

    class Following(kind):  # type: ignore[valid-type,misc]
        def __init__(self, *, sentinels: Sentinels, **words: Any) -> None:
            super().__init__(**words)
            self._sentinels = sentinels

        async def _connect(self) -> None:
            primary = await self._sentinels.ask_within_loop()
            self.host, self.port = primary.host, primary.port
            await super()._connect()

        async def on_connect_check_health(self, check_health: bool = True) -> None:
            await super().on_connect_check_health(check_health=check_health)
            await self.send_command(*_ROLE_ASKED, check_health=False)
            check_role(await self.read_response(), f"{self.host}:{self.port}")

    return Following
