"""A private ledger on a Redis Cluster of this machine: masters with a replica each, by ports of
loopback and passwords. What a cluster of several machines has in addition is their network.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from flashsale.errors import UnreachableError
from flashsale.model import Durability
from flashsale.stack.port import LOOPBACK, Port
from flashsale.stack.redis import ClusterPart, RedisRole, RedisServer
from flashsale.stack.service import Account
from flashsale.stack.settings import StackSettings

MASTERS = 3
NODES = tuple(f"ledger-{number}" for number in range(1, 2 * MASTERS + 1))
"""The nodes of a stack's: the masters first, then a replica of each."""
_SLOTS = 16_384
_PATIENCE_S = 30.0
_POLL_S = 0.05
_CALL_TIMEOUT_S = 3.0
_ALONE = ("0", "1")
"""The epoch of a node that is new, and how many it knows: itself."""


class LedgerCluster:
    """The nodes of one cluster: the first `masters` of them divide the slots, each of the others
    follows one of those. The nodes are to be brought up first, and then `form` makes them one.

    Data and topology survive a restart in the same directory, at other ports, too.
    """

    def __init__(
        self,
        directory: Path,
        log: Callable[[str], Path],
        *,
        masters: int = MASTERS,
        replicas: int = MASTERS,
        memory_mb: int | None = None,
        durability: Durability = Durability.ALWAYS,
    ) -> None:
        passwords = {account: secrets.token_urlsafe(24) for account in Account}
        self._masters = masters
        self.nodes = [
            RedisServer(
                RedisRole.LEDGER,
                directory / folder_of(name),
                name=name,
                port=Port.free(),
                log=log(name),
                memory_mb=memory_mb,
                durability=durability,
                cluster=ClusterPart(Port.free(), passwords),
            )
            for name in NODES[: masters + replicas]
        ]

    @classmethod
    def of(cls, state_dir: Path, settings: StackSettings, log: Callable[[str], Path]) -> Self:
        """The one of a stack."""
        return cls(
            state_dir / RedisRole.LEDGER,
            log,
            memory_mb=settings.ledger_memory_mb,
            durability=settings.durability,
        )

    def __repr__(self) -> str:
        return f"LedgerCluster({self.nodes!r})"

    def url_for(self, account: Account) -> str:
        """Where an account reaches it: by any of its nodes, so that one may be away."""
        scheme, _, rest = self.nodes[0].url_for(account).partition("://")
        others = [f"{node.port.host}:{node.port.number}" for node in self.nodes[1:]]
        return f"{scheme}+cluster://{','.join([rest.removesuffix('/0'), *others])}"

    def form(self) -> None:
        """Let the nodes know one another, divide the slots where nobody has any yet, and wait until
        every slot is served and every copy is up to date. Raises UnreachableError."""
        clients = [_client(node.url) for node in self.nodes]
        try:
            self._introduce(clients)
            if _told(clients[0], "cluster_slots_assigned") == "0":
                self._divide(clients)
            _wait("serve all slots", lambda: all(_is_whole(client) for client in clients))
            _wait("copy their masters", lambda: all(_follows(client) for client in clients))
        except RedisError as error:
            raise UnreachableError(f"the ledger's cluster cannot be formed: {error}") from error
        finally:
            for client in clients:
                client.close()

    def _introduce(self, clients: Sequence[Redis]) -> None:
        is_new = _told(clients[0], "cluster_slots_assigned") == "0"
        for number, client in enumerate(clients, start=1):
            if (
                _told(client, "cluster_my_epoch") == "0"
                and _told(client, "cluster_known_nodes") == "1"
            ):
                _ask(client, "SET-CONFIG-EPOCH", number)
        for number, client in enumerate(clients):
            # Those that were one before know the others by places of then: all are told anew.
            for node in self.nodes[number + 1 :] if number == 0 or not is_new else ():
                assert node.cluster is not None
                place = (node.port.host, node.port.number, node.cluster.bus.number)
                _ask(client, "MEET", *place)
        ids = {_ask(client, "MYID") for client in clients}
        _wait("know one another", lambda: all(_knows(client, ids) for client in clients))

    def _divide(self, clients: Sequence[Redis]) -> None:
        ends = [_SLOTS * number // self._masters for number in range(self._masters + 1)]
        masters = clients[: self._masters]
        for client, (start, end) in zip(masters, pairwise(ends), strict=True):
            _ask(client, "ADDSLOTSRANGE", start, end - 1)
        ids = [_ask(client, "MYID") for client in masters]
        for number, client in enumerate(clients[self._masters :]):
            _ask(client, "REPLICATE", ids[number % self._masters])


def by_relays(
    url: str, nodes: Sequence[RedisServer], client: str, links: Mapping[str, int]
) -> dict[str, str]:
    """What a process named `client` is told of the ledger at `url`, on a cluster as `url_for` names
    its nodes, or behind Sentinels: the relay's port of each node to which one of the `links` leads
    from it. Pure."""
    ports = {node.port: links.get(f"{client}->{node.name}") for node in nodes}
    relays = {f"{at.host}:{at.number}": f"{LOOPBACK}:{port}" for at, port in ports.items() if port}
    if not relays:
        return {}
    account, at_sign, places = url.rpartition("@")
    reached = ",".join(relays.get(place, place) for place in places.split(","))
    return {
        "FLASHSALE_LEDGER_URL": f"{account}{at_sign}{reached}",
        "FLASHSALE_LEDGER_ADDRESSES": json.dumps(relays),
    }


def folder_of(name: str) -> str:
    """Where a node of this name keeps its data, below the cluster's own folder. Pure."""
    return name.replace("ledger", "node")


def await_whole(urls: Sequence[str], patience_s: float = _PATIENCE_S) -> None:
    """Wait until the nodes at `urls`, half of them masters, serve every slot, and each of the
    others has what its master has. Raises UnreachableError."""
    with ExitStack() as open_clients:
        clients = [open_clients.enter_context(_client(url)) for url in urls]

        def is_done() -> bool:
            with suppress(RedisError):  # one of them has yet to come back
                roles = [client.info("replication")["role"] for client in clients]
                return (
                    roles.count("master") * 2 == len(roles)
                    and all(map(_is_whole, clients))
                    and all(map(_follows, clients))
                )
            return False

        _wait("become whole again", is_done, patience_s)


def _client(url: str) -> Redis:
    return Redis.from_url(
        url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=_CALL_TIMEOUT_S
    )


def _told(client: Redis, name: str) -> str:
    """One line of CLUSTER INFO."""
    lines = _ask(client, "INFO").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line).get(name, "")


def _ask(client: Any, *words: object) -> str:
    """What a node says to CLUSTER and these words."""
    reply = client.execute_command("CLUSTER", *words)
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _knows(client: Redis, ids: set[str]) -> bool:
    """Whether a node has heard the names of all: until then each has one that was made up."""
    lines = _ask(client, "NODES").splitlines()
    return {line.partition(" ")[0] for line in lines} == ids


def _is_whole(client: Redis) -> bool:
    return _told(client, "cluster_state") == "ok" and (
        _told(client, "cluster_slots_ok") == str(_SLOTS)
    )


def _follows(client: Redis) -> bool:
    """True of a master, and of a replica that has its master's data."""
    found = client.info("replication")
    return bool(found["role"] == "master" or found["master_link_status"] == "up")


def _wait(what: str, is_done: Callable[[], bool], patience_s: float = _PATIENCE_S) -> None:
    until_s = time.monotonic() + patience_s
    while not is_done():
        if time.monotonic() > until_s:
            raise UnreachableError(
                f"the nodes of the ledger's cluster did not {what} within {patience_s:g} s"
            )
        time.sleep(_POLL_S)
