"""The order workers against a model in plain Python, under whatever hypothesis thinks up.

Two workers who keep what they know from one round to the next, on real Redis and MariaDB: any of
them dies, breaks or loses its connections at any failpoint, replies are lost, entries come twice
or are no orders, locks are held, the group is gone, the ledger is started anew. The model knows
which orders were accepted; whatever happens, they become rows, once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis import ConnectionError as LostConnection
from redis import Redis
from redis.client import Pipeline
from rig.killed import Killed
from rig.rows import add_sale, orders, position, units
from rig.sale import claim, open_sale
from sqlalchemy import Engine, text

from flashsale import failpoints, keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.locks.batch import BatchLocks
from flashsale.orders.stream import Order, OrderStream
from flashsale.orders.worker import Counts, Worker
from flashsale.settings import WorkerSettings
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import sync_client

NAMES = ("c1", "c2")
STEPS = [point for point in failpoints.POINTS if point.startswith(("worker.", "rows."))]
TABLES = ("tb_voucher_order", "tb_seckill_voucher", "tb_stream_position", "tb_journal")
SETTINGS: dict[str, Any] = {
    "block_ms": 1,
    "linger_ms": 0,
    "claim_idle_ms": 1,
    "retry_base_ms": 100,
    "retry_max_ms": 1000,
    "batch_rows_max": 3,
    "trim_interval_s": 30.0,
    "trim_keep_entries": 0,
}
UNITS = 50
TURNS_MAX = 30
"""Of both workers once all is healed: by then nothing is left."""
RESTARTS_MAX = 4
"""Of the ledger, in all examples together: each takes a quarter of a second."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@contextmanager
def reply_lost(ledger: Redis, nth: int, executed: bool) -> Iterator[None]:
    """The n-th call to the ledger inside the block is lost, before or after it was executed."""
    calls = 0

    def losing(run: Callable[..., Any]) -> Callable[..., Any]:
        def lost(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != nth:
                return run(*args, **kwargs)
            if executed:
                run(*args, **kwargs)
            raise LostConnection("planted")

        return lost

    execute, of_ours = Pipeline.execute, ledger.connection_pool

    def pipelined(self: Pipeline, *args: Any, **kwargs: Any) -> Any:
        run = losing(execute) if self.connection_pool is of_ours else execute
        return run(self, *args, **kwargs)

    with (
        patch.object(ledger, "execute_command", losing(ledger.execute_command)),
        patch.object(Pipeline, "execute", pipelined),
    ):
        yield


class WorkerMachine(RuleBasedStateMachine):
    """The stores, two workers, and what they have to make of the orders."""

    server: RedisServer
    ledger: Redis
    cache: Redis
    pool: Engine
    struck: int
    restarts: int

    @initialize()
    def begin(self) -> None:
        self.ledger.flushall()
        self.cache.flushall()
        with self.pool.begin() as connection:
            for table in TABLES:
                connection.execute(text(f"DELETE FROM {table}"))
        add_sale(self.pool, stock=UNITS)
        open_sale(self.ledger, units=UNITS)
        self.accepted: dict[int, int] = {}
        self.poison = 0
        self.regrouped = False
        self.now_s = 0.0
        self.workers: dict[str, Worker] = {}

    # What comes -----------------------------------------------------------------------------------

    @rule(count=st.integers(1, 5))
    def users_buy(self, count: int) -> None:
        self._buy(count)

    def _buy(self, count: int) -> None:
        first = 1000 + len(self.accepted)
        bought = {first + n: first + n - 900 for n in range(count)}
        if len(self.accepted) + count <= UNITS:
            pairs = [(user, order) for order, user in bought.items()]
            assert {code for code, _ in claim(self.ledger, *pairs)} == {0}
            self.accepted |= bought

    @rule(data=st.data())
    def an_order_comes_again(self, data: st.DataObject) -> None:
        if self.accepted:
            order = data.draw(st.sampled_from(sorted(self.accepted)))
            again = {"userId": self.accepted[order], "voucherId": 1, "id": order, "ms": 1}
            self.ledger.xadd(keys.STREAM_ORDERS, again)  # type: ignore[arg-type]

    @rule(fields=st.sampled_from([{"no": "order"}, {"userId": "1", "voucherId": "1", "id": "x"}]))
    def no_order_comes(self, fields: dict[str, str]) -> None:
        self._poison(fields)

    def _poison(self, fields: dict[str, str]) -> None:
        self.ledger.xadd(keys.STREAM_ORDERS, fields)  # type: ignore[arg-type]
        self.poison += 1

    # What workers do, and what is done to them ----------------------------------------------------

    @rule(name=st.sampled_from(NAMES))
    def works(self, name: str) -> None:
        with suppress(Unavailable, Indeterminate):
            self._worker(name).run_once()

    @rule(
        name=st.sampled_from(NAMES),
        point=st.sampled_from(STEPS),
        how=st.sampled_from(["dies", "cannot", "may have", "loses MySQL", "loses the ledger"]),
    )
    def is_struck(self, name: str, point: str, how: str) -> None:
        """With something to do, so that it comes by there."""
        self._poison({"no": "order"}) if "aside" in point else self._buy(2)
        with failpoints.armed(point, Strike(self, how)):
            try:
                self._worker(name).run_once()
            except Killed:
                del self.workers[name]
            except (Unavailable, Indeterminate):
                self._ran_into_trouble(name)

    @rule(name=st.sampled_from(NAMES), nth=st.integers(1, 8), executed=st.booleans())
    def loses_a_reply(self, name: str, nth: int, executed: bool) -> None:
        worker = self._worker(name)
        with reply_lost(self.ledger, nth, executed):
            try:
                worker.run_once()
            except (Unavailable, Indeterminate):
                type(self).struck += 1
                self._ran_into_trouble(name)

    @rule(name=st.sampled_from(NAMES))
    def starts_anew(self, name: str) -> None:
        self.workers.pop(name, None)

    @rule()
    def time_passes(self) -> None:
        self.now_s += 10.0

    # What happens to the stores -------------------------------------------------------------------

    @rule()
    def mysql_ends_connections(self) -> None:
        end_connections(self.pool)

    @rule()
    def the_ledger_ends_connections(self) -> None:
        self.ledger.client_kill_filter(_type="normal", skipme=True)

    @rule()
    def the_ledger_is_started_anew(self) -> None:
        if type(self).restarts < RESTARTS_MAX:
            type(self).restarts += 1
            self.server.stop()
            self.server.start()
            self.ledger.connection_pool.disconnect()

    @rule()
    def the_group_is_gone(self) -> None:
        with suppress(Exception):
            self.regrouped |= bool(self.ledger.xgroup_destroy(keys.STREAM_ORDERS, keys.GROUP))

    @rule(data=st.data())
    def a_lock_is_held(self, data: st.DataObject) -> None:
        if self.accepted:
            user = self.accepted[data.draw(st.sampled_from(sorted(self.accepted)))]
            self.cache.set(keys.order_lock(user), "somebody 1", px=60_000)

    @rule()
    def the_cache_forgets(self) -> None:
        self.cache.flushall()

    # What has to hold -----------------------------------------------------------------------------

    @rule()
    def all_is_healed(self) -> None:
        """Then two workers make rows of all that was accepted, and leave nothing."""
        self.cache.flushall()

        assert any(self._turn() for _ in range(TURNS_MAX)), "not all of it is done"
        assert self._rows() == self.accepted
        letters = self.ledger.xlen(keys.STREAM_DEAD)
        assert letters >= self.poison if self.regrouped else letters == self.poison

    def _turn(self) -> bool:
        """One round of both; whether nothing is left to do."""
        self.now_s += 10.0
        for name in NAMES:
            try:
                self._worker(name).run_once()
            except (Unavailable, Indeterminate):  # of connections that ended while nobody looked
                self._ran_into_trouble(name)
        found: Any = self.ledger.xpending(keys.STREAM_ORDERS, keys.GROUP)
        (group,) = self.ledger.xinfo_groups(keys.STREAM_ORDERS)  # type: ignore[misc]
        fresh = self.ledger.xrange(keys.STREAM_ORDERS, f"({group['last-delivered-id']}")
        return not found["pending"] and not fresh

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        if not hasattr(self, "accepted"):
            return
        rows = self._rows()
        assert rows.items() <= self.accepted.items()
        assert len(set(rows.values())) == len(rows), "one order a user"
        assert units(self.pool) == UNITS - len(rows), "a unit for each row"
        entries: Any = self.ledger.xrange(keys.STREAM_ORDERS)
        waits = {int(fields["id"]) for _, fields in self._unfinished(entries)}
        assert self.accepted.keys() - rows.keys() <= waits, "what is no row yet is still to be read"
        assert not rows or position(self.pool), "MySQL knows how far it has seen the stream"

    def teardown(self) -> None:
        if hasattr(self, "accepted"):
            self.all_is_healed()

    # ----------------------------------------------------------------------------------------------

    def _worker(self, name: str) -> Worker:
        if name not in self.workers:
            locks = BatchLocks(self.cache, name, lease_ms=30_000, renew_ms=10_000)
            stream, given = OrderStream(self.ledger, name), WorkerSettings(**SETTINGS)
            self.workers[name] = Worker(stream, self.pool, locks, given, lambda: self.now_s)
        return self.workers[name]

    def _ran_into_trouble(self, name: str) -> None:
        """What `Worker.run` does of it."""
        worker = self._worker(name)
        worker._ahead = None
        worker._pending.start_over()

    def _rows(self) -> dict[int, int]:
        return {order: user for order, (user, _) in orders(self.pool).items()}

    def _unfinished(self, entries: Any) -> list[Any]:
        """Orders on the stream that a worker will come by: not given to any, or pending."""
        found = [(entry, fields) for entry, fields in entries if fields.get("id", "x") != "x"]
        groups: Any = self.ledger.xinfo_groups(keys.STREAM_ORDERS) if entries else []
        if not groups:
            return found
        given = _place(groups[0]["last-delivered-id"])
        pending: Any = self.ledger.xpending_range(keys.STREAM_ORDERS, keys.GROUP, "-", "+", 1000)
        held = {one["message_id"] for one in pending}
        return [(entry, f) for entry, f in found if entry in held or _place(entry) > given]


class Strike:
    """What happens at a failpoint, the first time that anybody comes by."""

    def __init__(self, machine: WorkerMachine, how: str) -> None:
        self._machine, self._how = machine, how

    def __call__(self) -> None:
        how, self._how = self._how, ""
        machine = self._machine
        type(machine).struck += bool(how)
        match how:
            case "dies":
                raise Killed
            case "cannot":
                raise Unavailable("planted")
            case "may have":
                raise Indeterminate("planted")
            case "loses MySQL":
                end_connections(machine.pool)
            case "loses the ledger":
                machine.the_ledger_ends_connections()


def _place(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)


def end_connections(pool: Engine) -> None:
    """MySQL ends every connection but the one that asks for it."""
    with pool.connect() as connection:
        own = connection.execute(text("SELECT CONNECTION_ID()")).scalar_one()
        query = "SELECT id FROM information_schema.processlist WHERE command <> 'Daemon'"
        for process in connection.execute(text(query)).scalars().all():
            if process != own:
                with suppress(Exception):
                    connection.execute(text(f"KILL {int(process)}"))


def run(machine: type[WorkerMachine], examples: int, steps: int, **given: Any) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=steps, **given)
    )


@pytest.fixture
def machine(own_ledger: RedisServer, cache: Redis, pool: Engine) -> Iterator[type[WorkerMachine]]:
    class Machine(WorkerMachine):
        pass

    Machine.server, Machine.cache, Machine.pool = own_ledger, cache, pool
    Machine.struck = Machine.restarts = 0
    with sync_client(own_ledger.url) as client:
        Machine.ledger = client
        yield Machine


def test_workers_and_model_agree(machine: type[WorkerMachine]) -> None:
    run(machine, examples=8, steps=20)
    assert machine.struck >= 8, "a test in which nothing is struck proves little"


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_workers_and_model_agree_for_long(machine: type[WorkerMachine]) -> None:
    run(machine, examples=400, steps=50)


def acknowledges_first(planted: pytest.MonkeyPatch) -> None:
    under_lock = Worker._under_lock

    def first(self: Worker, orders: list[Order], fence: int) -> Any:
        self._stream.acknowledge([order.entry_id for order in orders])
        return under_lock(self, orders, fence)

    planted.setattr(Worker, "_under_lock", first)


def forgets_what_is_its_own(planted: pytest.MonkeyPatch) -> None:
    planted.setattr(Worker, "_own_pending", lambda _: [])
    planted.setattr(Worker, "_take_over", lambda _: Counts())


@pytest.mark.slow
@pytest.mark.parametrize("plant", [acknowledges_first, forgets_what_is_its_own])
def test_a_worker_that_does_so_is_found(
    machine: type[WorkerMachine],
    plant: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        run(machine, examples=30, steps=20, phases=[Phase.generate], report_multiple_bugs=False)
