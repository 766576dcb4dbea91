"""Where each lane of a ledger on a Redis Cluster is now: the master that has its slot.

redis-py's cluster client reads the topology, off the hot path, and is asked for nothing else: a
lane is one slot, so whoever speaks to its master over a connection of its own has all of a server's
commands (blocking reads, MULTI, INFO), and batches as ever. A connection is led to the master when
it is opened, and ends when the server says that the slot has moved. What is not found out here is
told by the servers: nothing is executed by one that has not the slot.
"""

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from time import monotonic, sleep
from typing import Any

from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from flashsale.keys import Lane
from flashsale.settings import LedgerSettings
from flashsale.store_urls import of_node, read_ledger_url

Place = tuple[str, int]
"""Host and port."""

_TIMEOUT_S = 1.0
_ASKED_AGAIN_S = 0.1
"""A topology in doubt is read this rarely: a failover takes seconds, and all callers ask."""


class Topology:
    """The masters of one cluster, as of the last look; threads share it. It looks again after
    somebody was in doubt of it. Nodes whose place, host:port, is among `addresses` are reached at
    what stands there, and at nothing else."""

    def __init__(self, url: str, addresses: Mapping[str, str] | None = None) -> None:
        read_ledger_url(url)
        self._url = of_node(url)
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
                self._client = RedisCluster.from_url(
                    self._url,
                    protocol=2,
                    retry=Retry(NoBackoff(), 0),
                    require_full_coverage=False,
                    socket_connect_timeout=_TIMEOUT_S,
                    socket_timeout=_TIMEOUT_S,
                    address_remap=self._reached,
                )
            else:
                self._client.nodes_manager.initialize()
        except (RedisError, RedisClusterException, OSError) as error:
            raise RedisConnectionError(f"no node of the cluster answers: {error}") from error
        self._places = {}
        self._is_doubted = False

    def _reached(self, place: Place) -> Place:
        named = self._addresses.get(f"{place[0]}:{place[1]}")
        if named is None:
            return place
        host, _, port = named.rpartition(":")
        return host, int(port)

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
