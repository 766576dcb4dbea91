"""Faults that a store has by itself, or that somebody with a client makes in it."""

import signal
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice
from typing import TypeAlias

import pymysql
from redis import Redis
from redis.exceptions import RedisError

from flashsale import keys
from flashsale.faults.fault import WELL_WITHIN_S, Fault, Site, signal_all
from flashsale.keys import Lane
from flashsale.store_urls import MySQLConnection

_NOBODY = ("127.0.0.1", "1")
_FULL_BYTES = "1"
_POLL_S = 0.05

_Kept: TypeAlias = tuple[str, int, bytes]
"""A key, what it has left to live, and what is in it as the server dumps it."""


class _InRedis(Fault):
    """Made by one client of the ledger or the cache; of a cluster's node that it befalls, which may
    have lost its lanes when it is healed."""

    _name = ""

    def do(self, site: Site) -> None:
        self._name = site.one(self.planned.whom)
        with site.redis(self._name) as client:
            self.begin(client)

    def heal(self, site: Site) -> None:
        if self._name:
            with site.redis(self._name) as client:
                self.end(client)
                _await_pong(client)

    @abstractmethod
    def begin(self, client: "Redis") -> None:
        """Do it."""

    def end(self, client: "Redis") -> None:
        """Undo it."""


class _InLanes(Fault):
    """Made in every lane of the ledger, which is one where that is one server; or in the cache."""

    def do(self, site: Site) -> None:
        with site.lanes(self.planned.whom) as lanes:
            for lane, client in lanes:
                self.begin(lane, client, site)

    def heal(self, site: Site) -> None:
        with site.lanes(self.planned.whom) as lanes:
            for lane, client in lanes:
                self.end(lane, client)
                _await_pong(client)

    @abstractmethod
    def begin(self, lane: Lane, client: "Redis", site: Site) -> None:
        """Do it."""

    def end(self, lane: Lane, client: "Redis") -> None:
        """Undo it; what is gone stays so."""


def _await_pong(client: "Redis") -> None:
    deadline_s = time.monotonic() + WELL_WITHIN_S
    while True:
        try:
            client.ping()
        except RedisError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_POLL_S)
        else:
            return


class _Forgets(_InLanes):
    """Takes from the ledger what a rebuild has to give back; it sells nothing until then."""

    def do(self, site: Site) -> None:
        super().do(site)
        self._since_s = time.monotonic()

    def heal(self, site: Site) -> None:
        super().heal(site)
        self.rebuild_ledger(site, self._since_s)

    _since_s = 0.0


class Flush(_Forgets):
    """Empties it. Sessions come back as they were: their users would sign in again."""

    _AT_ONCE = 1_000

    def prepare(self, site: Site) -> None:
        self._sessions: dict[str, list[_Kept]] = {}
        if self.planned.whom == "ledger":
            with site.lanes("ledger") as lanes:
                for lane, client in lanes:
                    self._sessions[lane.tag] = list(self._kept(lane, client))

    def _kept(self, lane: Lane, client: "Redis") -> Iterator[_Kept]:
        names = client.scan_iter(lane.login_token("*"), count=self._AT_ONCE)
        while some := list(islice(names, self._AT_ONCE)):
            pipeline = client.pipeline(transaction=False)
            for name in some:
                pipeline.pttl(name)
                pipeline.dump(name)
            found = pipeline.execute()
            for name, left_ms, kept in zip(some, found[::2], found[1::2], strict=True):
                if kept is not None:
                    yield name, left_ms, kept

    def begin(self, lane: Lane, client: "Redis", site: Site) -> None:
        client.flushall()

    def heal(self, site: Site) -> None:
        if self.planned.whom != "ledger":
            _InLanes.heal(self, site)
            return
        super().heal(site)
        with site.lanes("ledger") as lanes:
            for lane, client in lanes:
                pipeline = client.pipeline(transaction=False)
                for name, left_ms, kept in self._sessions[lane.tag]:
                    pipeline.restore(name, max(0, left_ms), kept, replace=True)
                pipeline.execute()


class Trim(_InLanes):
    """Empties the stream, also of entries that no worker has read: they stand still meanwhile.

    Such a ledger is not behind: its receipts tell what is missing, and it sells on.
    """

    _GROWS_S = 0.3

    def do(self, site: Site) -> None:
        pids = [pid for name in site.names("worker") if (pid := site.child(name).pid) > 0]
        for pid in pids:
            signal_all(pid, signal.SIGSTOP)
        try:
            time.sleep(self._GROWS_S)
            super().do(site)
        finally:
            for pid in pids:
                signal_all(pid, signal.SIGCONT)

    def begin(self, lane: Lane, client: "Redis", site: Site) -> None:
        client.xtrim(lane.stream_orders, maxlen=0, approximate=False)

    def heal(self, site: Site) -> None:
        super().heal(site)
        self.rebuild_ledger(site, None)


class DropGroup(_InLanes):
    """The group is gone, with what it knew of pending entries."""

    def begin(self, lane: Lane, client: "Redis", site: Site) -> None:
        client.xgroup_destroy(lane.stream_orders, keys.GROUP)


_OF_SALE: dict[str, Callable[[Lane, int], str]] = {
    "stock": Lane.seckill_stock,
    "order": Lane.seckill_order,
    "receipt": Lane.seckill_receipt,
    "sale": Lane.seckill_sale,
}


class Delete(_Forgets):
    """Deletes one key of every sale."""

    def begin(self, lane: Lane, client: "Redis", site: Site) -> None:
        key = _OF_SALE[self.planned.key]
        if names := [key(lane, voucher) for voucher in filter(lane.sells, site.vouchers)]:
            client.delete(*names)


class WrongType(_InLanes):
    """Something else has the stream's name for a while."""

    _UNDO = """\
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end"""

    def begin(self, lane: Lane, client: "Redis", site: Site) -> None:
        pipeline = client.pipeline(transaction=True)
        pipeline.rename(lane.stream_orders, _aside(lane))
        pipeline.set(lane.stream_orders, "no stream")
        pipeline.execute()

    def end(self, lane: Lane, client: "Redis") -> None:
        client.eval(self._UNDO, 2, lane.stream_orders, _aside(lane))


def _aside(lane: Lane) -> str:
    return f"{lane.stream_orders}:aside"


class OutOfMemory(_InRedis):
    """`maxmemory` is below what it holds, so it takes no writes."""

    _before = ""

    def begin(self, client: "Redis") -> None:
        self._before = str(client.config_get("maxmemory")["maxmemory"])
        client.config_set("maxmemory", _FULL_BYTES)

    def end(self, client: "Redis") -> None:
        if self._before:
            client.config_set("maxmemory", self._before)


class ReadOnly(_InRedis):
    """A replica: Redis one of a server that is not there, MariaDB by its own word."""

    def do(self, site: Site) -> None:
        if self.planned.whom == "mysql":
            _set_read_only(site, True)
        else:
            super().do(site)

    def heal(self, site: Site) -> None:
        if self.planned.whom == "mysql":
            _set_read_only(site, False)
        else:
            super().heal(site)

    def begin(self, client: "Redis") -> None:
        client.execute_command("REPLICAOF", *_NOBODY)  # type: ignore[no-untyped-call]

    def end(self, client: "Redis") -> None:
        client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


def _set_read_only(site: Site, wanted: bool) -> None:
    with closing(site.mysql()) as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL read_only = %s", (int(wanted),))


class PauseClients(_InRedis):
    """Reads nobody's commands until the pause is over."""

    def begin(self, client: "Redis") -> None:
        client.execute_command("CLIENT", "PAUSE", round(self.planned.for_s * 1000), "ALL")  # type: ignore[no-untyped-call]


class Poison(_InLanes):
    """Entries that no worker can make a row of, each in another way."""

    def begin(self, lane: Lane, client: "Redis", site: Site) -> None:
        voucher = str(next(filter(lane.sells, site.vouchers), 1))
        whole = {"userId": "1", "voucherId": voucher, "id": "1", "ms": "1"}
        for fields in (
            {"nothing": "at all"},
            {**whole, "userId": "0"},
            {**whole, "id": "9" * 30},
            {**whole, "ms": "soon"},
            {**whole, "voucherId": "-1"},
        ):
            words = [word for field in fields.items() for word in field]
            client.execute_command("XADD", lane.stream_orders, "*", *words)  # type: ignore[no-untyped-call]


class KillConnections(Fault):
    """The server closes every connection but the one that asks for it."""

    _name = "mysql"

    def do(self, site: Site) -> None:
        if self.planned.whom == "mysql":
            with closing(site.mysql()) as connection, connection.cursor() as cursor:
                _kill_others(cursor)
            return
        self._name = site.one(self.planned.whom)
        with site.redis(self._name) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def heal(self, site: Site) -> None:
        site.await_well(self._name)


def _kill_others(cursor: "pymysql.cursors.Cursor") -> None:
    cursor.execute("SELECT id FROM information_schema.processlist WHERE id <> connection_id()")
    for (thread,) in cursor.fetchall():
        with suppress(pymysql.Error):  # it has gone by itself, or is one of the server's own
            cursor.execute("KILL %s", (thread,))


class LockRows(Fault):
    """A transaction that does not end holds the row of every sale."""

    _connection: "MySQLConnection | None" = None

    def do(self, site: Site) -> None:
        self._connection = site.mysql()
        with self._connection.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute("SELECT voucher_id FROM tb_seckill_voucher FOR UPDATE")
            cursor.fetchall()

    def heal(self, site: Site) -> None:
        if self._connection is not None:
            with suppress(pymysql.Error), closing(self._connection):
                self._connection.rollback()
        site.await_well("mysql")
