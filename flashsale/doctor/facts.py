"""What a Redis, a Redis Cluster or a MySQL says of itself."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from flashsale.errors import UnreachableError
from flashsale.keys import CLUSTER, SINGLE
from flashsale.primaries import sentinel_client
from flashsale.stack.redis import RedisRole
from flashsale.storage import mysql, roles
from flashsale.storage.tables import keys_missing
from flashsale.store_urls import (
    CONNECT_TIMEOUT_S,
    StoreUrl,
    layout_of,
    nodes_of,
    of_node,
    read_ledger_url,
    read_mysql_url,
    read_redis_url,
    sentinel_url,
)


@dataclass(frozen=True)
class ReplicaFacts:
    """One that is connected, as its primary sees it."""

    place: str
    behind_bytes: int
    lag_s: int


@dataclass(frozen=True)
class Watch:
    """What one Sentinel says of the primary; None in place of it where it does not answer."""

    primary: str
    quorum: int
    others: int  # Sentinels that it knows beside itself


@dataclass(frozen=True)
class Replication:
    """A ledger's replicas and Sentinels; `watches` is empty where the URL names none."""

    replicas: Sequence[ReplicaFacts] = ()
    watches: Sequence[Watch | None] = ()
    name: str = field(default="")  # what the Sentinels call it


@dataclass(frozen=True)
class RedisFacts:
    """A Redis, or a Valkey; `config` is None where it does not let itself be asked.

    `run_id` is the same for two URLs of one server.
    """

    version: str
    role: str  # master or slave, in its own words
    clustered: bool
    config: Mapping[str, str] | None
    product: str = "Redis"
    run_id: str = ""
    replication: Replication = field(default_factory=Replication)


@dataclass(frozen=True)
class Node:
    """One node of a cluster, as another knows it: `master` is the id of the one that it follows, ""
    of a master; `lanes` are those whose slot it has, by their numbers."""

    id: str
    host: str
    port: int
    master: str = ""
    lanes: tuple[int, ...] = ()

    @property
    def place(self) -> str:
        """As the other nodes say it."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself, None where it does not answer; and how far its clock is ahead of
    this machine's."""

    node: Node
    says: RedisFacts | None
    ahead_ms: float = 0.0


@dataclass(frozen=True)
class ClusterFacts:
    """A cluster's nodes, and its state as the node says that the URL names."""

    state: str
    nodes: Sequence[NodeFacts]


@dataclass(frozen=True)
class MySQLFacts:
    """A MySQL or MariaDB; `variables` are all global ones, names in lower case."""

    version: str
    charset: str
    variables: Mapping[str, str]
    database: str = ""
    keys_missing: Sequence[str] | None = ()
    """Statements that make the unique keys which tables of ours are without; None where there are
    no such tables yet."""


def ask_redis(role: RedisRole, url: str) -> RedisFacts:
    """Facts of the Redis at `url`. Raises UnreachableError or UsageError with the cure."""
    place = read_redis_url(url, f"--{role}-url")
    with (
        _reaching(role, place),
        roles.sync_client(url, timeout_s=CONNECT_TIMEOUT_S) as client,
    ):
        return _ask_server(client, Replication((), ask_sentinels(place), place.primary))


def ask_ledger(url: str) -> RedisFacts | ClusterFacts:
    """Facts of the ledger at `url`, of all its nodes where it is on a cluster. Raises as
    `ask_redis` does."""
    if layout_of(url) is SINGLE:
        return ask_redis(RedisRole.LEDGER, url)
    place = read_ledger_url(url, f"--{RedisRole.LEDGER}-url")
    with _reaching(RedisRole.LEDGER, place):
        state, known = _ask_first(list(nodes_of(url)))
    nodes = nodes_in(known)
    with ThreadPoolExecutor(max(1, len(nodes))) as asking:
        facts = list(asking.map(lambda node: _ask_node(url, node), nodes))
    return ClusterFacts(str(state.get("cluster_state", "")), facts)


def _ask_first(urls: Sequence[str]) -> tuple[Any, Any]:
    """What the first of these nodes that answers says of its cluster. Raises as the last does."""
    for url in urls:
        try:
            with roles.sync_client(url, timeout_s=CONNECT_TIMEOUT_S) as client:
                state: Any = client.execute_command("CLUSTER INFO")
                return state, client.execute_command("CLUSTER NODES")
        except (RedisError, OSError):
            if url == urls[-1]:
                raise
    raise AssertionError("a URL names one node at least")


@contextmanager
def _reaching(role: RedisRole, place: StoreUrl) -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise UnreachableError(
            f"no usable {role} Redis at {place} ({error}); start it or correct --{role}-url"
        ) from None


def _ask_server(client: "redis.Redis", seen: Replication) -> RedisFacts:
    info: Any = client.info()
    config: Any
    try:
        config = client.config_get("*")
    except ResponseError:
        config = None
    own_version = info.get("valkey_version")  # beside the Redis version that it is compatible with
    return RedisFacts(
        version=str(own_version or info.get("redis_version", "0")),
        role=str(info.get("role", "master")),
        clustered=bool(info.get("cluster_enabled")),
        config=config,
        product="Valkey" if own_version else "Redis",
        run_id=str(info.get("run_id", "")),
        replication=Replication(replicas_in(info), seen.watches, seen.name),
    )


def replicas_in(info: Mapping[str, Any]) -> list[ReplicaFacts]:
    """The replicas that a primary's INFO names. Pure."""
    offset = int(info.get("master_repl_offset", 0))
    found = [info.get(f"slave{n}") for n in range(int(info.get("connected_slaves", 0)))]
    return [
        ReplicaFacts(
            f"{each['ip']}:{each['port']}",
            max(0, offset - int(each.get("offset", 0))),
            int(each.get("lag", 0)),
        )
        for each in found
        if isinstance(each, Mapping) and each.get("state") == "online"
    ]


def ask_sentinels(place: StoreUrl) -> list[Watch | None]:
    """What each Sentinel that the URL names says, one that does not answer as None."""
    return [_watch(sentinel_url(place, *each), place.primary) for each in place.sentinels]


def _watch(url: str, name: str) -> Watch | None:
    try:
        with sentinel_client(url) as sentinel:
            masters = sentinel.sentinel_masters()
    except (RedisError, OSError):
        return None
    each = masters.values() if isinstance(masters, Mapping) else masters
    found = next((master for master in each if master["name"] == name), None)
    if found is None:
        return None
    address = f"{found['ip']}:{found['port']}"
    return Watch(address, int(found["quorum"]), int(found["num-other-sentinels"]))


def nodes_in(known: Mapping[str, Mapping[str, Any]]) -> list[Node]:
    """The nodes of a cluster by what redis-py reads in CLUSTER NODES, masters first. Pure."""
    nodes = []
    for place, told in known.items():
        host, _, port = place.rpartition(":")
        ranges = [(int(each[0]), int(each[-1])) for each in told["slots"]]
        lanes = tuple(
            lane.number
            for lane in CLUSTER.lanes
            for first, last in ranges
            if first <= key_slot(lane.hash_tag.encode()) <= last
        )
        master = "" if told["master_id"] == "-" else str(told["master_id"])
        nodes.append(Node(str(told["node_id"]), host, int(port), master, lanes))
    return sorted(nodes, key=lambda node: (node.master != "", node.lanes, node.place))


def _ask_node(url: str, node: Node) -> NodeFacts:
    with suppress(RedisError, OSError):
        at = of_node(url, (node.host, node.port))
        with roles.sync_client(at, timeout_s=CONNECT_TIMEOUT_S) as client:
            says = _ask_server(client, Replication())
            began_s = time.time()
            seconds, micros = client.time()
            ended_s = time.time()
        ahead_s = seconds + micros / 1e6 - (began_s + ended_s) / 2
        return NodeFacts(node, says, ahead_s * 1000)
    return NodeFacts(node, None)


def ask_mysql(url: str) -> MySQLFacts:
    """Facts of the MySQL at `url`. Raises UnreachableError or UsageError with the cure."""
    place = read_mysql_url(url, "--mysql-url")
    engine = mysql.engine(url)
    try:
        with engine.connect() as connection:
            version = str(connection.execute(text("SELECT VERSION()")).scalar())
            charset = str(connection.execute(text("SELECT @@character_set_database")).scalar())
            rows = connection.execute(text("SHOW GLOBAL VARIABLES")).all()
            missing = keys_missing(connection)
    except (SQLAlchemyError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise UnreachableError(
            f"no usable MySQL at {place} ({reason}); start it or correct --mysql-url"
        ) from None
    finally:
        engine.dispose()
    variables = {str(name).lower(): str(value) for name, value in rows}
    return MySQLFacts(version, charset, variables, place.database, missing)
