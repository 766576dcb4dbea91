"""The life of orders against a model in plain Python, under whatever hypothesis thinks up.

Claims, replays, payments, cancellations, time-outs, refunds, restocks, pauses, and the worker, on
real Redis and MariaDB; any of them may be killed before or after any of its steps, and another
process goes on from there.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis import Redis
from rig.killed import Kill, killed
from rig.order_model import Planned, Row, World
from rig.rows import add_sale
from rig.sale import HOUR_MS, claim, now_ms
from sqlalchemy import Engine, select, text

from flashsale import keys
from flashsale.errors import ViolationError
from flashsale.locks.batch import BatchLocks
from flashsale.lua.scripts import script
from flashsale.orders.lifecycle import Lifecycle, OrderChange
from flashsale.orders.lookup import OrderLookup
from flashsale.orders.stream import OrderStream
from flashsale.orders.sweeper import Sweeper
from flashsale.orders.worker import Worker
from flashsale.seckill import journal
from flashsale.seckill.control import SaleControl
from flashsale.seckill.ids import EPOCH_S, LedgerClock
from flashsale.seckill.sale import load_sale, read_terms
from flashsale.settings import LifecycleSettings, WorkerSettings
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import Database, transaction
from flashsale.storage.tables import order_return, seckill_voucher, voucher_order

USERS = st.integers(1, 4)


def kills(steps: int) -> st.SearchStrategy[Kill | None]:
    """Of an action with so many steps: few live to their end, since what is killed may go wrong."""
    sides = st.integers(-1, 2 * steps - 1)
    return sides.map(lambda n: None if n < 0 else Kill(1 + n // 2, bool(n % 2)))


TABLES = ("tb_voucher_order", "tb_order_return", "tb_journal", "tb_seckill_voucher")
YEAR_S = 31_536_000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


def ids(found: Any) -> frozenset[int]:
    return frozenset(int(fields["id"]) for _, fields in found)


class LifeMachine(RuleBasedStateMachine):
    """Two stores and a model side by side."""

    ledger: Redis
    cache: Redis
    pool: Engine
    ledger_url: str
    killed: int
    world: World

    @initialize(units=st.integers(0, 4))
    def begin(self, units: int) -> None:
        self.ledger.flushall()
        self.cache.flushall()
        with transaction(self.pool) as connection:
            for table in TABLES:
                connection.execute(text(f"DELETE FROM {table}"))
        add_sale(self.pool, stock=units)
        (terms,) = read_terms(self.pool)
        load_sale(self.ledger, terms)
        self.ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
        self.world = World.of(units)
        self.user_of: dict[int, int] = {}
        self.aged: frozenset[int] = frozenset()
        self.next_id = (now_ms() // 1000 - YEAR_S - EPOCH_S) << 32

    # What the stores hold -------------------------------------------------------------------------

    def seen(self) -> World:
        with transaction(self.pool) as connection:
            rows = connection.execute(select(voucher_order)).all()
            owed = connection.execute(select(order_return.c.order_id)).scalars().all()
            sale = connection.execute(select(seckill_voucher)).one()
            unended = journal.unended(connection)
        ledger = self.ledger
        terms: Any = ledger.hgetall(keys.seckill_sale(1))
        receipts: Any = ledger.hgetall(keys.seckill_receipt(1))
        assert ledger.smembers(keys.seckill_order(1)) == set(receipts)
        (group,) = ledger.xinfo_groups(keys.STREAM_ORDERS)  # type: ignore[misc]
        given = group["last-delivered-id"]
        waiting = ids(ledger.xrange(keys.STREAM_ORDERS, f"({given}"))
        pending: Any = ledger.xpending_range(keys.STREAM_ORDERS, keys.GROUP, "-", "+", 1000)
        entries = [
            ledger.xrange(keys.STREAM_ORDERS, one["message_id"], one["message_id"])[0]  # type: ignore[index]
            for one in pending
        ]
        change = None
        if unended:
            (line,) = unended
            made = None
            if terms.get("change") == str(line.number):
                made = terms["refused"] == "0"
            change = Planned(line.units, "" if line.units else line.becomes, made)
        return World(
            rows={row.id: Row(row.user_id, row.status) for row in rows},
            owed=frozenset(owed),
            stock=sale.stock,
            initial=sale.initial_stock,
            change=change,
            left=int(ledger.get(keys.seckill_stock(1))),  # type: ignore[arg-type]
            offered=int(terms["initial"]),
            state=terms["state"],
            receipts={int(user): int(order) for user, order in receipts.items()},
            waiting=waiting,
            pending=ids(entries),
        )

    def went(self, states: list[World], kill: Kill | None) -> None:
        """What was done left the last of these states; where it was killed, any of them."""
        seen = self.seen()
        type(self).killed += kill is not None and not kill.step
        if kill is None or kill.step:  # it lived: it has fewer steps than that
            assert seen == states[-1]
        else:
            assert seen in states
        self.world = seen

    # Buying ---------------------------------------------------------------------------------------

    @rule(user=USERS, in_time=st.booleans())
    def claims(self, user: int, in_time: bool) -> None:
        self.next_id += 1
        self.user_of[self.next_id] = user
        self._claim(user, self.next_id, in_time)

    @rule(data=st.data())
    def replays(self, data: st.DataObject) -> None:
        """A claim comes again, past its deadline."""
        if self.user_of:
            order = data.draw(st.sampled_from(sorted(self.user_of)))
            self._claim(self.user_of[order], order, False)

    def _claim(self, user: int, order: int, in_time: bool) -> None:
        deadline_ms = now_ms() + (HOUR_MS if in_time else -HOUR_MS)
        after, code, held = self.world.claim(user, order, in_time)
        assert claim(self.ledger, (user, order), deadline_ms=deadline_ms) == [(code, held)]
        self.went([after], None)

    # What processes do ----------------------------------------------------------------------------

    @rule(kill=kills(7))
    def works(self, kill: Kill | None) -> None:
        """A worker of the same name, started anew."""
        locks = BatchLocks(self.cache, "c1", lease_ms=30_000, renew_ms=10_000)
        stream = OrderStream(self.ledger, "c1")
        given = WorkerSettings(block_ms=1, linger_ms=0, claim_idle_ms=60_000)
        states = self.world.work(self.user_of)
        with killed(kill, self.ledger, self.pool):
            Worker(stream, self.pool, locks, given).run_once()
        self.went(states, kill)

    @rule(kill=kills(9))
    def sweeps(self, kill: Kill | None) -> None:
        with transaction(self.pool) as connection:
            for order in self.aged:
                connection.execute(
                    text("UPDATE tb_voucher_order SET create_time = '2020-01-01' WHERE id = :id"),
                    {"id": order},
                )
        sweeper = Sweeper(
            self.pool,
            self.ledger,
            LifecycleSettings(unpaid_timeout_s=YEAR_S // 2),
            claim_timeout_ms=0,
        )
        states = self.world.sweep(self.aged)
        with killed(kill, self.ledger, self.pool):
            sweeper.run_once()
        self.went(states, kill)

    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        """For one order, long enough to time out."""
        if self.world.rows:
            self.aged |= {data.draw(st.sampled_from(sorted(self.world.rows)))}

    # What users do --------------------------------------------------------------------------------

    @rule(data=st.data(), kill=kills(5), pays=st.booleans())
    def pays_or_cancels(self, data: st.DataObject, kill: Kill | None, pays: bool) -> None:
        if not self.user_of:
            return
        order = data.draw(st.sampled_from(sorted(self.user_of)))
        before = self.world
        states = before.pay(order) if pays else before.cancel(order)
        change = asyncio.run(self._change(order, kill, pays))
        self.went(states, kill)
        if change is None:
            return
        row, user = self.world.rows.get(order), self.user_of[order]
        if row is None:
            is_queued = before.receipts.get(user) == order
            assert change is (OrderChange.QUEUED if is_queued else OrderChange.UNKNOWN)
        elif pays:
            assert change is {2: OrderChange.DONE, 6: OrderChange.REFUNDED}[row.status]
        else:
            assert change is (OrderChange.TOO_LATE if row.status == 2 else OrderChange.DONE)

    async def _change(self, order: int, kill: Kill | None, pays: bool) -> OrderChange | None:
        """What the user is told, None where the replica was killed."""
        database = Database(self.pool, threads_max=1)
        channel = Channel(self.ledger_url, connections_max=2, timeout_s=5)

        async def read_time() -> tuple[int, int]:
            seconds, micros = await channel.ask("TIME")
            return int(seconds), int(micros)

        lookup = OrderLookup(database, channel)
        life = Lifecycle(database, channel, lookup, LedgerClock(read_time), -HOUR_MS)
        change = None
        try:
            with killed(kill, self.ledger, self.pool, channel):
                call = life.pay if pays else life.cancel
                change = await call(order, self.user_of[order])
        finally:
            await channel.aclose()
            database._threads.shutdown()
        return change

    # What operators do ----------------------------------------------------------------------------

    @rule(units=st.sampled_from([-3, -2, -1, 1, 2]), kill=kills(6))
    def restocks(self, units: int, kill: Kill | None) -> None:
        states = self.world.plan(units)
        with killed(kill, self.ledger, self.pool):
            try:
                SaleControl(self.pool, self.ledger, "ann").restock(1, units)
            except ViolationError:
                assert states[-1].offered == states[-1].initial
        self.went(states, kill)

    @rule(kill=kills(6), state=st.sampled_from(["paused", "open"]))
    def pauses_or_resumes(self, kill: Kill | None, state: str) -> None:
        control = SaleControl(self.pool, self.ledger, "ann")
        states = self.world.plan(state=state)
        with killed(kill, self.ledger, self.pool):
            (control.pause if state == "paused" else control.resume)(1)
        self.went(states, kill)

    # What is always so ----------------------------------------------------------------------------

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """Processes that live come to rest, and then the stores agree to the unit."""
        if not hasattr(self, "world"):
            return
        self.works(None)
        self.sweeps(None)
        world = self.world
        world.check()
        assert world.is_at_rest
        assert (world.offered, world.left) == (world.initial, world.stock)
        live = {row.user: order for order, row in world.rows.items() if row.status in (1, 2)}
        assert world.receipts == live


def run(
    ledger: Redis, cache: Redis, pool: Engine, ledger_url: str, examples: int, steps: int
) -> None:
    class Machine(LifeMachine):
        pass

    Machine.ledger, Machine.cache, Machine.pool = ledger, cache, pool
    Machine.ledger_url, Machine.killed = ledger_url, 0
    ledger.script_load(script("sale_change").text)  # a script that is not known is a step more
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=examples, stateful_step_count=steps),
    )
    assert Machine.killed >= examples, "a test in which nothing is killed proves little"


def test_orders_and_model_agree(ledger: Redis, cache: Redis, pool: Engine, ledger_url: str) -> None:
    run(ledger, cache, pool, ledger_url, examples=12, steps=25)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_orders_and_model_agree_for_long(
    ledger: Redis, cache: Redis, pool: Engine, ledger_url: str
) -> None:
    run(ledger, cache, pool, ledger_url, examples=80, steps=40)
