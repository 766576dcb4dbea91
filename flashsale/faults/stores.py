"""Faults that a store has by itself, or that somebody with a client makes in it."""

import signal
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import islice

import pymysql
from redis import Redis
from redis.exceptions import RedisError

from flashsale import keys
from flashsale.faults.fault import WELL_WITHIN_S, Fault, Site, signal_all
from flashsale.store_urls import MySQLConnection

_NOBODY = ("127.0.0.1", "1")
_FULL_BYTES = "1"
_POLL_S = 0.05


class _InRedis(Fault):
    """Made by one client of the ledger or the cache."""

    def do(self, site: Site) -> None:
        with site.redis(self.planned.whom) as client:
            self.begin(client, site)

    def heal(self, site: Site) -> None:
        with site.redis(self.planned.whom) as client:
            self.end(client)
            _await_pong(client)

    @abstractmethod
    def begin(self, client: "Redis", site: Site) -> None:
        """Do it."""

    def end(self, client: "Redis") -> None:
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


class _Forgets(_InRedis):
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
        self._sessions: list[tuple[str, int, bytes]] = []
        if self.planned.whom != "ledger":
            return
        with site.redis("ledger", as_text=False) as client:
            names = client.scan_iter(keys.login_token("*"), count=self._AT_ONCE)
            while some := list(islice(names, self._AT_ONCE)):
                pipeline = client.pipeline(transaction=False)
                for name in some:
                    pipeline.pttl(name)
                    pipeline.dump(name)
                found = pipeline.execute()
                self._sessions += [
                    (name, left_ms, kept)
                    for name, left_ms, kept in zip(some, found[::2], found[1::2], strict=True)
                    if kept is not None
                ]

    def begin(self, client: "Redis", site: Site) -> None:
        client.flushall()

    def heal(self, site: Site) -> None:
        if self.planned.whom != "ledger":
            _InRedis.heal(self, site)
            return
        super().heal(site)
        with site.redis("ledger", as_text=False) as client:
            pipeline = client.pipeline(transaction=False)
            for name, left_ms, kept in self._sessions:
                pipeline.restore(name, max(0, left_ms), kept, replace=True)
            pipeline.execute()


class Trim(_InRedis):
    """Empties the stream, also of entries that no worker has read: they stand still meanwhile.

    Such a ledger is not behind: its receipts tell what is missing, and it sells on.
    """

    _GROWS_S = 0.3

    def begin(self, client: "Redis", site: Site) -> None:
        pids = [pid for name in site.names("worker") if (pid := site.child(name).pid) > 0]
        for pid in pids:
            signal_all(pid, signal.SIGSTOP)
        try:
            time.sleep(self._GROWS_S)
            client.xtrim(keys.STREAM_ORDERS, maxlen=0, approximate=False)
        finally:
            for pid in pids:
                signal_all(pid, signal.SIGCONT)

    def heal(self, site: Site) -> None:
        super().heal(site)
        self.rebuild_ledger(site, None)


class DropGroup(_InRedis):
    """The group is gone, with what it knew of pending entries."""

    def begin(self, client: "Redis", site: Site) -> None:
        client.xgroup_destroy(keys.STREAM_ORDERS, keys.GROUP)


_OF_SALE: dict[str, Callable[[int], str]] = {
    "stock": keys.seckill_stock,
    "order": keys.seckill_order,
    "receipt": keys.seckill_receipt,
    "sale": keys.seckill_sale,
}


class Delete(_Forgets):
    """Deletes one key of every sale."""

    def begin(self, client: "Redis", site: Site) -> None:
        client.delete(*map(_OF_SALE[self.planned.key], site.vouchers))


class WrongType(_InRedis):
    """Something else has the stream's name for a while."""

    _ASIDE = f"{keys.STREAM_ORDERS}:aside"
    _UNDO = """\
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end"""

    def begin(self, client: "Redis", site: Site) -> None:
        pipeline = client.pipeline(transaction=True)
        pipeline.rename(keys.STREAM_ORDERS, self._ASIDE)
        pipeline.set(keys.STREAM_ORDERS, "no stream")
        pipeline.execute()

    def end(self, client: "Redis") -> None:
        client.eval(self._UNDO, 2, keys.STREAM_ORDERS, self._ASIDE)


class OutOfMemory(_InRedis):
    """`maxmemory` is below what it holds, so it takes no writes."""

    _before = ""

    def begin(self, client: "Redis", site: Site) -> None:
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

    def begin(self, client: "Redis", site: Site) -> None:
        client.execute_command("REPLICAOF", *_NOBODY)  # type: ignore[no-untyped-call]

    def end(self, client: "Redis") -> None:
        client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


def _set_read_only(site: Site, wanted: bool) -> None:
    with closing(site.mysql()) as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL read_only = %s", (int(wanted),))


class PauseClients(_InRedis):
    """Reads nobody's commands until the pause is over."""

    def begin(self, client: "Redis", site: Site) -> None:
        client.execute_command("CLIENT", "PAUSE", round(self.planned.for_s * 1000), "ALL")  # type: ignore[no-untyped-call]


class Poison(_InRedis):
    """Entries that no worker can make a row of, each in another way."""

    def begin(self, client: "Redis", site: Site) -> None:
        voucher = str(next(iter(site.vouchers), 1))
        whole = {"userId": "1", "voucherId": voucher, "id": "1", "ms": "1"}
        for fields in (
            {"nothing": "at all"},
            {**whole, "userId": "0"},
            {**whole, "id": "9" * 30},
            {**whole, "ms": "soon"},
            {**whole, "voucherId": "-1"},
        ):
            words = [word for field in fields.items() for word in field]
            client.execute_command("XADD", keys.STREAM_ORDERS, "*", *words)  # type: ignore[no-untyped-call]


class KillConnections(Fault):
    """The server closes every connection but the one that asks for it."""

    def do(self, site: Site) -> None:
        if self.planned.whom == "mysql":
            with closing(site.mysql()) as connection, connection.cursor() as cursor:
                _kill_others(cursor)
            return
        with site.redis(self.planned.whom) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def heal(self, site: Site) -> None:
        site.await_well(self.planned.whom)


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
