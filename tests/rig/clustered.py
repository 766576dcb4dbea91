"""A small Redis Cluster of a test's own: masters, mostly without replicas, whose lanes can move."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry

from flashsale.keys import CLUSTER, Lane
from flashsale.stack.cluster import LedgerCluster
from flashsale.stack.service import Account
from flashsale.store_urls import read_redis_url
from rig.until import until

_MOVE_TIMEOUT_MS = 5_000


class Clustered:
    """The nodes of a cluster, and who has which lane."""

    def __init__(self, urls: Sequence[str], url: str) -> None:
        """Of the nodes at `urls`; as a ledger it is at `url`."""
        self.places = [read_redis_url(each) for each in urls]
        self.url = url
        self._nodes = [Redis.from_url(each, retry=Retry(NoBackoff(), 1)) for each in urls]

    def flush(self) -> None:
        """Empty every master, scripts among it."""
        for node in self._nodes:
            node.flushall()
            node.script_flush()

    def node_of(self, lane: Lane) -> int:
        """The master that has a lane: its place among the servers, -1 where none has."""
        slot = _slot(lane)
        ports = {place.port: number for number, place in enumerate(self.places)}
        slots = self._slots()
        masters = (ports[there[1]] for first, last, there, *_ in slots if first <= slot <= last)
        return next(masters, -1)

    def masters(self) -> list[int]:
        """Those that have slots now."""
        ports = [place.port for place in self.places]
        return sorted({ports.index(master[1]) for _, _, master, *_ in self._slots()})

    def is_copied(self) -> bool:
        """Whether each master has a replica, and each replica all that its master has."""
        masters = self.masters()
        others = [node for node in range(len(self.places)) if node not in masters]
        return len(masters) == len(others) and all(
            self._nodes[node].wait(1, 100) >= 1 for node in masters
        )

    def replica_of(self, node: int) -> int:
        """A master's replica, as another node knows it."""
        slots = self._slots(but=node)
        ports = [place.port for place in self.places]
        of_it = next(some for _, _, *some in slots if some[0][1] == ports[node])
        return ports.index(of_it[1][1])

    def promote_replica_of(self, node: int) -> None:
        """Let a master's replica take its place at once, whatever the others think of it."""
        self._ask(self.replica_of(node), "FAILOVER", "TAKEOVER")

    @contextmanager
    def cut_off(self, node: int) -> Iterator[None]:
        """A master's replica hears nothing more of it: it is not let in again."""
        replica = self._nodes[self.replica_of(node)]
        word = replica.config_get("masterauth")["masterauth"]
        replica.config_set("masterauth", f"{word}-no-more")
        self._nodes[node].client_kill_filter(_type="replica")
        try:
            yield
        finally:
            replica.config_set("masterauth", word)

    @contextmanager
    def replica_stopped(self, lane: Lane) -> Iterator[None]:
        """The replica of a lane's master stands still, and its connection stays."""
        replica = self._nodes[self.replica_of(self.node_of(lane))]
        pid = int(replica.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def lane_at(self, node: int) -> Lane:
        """A lane that this master has."""
        return next(lane for lane in CLUSTER.lanes if self.node_of(lane) == node)

    def begin_move(self, lane: Lane, to: int) -> int:
        """Open a lane's slot for its way to another master; the one that it leaves."""
        source, slot = self.node_of(lane), _slot(lane)
        self._ask(to, "SETSLOT", slot, "IMPORTING", self._id(source))
        self._ask(source, "SETSLOT", slot, "MIGRATING", self._id(to))
        return source

    def move_keys(self, lane: Lane, source: int, to: int, most: int = 1_000_000) -> int:
        """Bring up to so many of a slot's keys over; how many they were."""
        names: Any = self._ask(source, "GETKEYSINSLOT", _slot(lane), most)
        there = self.places[to]
        for name in names:
            place = (there.host, there.port, "", 0, _MOVE_TIMEOUT_MS)
            account = ("AUTH2", there.user, there.password, "KEYS", name)
            self._nodes[source].execute_command("MIGRATE", *place, *account)  # type: ignore[no-untyped-call]
        return len(names)

    def end_move(self, lane: Lane, to: int) -> None:
        """The slot is another's from now on; all masters are told."""
        for node in (to, *(n for n in self.masters() if n != to)):
            self._ask(node, "SETSLOT", _slot(lane), "NODE", self._id(to))
        until(lambda: self.node_of(lane) == to)

    def move(self, lane: Lane, to: int) -> None:
        """A lane to another master, all of it."""
        source = self.begin_move(lane, to)
        self.move_keys(lane, source, to)
        self.end_move(lane, to)

    @contextmanager
    def without_slot(self, lane: Lane) -> Iterator[None]:
        """Nobody has a lane's slot, for as long as the block lasts; what was in it is gone."""
        node, slot = self.node_of(lane), _slot(lane)
        for name in self._ask(node, "GETKEYSINSLOT", slot, 1_000):
            self._nodes[node].delete(name)
        for each in range(len(self._nodes)):
            self._ask(each, "DELSLOTS", slot)
        try:
            yield
        finally:
            for each in range(len(self._nodes)):
                self._forget(each, slot)
            self._ask(node, "ADDSLOTS", slot)
            until(lambda: all(self._covers(each, slot) for each in range(len(self._nodes))))

    def _covers(self, node: int, slot: int) -> bool:
        """Whether a node knows of a master that has a slot."""
        return any(first <= slot <= last for first, last, *_ in self._ask(node, "SLOTS"))

    def _forget(self, node: int, slot: int) -> None:
        with suppress(ResponseError):  # it is unassigned there already
            self._ask(node, "DELSLOTS", slot)

    def close(self) -> None:
        """Close the connections."""
        for node in self._nodes:
            node.close()

    def _slots(self, but: int = -1) -> Any:
        """Who has which slots, by the first node but that one that answers."""
        for node in range(len(self.places)):
            if node != but:
                with suppress(RedisConnectionError):
                    return self._ask(node, "SLOTS")
        raise AssertionError("no node answers")

    def _id(self, node: int) -> str:
        return str(self._ask(node, "MYID").decode())

    def _ask(self, node: int, *words: object) -> Any:
        client: Any = self._nodes[node]
        return client.execute_command(f"CLUSTER {words[0]}", *words[1:])


def _slot(lane: Lane) -> int:
    return key_slot(lane.hash_tag.encode())


@contextmanager
def clustered(folder: Path, *, masters: int = 3, replicas: int = 0) -> Iterator[Clustered]:
    """A cluster that is up, for as long as the block lasts."""
    made = LedgerCluster(
        folder,
        lambda name: folder / f"{name}.log",
        masters=masters,
        replicas=replicas,
        memory_mb=64,
    )
    cluster = None
    try:
        for node in made.nodes:
            node.launch()
        for node in made.nodes:
            node.settle()
        made.form()
        cluster = Clustered([node.url for node in made.nodes], made.url_for(Account.OWNER))
        yield cluster
    finally:
        if cluster is not None:
            cluster.close()
        for node in made.nodes:
            node.stop()
