"""A sale whose processes end one another by SIGKILL at a failpoint, alone or in pairs, and what has
to be true of it afterwards: each accepted order a row, once, and each unit where it belongs.

A process is a worker, a replica, or a command at work, as its own process runs it. One of them is
armed: where it comes by the point, it ends its partner (a process or a store) and itself.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import uvloop
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from flashsale import failpoints, keys
from flashsale.campaign.rebuilding import rebuild
from flashsale.errors import Indeterminate, Unavailable, UnreachableError
from flashsale.orders.process import make_worker, run_worker
from flashsale.seckill.control import SaleControl
from flashsale.seckill.ids import EPOCH_S, day_of
from flashsale.seckill.journal import unended
from flashsale.seckill.queue import read_group
from flashsale.server.replica import Replica
from flashsale.settings import ReplicaSettings, StoreSettings, WorkerSettings
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.port import Port
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.stack.service import Service
from flashsale.storage import tables
from flashsale.storage.mysql import engine, transaction
from flashsale.storage.roles import sync_client
from rig.rows import add_sale
from rig.sale import claim, open_sale, sign_in
from rig.until import until

UNITS, USERS_MAX, RESTOCKED = 700, 600, 5
_PR_SET_PDEATHSIG = 1
FAST = {
    "FLASHSALE_CLAIM_TIMEOUT_MS": "300",
    "FLASHSALE_WORKER_BATCH_ROWS_MAX": "4",
    "FLASHSALE_WORKER_BLOCK_MS": "20",
    "FLASHSALE_WORKER_LINGER_MS": "0",
    "FLASHSALE_WORKER_RETRY_BASE_MS": "5",
    "FLASHSALE_WORKER_RETRY_MAX_MS": "50",
    "FLASHSALE_WORKER_BOOKS_INTERVAL_S": "0.2",
    "FLASHSALE_ORDER_SWEEP_INTERVAL_S": "0.1",
    "FLASHSALE_ORDER_UNPAID_TIMEOUT_S": "3600",
    "FLASHSALE_REPLICA_NICENESS": "0",
}


@dataclass(frozen=True)
class Kill:
    """Who comes by which point, and whom it takes along."""

    role: str
    point: str
    partner: str = "nobody"

    def __str__(self) -> str:
        return f"{self.role} at {self.point} with {self.partner}"


# In the processes themselves ----------------------------------------------------------------------


def act(
    role: str,
    name: str,
    log: Path,
    environment: dict[str, str],
    point: str,
    victims: Sequence[int],
    port: int,
) -> None:
    """The life of one of them; armed where `point` names one."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # gone with the tests
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)

    def end() -> None:
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    if point:
        failpoints.arm(point, end)
    stores = StoreSettings.load()
    if role == "worker":
        run_worker(name, 0, stores, WorkerSettings.load())
    elif role == "replica":
        uvloop.run(Replica(name, port, stores, ReplicaSettings.load()).run())
    elif role == "rebuild":
        rebuild(stores, apply=True)
    elif role == "control":
        restock(stores)
    else:
        raise AssertionError(role)


def restock(stores: StoreSettings) -> None:
    """A few units more, by command."""
    pool = engine(stores.mysql_url)
    with sync_client(stores.ledger_url) as ledger:
        SaleControl(pool, ledger, "ann").restock(1, RESTOCKED)
    pool.dispose()


# The sale -----------------------------------------------------------------------------------------


@dataclass
class World:
    """Stores of its own, a sale, and whoever works on it now."""

    folder: Path
    ledger_server: RedisServer
    cache_server: RedisServer
    mariadb: MariaDBServer
    port: Port
    running: dict[str, BaseProcess] = field(default_factory=dict)
    accepted: dict[int, int] = field(default_factory=dict)  # user → order, as it was told
    cancelled: set[int] = field(default_factory=set)
    asked: int = 0  # users who have claimed
    first_id: int = 0  # an order of now: who waits for its payment waits as long as ever

    def __post_init__(self) -> None:
        # A process forked from one that has everything imported is there at once.
        self._spawn = multiprocessing.get_context("forkserver")
        self._spawn.set_forkserver_preload(["rig.kill_pairs"])
        self._claimers = ThreadPoolExecutor(4)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self.port.number}", timeout=5)
        self.pool = engine(self.mariadb.url)
        self.ledger = sync_client(self.ledger_server.url)
        self.cache = sync_client(self.cache_server.url)
        tables.create_all(self.pool)

    @property
    def environment(self) -> dict[str, str]:
        return FAST | {
            "FLASHSALE_LEDGER_URL": self.ledger_server.url,
            "FLASHSALE_CACHE_URL": self.cache_server.url,
            "FLASHSALE_MYSQL_URL": self.mariadb.url,
        }

    @property
    def stores(self) -> StoreSettings:
        return StoreSettings(
            ledger_url=self.ledger_server.url,
            cache_url=self.cache_server.url,
            mysql_url=self.mariadb.url,
        )

    def open(self) -> None:
        """A sale of which nothing is sold."""
        self.ledger.flushall()
        self.cache.flushall()
        with self.pool.begin() as connection:
            for table in reversed(tables.metadata.sorted_tables):
                connection.execute(table.delete())
        self.accepted, self.cancelled, self.asked = {}, set(), 0
        self.first_id = (int(time.time()) - EPOCH_S) << 32
        add_sale(self.pool, stock=UNITS)
        open_sale(self.ledger, units=UNITS)
        as_in_mysql = {"begin": 1_577_836_800_000, "end": 3_786_912_000_000}
        self.ledger.hset(keys.seckill_sale(1), mapping=dict[Any, Any](as_in_mysql))
        # Ids that no replica has leased are counted all the same, or the ledger would be behind.
        self.ledger.set(keys.order_counter(day_of(self.first_id >> 32)), 2 * USERS_MAX)
        self.ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
        sign_in(self.ledger, *range(1, USERS_MAX + 1))

    def close(self) -> None:
        self.end_all()
        self._claimers.shutdown()
        self._http.close()
        self.ledger.close()
        self.cache.close()
        self.pool.dispose()

    # Processes and stores

    def start(self, role: str, name: str, kill: Kill | None = None, **environment: str) -> int:
        """Start one; its pid. With `kill` it is armed."""
        victims = [] if kill is None else self._victims(kill.partner)
        process = self._spawn.Process(
            target=act,
            args=(
                role,
                name,
                self.folder / f"{name}.log",
                self.environment | environment,
                "" if kill is None else kill.point,
                victims,
                self.port.number,
            ),
            daemon=True,
        )
        with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            process.start()
        self.running[name] = process
        if role == "replica":
            until(lambda: self._answers() or process.exitcode is not None, 30)
        assert process.pid is not None
        return process.pid

    def _answers(self) -> bool:
        try:
            return self._http.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def _victims(self, partner: str) -> list[int]:
        server = {"ledger": self.ledger_server, "mariadb": self.mariadb}.get(partner)
        if server is not None:
            assert server.process is not None
            return [server.process.pid]
        names = {"worker": "c2", "replica": "r1"}
        if partner not in names:
            return []
        pid = self.running[names[partner]].pid
        assert pid is not None
        return [pid]

    def is_dead(self, name: str) -> bool:
        """Whether it has ended; by SIGKILL, and by nothing else."""
        code = self.running[name].exitcode
        if code is None:
            return False
        log = self.folder / f"{name}.log"
        assert code == -signal.SIGKILL, log.read_text() if log.exists() else code
        return True

    def end_all(self) -> None:
        """End whoever still works."""
        for process in self.running.values():
            process.kill()
            process.join(20)
            process.close()
        self.running.clear()

    def revive(self, kill: Kill) -> None:
        """What a supervisor does: whoever was ended is started again, under its own name. The
        others go on."""
        servers: dict[str, Service] = {"ledger": self.ledger_server, "mariadb": self.mariadb}
        if server := servers.get(kill.partner):
            until(lambda: server.process is None or server.process.exit_code is not None)
            server.sweep()
            server.start()
            self.pool.dispose()
        for role, name in (("worker", "c1"), ("worker", "c2"), ("replica", "r1")):
            process = self.running.get(name)
            if process is not None:
                process.join(10 if role == kill.partner else 0)
            if process is None or process.exitcode is not None:
                self.start(role, name)

    # Who buys

    def feed(self, count: int) -> None:
        """The next users claim, over a replica where there is one; and a moment passes."""
        users = range(self.asked + 1, self.asked + 1 + count)
        assert users.stop <= USERS_MAX, "the point was never reached"
        self.asked += count
        self.buy(users)
        time.sleep(0.03)

    def buy(self, users: Sequence[int]) -> None:
        """Each of them claims once; whoever is told so has an order."""
        if "r1" in self.running:
            for user, order in zip(users, self._claimers.map(self._over_http, users), strict=True):
                if order:
                    self.accepted[user] = order
            return
        with suppress(RedisError):
            for user in users:
                ((code, order),) = claim(self.ledger, (user, self.first_id + user))
                if code in (_SOLD, _HAS_ONE):  # the answer to the first time may have been lost
                    self.accepted[user] = int(order)

    def _over_http(self, user: int) -> int:
        """The order that this user was told of, 0 where nobody knows."""
        try:
            answer = self._http.post(
                "/voucher-order/seckill/1", headers={"authorization": f"token-{user}"}
            )
        except httpx.HTTPError:
            return 0
        if answer.headers.get("x-outcome") in ("sold", "duplicate"):
            return int(answer.headers["x-order-id"])
        return 0

    def cancel(self, user: int) -> None:
        """One user does not want it any more."""
        self.cancelled.add(user)
        with suppress(httpx.HTTPError):
            self._http.post(
                f"/voucher-order/{self.accepted[user]}/cancel",
                headers={"authorization": f"token-{user}"},
            )

    # The end

    def problems(self, *, poison: int = 0, offered: int = UNITS) -> list[str]:
        """What is not as it has to be; nothing where the sale is whole."""
        with transaction(self.pool) as connection:
            rows = connection.execute(
                text("SELECT id, user_id, live FROM tb_voucher_order WHERE voucher_id = 1")
            ).all()
            sale = connection.execute(text("SELECT * FROM tb_seckill_voucher")).one()
            owed = connection.execute(text("SELECT COUNT(*) FROM tb_order_return")).scalar_one()
            open_changes = len(unended(connection))
        ledger: Any = self.ledger
        receipts = {int(u): int(o) for u, o in ledger.hgetall(keys.seckill_receipt(1)).items()}
        members = {int(user) for user in ledger.smembers(keys.seckill_order(1))}
        left = int(ledger.get(keys.seckill_stock(1)))
        terms = ledger.hgetall(keys.seckill_sale(1))
        waiting = read_group(self.ledger).outstanding
        live = {row.user_id: row.id for row in rows if row.live}
        by_id = {row.id: row.user_id for row in rows}
        lost = {user: o for user, o in self.accepted.items() if by_id.get(o) != user}
        facts = {
            f"acknowledged and no rows: {lost}": not lost,
            f"{len(rows)} rows, {len(by_id)} orders": len(rows) == len(by_id),
            f"live {live}, receipts {receipts}": live == receipts,
            f"set {members}, receipts {set(receipts)}": members == set(receipts),
            f"ledger: {left} left, {len(members)} held": left + len(members) == offered,
            f"MySQL: {sale.stock} left, {len(live)} live": sale.stock + len(live) == offered,
            f"offered {terms['initial']}, {sale.initial_stock}": int(terms["initial"]) == offered
            and sale.initial_stock == offered,
            f"{owed} units owed, {open_changes} changes open": not owed and not open_changes,
            f"{waiting} orders wait": waiting == 0,
            "dead letters": ledger.xlen(keys.STREAM_DEAD) == poison,
            f"closed: {ledger.get(keys.CLOSED)}": not ledger.exists(keys.CLOSED),
        }
        return [fact for fact, holds in facts.items() if not holds]

    def becomes_whole(self, **expected: int) -> None:
        """Within moments."""
        found: list[str] = ["nothing was looked at"]

        def is_whole() -> bool:
            try:
                found[:] = self.problems(**expected)
            except (RedisError, DBAPIError, Unavailable, Indeterminate) as trouble:
                found[:] = [str(trouble)]
            return not found

        try:
            until(is_whole, 40)
        except AssertionError:
            logs = {p.name: p.read_text()[-2_000:] for p in self.folder.glob("*.log")}
            raise AssertionError(f"{found}\n{logs}") from None


@contextmanager
def opened(folder: Path) -> Iterator[World]:
    """Stores of its own, for as long as the block lasts."""
    port = Port.free()
    with (
        RedisServer(RedisRole.LEDGER, folder / "ledger") as ledger,
        RedisServer(RedisRole.CACHE, folder / "cache") as cache,
        MariaDBServer(folder / "mariadb", buffer_pool_mb=32, redo_log_mb=16) as mariadb,
    ):
        world = World(folder, ledger, cache, mariadb, port)
        try:
            yield world
        finally:
            world.close()
            port.close()


_SOLD, _HAS_ONE = 0, 2

# Scenes -------------------------------------------------------------------------------------------


def _cast(world: World, kill: Kill) -> None:
    """Whoever is to be taken along is there first."""
    if kill.partner == "worker":
        world.start("worker", "c2")
    elif kill.partner == "replica":
        world.start("replica", "r1")


def _worker(world: World, kill: Kill) -> dict[str, int]:
    _cast(world, kill)
    world.start("worker", "c1", kill)
    poison = 0
    while not world.is_dead("c1"):
        if "aside" in kill.point:
            with suppress(RedisError):
                world.ledger.xadd(keys.STREAM_ORDERS, {"no": "order"})
                poison += 1
        world.feed(2)
    return {"poison": poison}


def _cut_off(world: World) -> None:
    time.sleep(0.015)
    with suppress(RedisError):
        world.ledger.client_kill_filter(_type="normal")


def _replica(world: World, kill: Kill) -> dict[str, int]:
    _cast(world, kill)
    if kill.point.startswith("cancel."):
        world.start("worker", "c1")
    world.start("replica", "r1", kill)
    while not world.is_dead("r1"):
        with suppress(RedisError):
            if kill.point.startswith("permit."):
                world.ledger.delete(keys.PERMIT)
            elif kill.point.startswith("settlement."):
                world.ledger.execute_command("CLIENT", "PAUSE", 40, "WRITE")
                world._claimers.submit(_cut_off, world)  # while claims wait for their answers
            elif kill.point.startswith("cancel.") and world.accepted:
                world.cancel(min(world.accepted))
        world.feed(4)
    return {}


def _rebuild(world: World, kill: Kill) -> dict[str, int]:
    world.feed(6)
    worker = make_worker("c1", world.stores, WorkerSettings.load())
    until(lambda: worker.run_once().read == 0)
    worker.pool.dispose()
    world.feed(4)
    _cast(world, kill)
    world.ledger.xtrim(keys.STREAM_ORDERS, maxlen=0, approximate=False)
    world.ledger.hdel(keys.seckill_receipt(1), "1", "2")
    world.ledger.srem(keys.seckill_order(1), "3")
    world.ledger.delete(keys.seckill_stock(1), keys.EPOCH, keys.PERMIT)
    world.start("rebuild", "rebuild", kill)
    until(lambda: world.is_dead("rebuild"), 30)
    return {}


_LOOKS_BACK = {"FLASHSALE_ORDER_RESCAN_INTERVAL_S": "1"}
"""A sweeper that begins later than the orders are dated comes back to them."""


def _sweeper(world: World, kill: Kill) -> dict[str, int]:
    _cast(world, kill)
    world.start("worker", "c1", kill, FLASHSALE_ORDER_UNPAID_TIMEOUT_S="1", **_LOOKS_BACK)
    world.feed(6)
    until(lambda: world.is_dead("c1"), 30)
    return {}


def _control(world: World, kill: Kill) -> dict[str, int]:
    _cast(world, kill)
    world.feed(4)
    world.start("control", "control", kill)
    until(lambda: world.is_dead("control"), 30)
    return {"offered": UNITS + RESTOCKED}


SCENES: dict[str, Callable[[World, Kill], dict[str, int]]] = {
    "worker": _worker,
    "replica": _replica,
    "rebuild": _rebuild,
    "sweeper": _sweeper,
    "control": _control,
}


def carry_out(world: World, kill: Kill) -> None:
    """The kill, what a supervisor and an operator do about it, and the books in the end."""
    world.open()
    try:
        expected = SCENES[kill.role](world, kill)
        told = dict(world.accepted)
        world.revive(kill)
        if kill.role == "rebuild":
            _repeat(lambda: rebuild(world.stores, apply=True))
        until(lambda: _settled(world), 30)
        if kill.role != "sweeper":  # their orders have timed out, and they buy anew
            others = {
                user: (order, world.accepted[user])
                for user, order in told.items()
                if user not in world.cancelled and world.accepted[user] != order
            }
            assert not others, "told of another order than before"
        world.becomes_whole(**expected)
    finally:
        world.end_all()


def _settled(world: World) -> bool:
    """Everybody who has claimed asks again, until each is told of an order."""
    world.buy(range(1, world.asked + 1))
    return len(world.accepted) == world.asked


def _repeat(command: Callable[[], Any]) -> None:
    """As the operator that it is told to: again, until it can be done."""

    def done() -> bool:
        try:
            command()
        except UnreachableError:
            return False
        return True

    until(done, 60)
