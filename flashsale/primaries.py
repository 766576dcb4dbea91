"""Where the Redis is that may be written to: the primary that Sentinels name, and each lane's
master on a Redis Cluster; and connections that lead there.

Nobody keeps an address. Each new connection asks the Sentinels in turn, the one that answered last
first, goes where they say, and asks the server for its role before anything else is sent: one that
is no primary, or no more, is left. After a failover the old connections end (the server is gone, or
refuses the next write, or Sentinel closes them when it demotes it), so the next ones follow it.

The *term* counts failovers: what Sentinel calls the configuration epoch. It only rises, so that of
two servers that both call themselves primary the one of the lower term is the old one.

Of a cluster, redis-py's client reads the topology, off the hot path, and is asked for nothing else:
a lane is one slot, so whoever speaks to its master over a connection of its own has all of a
server's commands (blocking reads, MULTI, INFO), and batches as ever. A connection is led to the
master when it is opened, and ends when the server says that the slot has moved. What is not found
out here is told by the servers: nothing is executed by one that has not the slot.
"""

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from time import monotonic, sleep
from typing import Any, TypeAlias

import redis
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.asyncio.connection import ConnectionPool as AsyncPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import AbstractConnection, ConnectionPool
from redis.exceptions import (
    AskError,
    MasterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from flashsale.keys import Lane
from flashsale.settings import LedgerSettings
from flashsale.store_urls import StoreUrl, nodes_of, read_ledger_url, sentinel_url, server_url

SENTINEL_TIMEOUT_S = 0.5
"""A Sentinel that has not answered by then is passed over: a claim waits for all that are away."""


Place = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True)
class Primary:
    """The server that sells, as Sentinels name it."""

    host: str
    port: int
    term: int


def _reached(place: Place, addresses: Mapping[str, str]) -> Place:
    """Where a server is reached that is told to be at `place`. Pure."""
    named = addresses.get(f"{place[0]}:{place[1]}")
    if named is None:
        return place
    host, _, port = named.rpartition(":")
    return host, int(port)


class NoPrimary(MasterDownError):  # noqa: N818 - a state of things, as its base
    """Nobody was found who may be written to; nothing was sent."""


class Sentinels:
    """The Sentinels of one Redis, by the URL that names them. A primary whose place, host:port, is
    among `addresses` is reached at what stands there."""

    def __init__(self, place: StoreUrl, addresses: Mapping[str, str] | None = None) -> None:
        self._place, self._addresses = place, addresses or {}
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
                return self._reached(found, url)
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
                return self._reached(found, url)
        raise self._nobody(silent)

    def _reached(self, found: Primary, url: str) -> Primary:
        """The primary as it is reached; the Sentinel at `url` is asked first from now on."""
        self._urls = [url, *(other for other in self._urls if other != url)]
        host, port = _reached((found.host, found.port), self._addresses)
        return Primary(host, port, found.term)

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
    pool.connection_kwargs["sentinels"] = Sentinels(place, LedgerSettings.load().addresses)
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


# Of a Redis Cluster -------------------------------------------------------------------------------

_TIMEOUT_S = 1.0
_ASKED_AGAIN_S = 0.1
"""A topology in doubt is read this rarely: a failover takes seconds, and all callers ask."""


def cluster_client(url: str, timeout_s: float, **words: Any) -> RedisCluster:
    """A client of the cluster that the nodes at `url` are of, by the first of them that answers.
    Raises redis' errors, of the last one; ConnectionError where that knows no master: it was reset,
    or has met nobody yet."""
    trouble: Exception | None = None
    for node in nodes_of(url):
        try:
            return RedisCluster.from_url(
                node,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                require_full_coverage=False,
                socket_connect_timeout=timeout_s,
                socket_timeout=timeout_s,
                **words,
            )
        except IndexError:  # redis-py takes the first of no masters
            trouble = RedisConnectionError(_MASTERLESS)
        except (RedisError, RedisClusterException, OSError) as error:
            trouble = error
    assert trouble is not None
    raise trouble


_MASTERLESS = "it is a node of no cluster: CLUSTER MEET it, or name another node"


def told_of(error: Exception) -> str:
    """What an error of redis' says, for a reader: of a slot on its way it says two numbers."""
    if isinstance(error, AskError) and not isinstance(error, MovedError):
        slot = error.slot_id
        return (
            f"slot {slot} is on its way to {error.host}:{error.port}; move the rest of its keys, "
            f"then CLUSTER SETSLOT {slot} NODE"
        )
    return str(error)


class Topology:
    """The masters of one cluster, as of the last look; threads share it. It looks again after
    somebody was in doubt of it. Nodes whose place, host:port, is among `addresses` are reached at
    what stands there, and at nothing else."""

    def __init__(self, url: str, addresses: Mapping[str, str] | None = None) -> None:
        read_ledger_url(url)
        self._url = url
        self._addresses = addresses or {}
        self._looking = threading.Lock()
        self._client: RedisCluster | None = None
        self._places: dict[str, Place] = {}
        self._due_s = 0.0
        self._is_doubted = True
        self.looks = 0

    def __repr__(self) -> str:
        return f"<Topology known={len(self._places)} doubted={self._is_doubted} looks={self.looks}>"

    def known(self, lane: Lane) -> Place | None:
        """The master of `lane` where that is known without asking anybody."""
        return None if self._is_doubted else self._places.get(lane.tag)

    def doubt(self) -> None:
        """A master was not there, or said that it is none: look again before it is named again."""
        self._is_doubted = True

    def place(self, lane: Lane) -> Place:
        """The master of `lane`; this may ask the cluster, and wait a moment before that. Raises
        redis' ConnectionError."""
        found = self.known(lane)
        if found:
            return found
        with self._looking:
            if self._is_doubted:
                sleep(max(0.0, self._due_s - monotonic()))
                self._look()
            found = self._places.get(lane.tag)
            if found is None:
                try:
                    found = self._places[lane.tag] = self._asked(lane)
                except RedisClusterException as error:
                    raise RedisConnectionError(f"no master is known for {lane!r}") from error
        return found

    def nodes(self) -> Sequence[Place]:
        """Every node, masters and replicas, as of now. Raises redis' ConnectionError."""
        with self._looking:
            self._look()
            assert self._client is not None
            nodes: Any = self._client.get_nodes()  # type: ignore[no-untyped-call]
        return sorted((str(node.host), int(node.port)) for node in nodes)

    def _look(self) -> None:
        self._due_s = monotonic() + _ASKED_AGAIN_S
        self.looks += 1
        try:
            if self._client is None:
                self._client = cluster_client(
                    self._url,
                    _TIMEOUT_S,
                    address_remap=lambda place: _reached(place, self._addresses),
                )
            else:
                self._client.nodes_manager.initialize()
        except IndexError:
            raise RedisConnectionError(f"no node of the cluster answers: {_MASTERLESS}") from None
        except (RedisError, RedisClusterException, OSError) as error:
            raise RedisConnectionError(f"no node of the cluster answers: {error}") from error
        self._places = {}
        self._is_doubted = False

    def _asked(self, lane: Lane) -> Place:
        if self._client is None:
            raise RedisConnectionError("no node of the cluster has answered yet")
        node = self._client.get_node_from_key(lane.hash_tag)  # type: ignore[no-untyped-call]
        if node is None:
            raise RedisConnectionError(f"no node has the slot of {lane!r}")
        return str(node.host), int(node.port)


@cache
def topology(url: str) -> Topology:
    """The one of this process for the cluster at `url`. Raises UsageError."""
    return Topology(url, LedgerSettings.load().addresses)
