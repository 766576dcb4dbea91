"""The worker on real Redis and MariaDB: every accepted order a row, once, whatever happens."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rig.rows import add_order, add_sale, order_row, orders, position, units
from rig.sale import claim, open_sale
from rig.trips import passed, unnamed
from rig.until import until
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.errors import Indeterminate
from flashsale.locks.batch import BatchLocks
from flashsale.orders.metrics import look
from flashsale.orders.stream import LOST, Fresh, OrderStream
from flashsale.orders.worker import Counts, Worker
from flashsale.settings import WorkerSettings
from flashsale.stack.redis import RedisServer
from flashsale.storage.mysql import engine
from flashsale.storage.roles import Confirmation, sync_client

FAST: dict[str, Any] = {
    "block_ms": 1,
    "linger_ms": 0,
    "retry_base_ms": 1,
    "retry_max_ms": 2,
    "claim_idle_ms": 60_000,
}


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """Workers on one set of servers."""

    def __init__(self, ledger: Redis, cache: Redis, pool: Engine) -> None:
        self.ledger, self.cache, self.pool = ledger, cache, pool
        self.clock = Clock()

    def worker(
        self,
        name: str = "c1",
        *,
        cache: Redis | None = None,
        pool: Engine | None = None,
        **given: Any,
    ) -> Worker:
        settings = WorkerSettings(**{**FAST, **given})
        locks = BatchLocks(
            cache or self.cache,
            name,
            lease_ms=settings.lock_lease_ms,
            renew_ms=settings.lock_renew_ms,
        )
        stream = OrderStream(self.ledger, name)
        return Worker(stream, pool or self.pool, locks, settings, self.clock)

    def accept(self, *users: int, voucher_id: int = 1, first_id: int = 1000) -> dict[str, int]:
        """Orders accepted by the script, user n as order first_id + n; entry id by order."""
        answers = claim(self.ledger, *((u, first_id + u) for u in users), voucher_id=voucher_id)
        assert {code for code, _ in answers} == {0}
        return {entry: int(f["id"]) for entry, f in self.ledger.xrange(keys.STREAM_ORDERS)}

    def add(self, **fields: Any) -> str:
        """An entry of any form."""
        return str(self.ledger.xadd(keys.STREAM_ORDERS, fields))

    def pending(self, consumer: str | None = None) -> list[str]:
        found: Any = self.ledger.xpending_range(
            keys.STREAM_ORDERS, keys.GROUP, "-", "+", 10_000, consumername=consumer
        )
        return [entry["message_id"] for entry in found]

    def give_to(self, consumer: str, count: int = 500) -> list[str]:
        """Have the stream's next entries read by a consumer that then says no more."""
        reply: Any = self.ledger.xreadgroup(
            keys.GROUP, consumer, {keys.STREAM_ORDERS: ">"}, count=count
        )
        return [entry for entry, _ in reply[0][1]] if reply else []

    def dead(self) -> list[dict[str, str]]:
        return [fields for _, fields in self.ledger.xrange(keys.STREAM_DEAD)]

    def run_until(self, worker: Worker, holds: Callable[[], bool]) -> Counts:
        def turn() -> bool:
            worker.run_once()
            self.clock.now_s += 10
            return holds()

        until(turn)
        return worker.total


@pytest.fixture
def bench(ledger: Redis, cache: Redis, pool: Engine) -> Bench:
    """One sale of 1,000 units, open in the ledger and known to MySQL; the group exists."""
    add_sale(pool, stock=1000)
    open_sale(ledger, units=1000)
    ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
    return Bench(ledger, cache, pool)


# The way of an order ------------------------------------------------------------------------------


def test_orders_that_the_replicas_do_not_have_wait(bench: Bench) -> None:
    bench.accept(1, 2)
    worker = bench.worker()
    worker._stream._confirmation = Confirmation(1, 20)  # and there is none
    counts = worker.run_once()
    assert (counts.written, counts.postponed, counts.failures) == (0, 2, 1)
    assert len(bench.pending()) == 2
    assert orders(bench.pool) == {}
    worker._stream._confirmation = None
    bench.clock.now_s += 10
    assert worker.run_once().written == 2
    assert len(orders(bench.pool)) == 2


def test_a_batch_is_written_acknowledged_and_its_place_noted(bench: Bench) -> None:
    entries = bench.accept(7, 8, 9)
    counts = bench.worker().run_once()
    assert (counts.read, counts.written, counts.batches) == (3, 3, 1)
    assert orders(bench.pool) == {1007: (7, 1), 1008: (8, 1), 1009: (9, 1)}
    assert units(bench.pool) == 997
    assert bench.pending() == []
    ms, _, seq = list(entries)[-1].partition("-")
    assert position(bench.pool) == (int(ms), int(seq))
    assert bench.cache.keys("*") == [], "every lock was given back"


def test_the_trip_of_an_order_names_every_file_that_it_passes(bench: Bench) -> None:
    worker = bench.worker()
    worker.run_once()
    bench.accept(7)
    with passed() as files:
        assert worker.run_once().written == 1
    assert not unnamed("stream", files)


def test_create_time_is_the_scripts(bench: Bench) -> None:
    bench.accept(7)
    ((_, fields),) = bench.ledger.xrange(keys.STREAM_ORDERS)
    bench.worker().run_once()
    epoch = datetime(1970, 1, 1)
    created = order_row(bench.pool, 1007).create_time
    assert created == epoch + timedelta(milliseconds=int(fields["ms"]))


def test_an_idle_worker_does_nothing(bench: Bench) -> None:
    assert bench.worker().run_once() == Counts()


def test_more_than_a_batch_takes_several_turns(bench: Bench) -> None:
    bench.accept(*range(1, 26))
    worker = bench.worker(batch_rows_max=10)
    written = [worker.run_once().written for _ in range(4)]
    assert written == [10, 10, 5, 0]


def test_the_group_starts_at_the_very_first_entry(
    ledger: Redis, cache: Redis, pool: Engine
) -> None:
    """Orders accepted before the first worker ever ran."""
    add_sale(pool)
    open_sale(ledger)
    bench = Bench(ledger, cache, pool)
    bench.accept(7, 8)
    assert bench.worker().run_once().written == 2


# Reading ahead ------------------------------------------------------------------------------------


def test_what_was_read_ahead_is_finished_before_the_end(bench: Bench) -> None:
    """Stopped after its first batch: the second is in its hands already, the third is not."""
    bench.accept(*range(1, 7))
    worker = bench.worker(batch_rows_max=2)
    asked = iter([False, *[True] * 10])
    worker.run(lambda: next(asked))
    assert set(orders(bench.pool)) == {1001, 1002, 1003, 1004}
    assert bench.pending() == []
    figures = look(bench.ledger)
    assert (figures.lag, figures.pending) == (2, 0)


def test_stopped_with_nothing_in_hand_it_waits_for_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.accept(7)
    worker = bench.worker()
    reads: list[int] = []
    really_read = worker._stream.fresh

    def fresh(count: int, block_ms: int) -> Any:
        reads.append(block_ms)
        return really_read(count, block_ms)

    monkeypatch.setattr(worker._stream, "fresh", fresh)
    asked = iter([False, *[True] * 10])
    worker.run(lambda: next(asked))
    assert len(orders(bench.pool)) == 1
    assert len(reads) == 1, "one more read would wait two seconds, and take what it finds"


def test_after_a_small_batch_the_next_one_grows(bench: Bench) -> None:
    """The first order is a row before the rest, and what comes in the rest is one batch."""
    bench.accept(1)
    worker = bench.worker(linger_ms=1000)
    working = threading.Thread(target=worker.run_once)
    working.start()
    until(lambda: len(orders(bench.pool)) == 1)
    for user in range(2, 12):
        bench.accept(user)
    working.join()
    assert worker.run_once().written == 10
    assert worker.batch_sizes.count == 2


@pytest.mark.parametrize(("accepted", "rests"), [(1, [0.03]), (4, [0.03]), (5, []), (10, [])])
def test_a_batch_that_is_half_full_is_followed_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, accepted: int, rests: list[float]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("flashsale.orders.worker.time.sleep", slept.append)
    bench.accept(*range(1, accepted + 1))
    assert bench.worker(batch_rows_max=10, linger_ms=30).run_once().written == accepted
    assert slept == rests


def test_what_was_read_ahead_is_not_worked_twice(bench: Bench) -> None:
    """A look at its own pending entries finds those read ahead among them."""
    bench.cache.set(keys.order_lock(1), "c9 1")
    bench.add(userId="x", voucherId="1", id="1", ms="1")
    bench.accept(*range(1, 9))
    worker = bench.worker(batch_rows_max=3)
    for _ in range(12):
        bench.clock.now_s += 10  # user 1's order is due every time
        worker.run_once()
    assert len(orders(bench.pool)) == 7
    assert (worker.total.written, worker.total.repeated, worker.total.dead) == (7, 0, 1)


def test_what_was_read_ahead_by_one_who_died_is_found(bench: Bench) -> None:
    bench.accept(*range(1, 7))
    assert bench.worker("c1", batch_rows_max=3).run_once().written == 3
    assert len(bench.pending("c1")) == 3, "read ahead, and dead now"
    assert bench.worker("c1", batch_rows_max=3).run_once().written == 3


def test_a_fence_drawn_ahead_does_not_hinder(bench: Bench) -> None:
    """Its number is older than that of locks taken since; the order waits, and is written."""
    bench.accept(1, 2)
    worker = bench.worker(batch_rows_max=1)
    worker.run_once()
    bench.cache.set(keys.order_lock(2), "c1 999999")
    worker.run_once()
    assert set(orders(bench.pool)) == {1001}
    bench.ledger.set(keys.LOCK_FENCE, 2_000_000)
    bench.run_until(worker, lambda: not bench.pending())
    assert set(orders(bench.pool)) == {1001, 1002}


# Crashes ------------------------------------------------------------------------------------------


class Unplugged(OrderStream):
    """A stream whose acknowledgements get lost."""

    def acknowledge(self, entry_ids: Sequence[str]) -> None:
        raise Indeterminate("lost")

    def acknowledge_and_read(self, entry_ids: Sequence[str], count: int) -> Fresh:
        raise Indeterminate("lost")


def test_a_crash_between_commit_and_ack_writes_once(bench: Bench) -> None:
    bench.accept(7, 8)
    worker = bench.worker()
    worker._stream = Unplugged(bench.ledger, "c1")
    with pytest.raises(Indeterminate):
        worker.run_once()
    assert len(orders(bench.pool)) == 2
    assert len(bench.pending()) == 2
    counts = bench.worker().run_once()
    assert (counts.written, counts.repeated) == (0, 2)
    assert units(bench.pool) == 998
    assert bench.pending() == []


def test_a_worker_that_lost_its_ack_goes_on_by_itself(bench: Bench) -> None:
    """In one process: `run` looks at its own pending entries again."""
    bench.accept(7, 8)
    worker = bench.worker()
    plugged, unplugged = worker._stream, Unplugged(bench.ledger, "c1")
    worker._stream = unplugged
    turns = iter(range(100))

    def stopped() -> bool:
        if next(turns) == 1:
            worker._stream = plugged
        return not bench.pending() and len(orders(bench.pool)) == 2

    worker.run(stopped)
    assert units(bench.pool) == 998
    assert worker.total.failures == 1
    assert worker.total.repeated == 2


def test_a_restarted_worker_finds_its_own_at_once(bench: Bench) -> None:
    bench.accept(7, 8)
    bench.give_to("c1")
    assert bench.worker("c1").run_once().written == 2


def test_it_finds_more_of_its_own_than_a_page(bench: Bench) -> None:
    bench.accept(*range(1, 24))
    bench.give_to("c1")
    worker = bench.worker("c1", batch_rows_max=10)
    assert [worker.run_once().written for _ in range(4)] == [10, 10, 3, 0]
    assert bench.pending() == []


def test_anothers_entries_are_left_alone_while_it_may_live(bench: Bench) -> None:
    bench.accept(7)
    bench.give_to("c2")
    assert bench.worker("c1").run_once() == Counts()
    assert len(bench.pending("c2")) == 1


def test_a_dead_consumers_entries_are_taken_over(bench: Bench) -> None:
    bench.accept(*range(1, 26))
    bench.give_to("c2")
    worker = bench.worker("c1", claim_idle_ms=1, batch_rows_max=10)
    bench.run_until(worker, lambda: not bench.pending())
    assert worker.total.written == 25
    assert units(bench.pool) == 975


def test_taking_over_goes_on_where_it_ended(bench: Bench) -> None:
    """A page of entries that cannot be written must not hide those behind it."""
    bench.accept(*range(1, 11))
    bench.give_to("c2")
    for user in range(1, 6):
        bench.cache.set(keys.order_lock(user), "c9 1")
    worker = bench.worker("c1", claim_idle_ms=1, batch_rows_max=5)
    bench.run_until(worker, lambda: len(orders(bench.pool)) == 5)
    assert set(orders(bench.pool)) == set(range(1006, 1011))


def test_a_group_that_vanished_is_made_again(bench: Bench) -> None:
    bench.accept(7)
    worker = bench.worker()
    worker.run_once()
    bench.ledger.xgroup_destroy(keys.STREAM_ORDERS, keys.GROUP)
    bench.accept(8)
    bench.run_until(worker, lambda: len(orders(bench.pool)) == 2)
    assert worker.total.repeated == 1, "all is read again from the first entry on"
    assert units(bench.pool) == 998


def test_a_stream_that_vanished_is_made_again(bench: Bench) -> None:
    worker = bench.worker()
    worker.run_once()
    bench.ledger.delete(keys.STREAM_ORDERS)
    worker.run_once()
    bench.accept(8)
    bench.run_until(worker, lambda: len(orders(bench.pool)) == 1)


# What can never become a row ----------------------------------------------------------------------


def test_a_malformed_entry_is_set_aside_and_disturbs_nobody(bench: Bench) -> None:
    entry = bench.add(userId="x", voucherId="1", id="5000", ms="1")
    bench.accept(7)
    counts = bench.worker().run_once()
    assert (counts.dead, counts.written) == (1, 1)
    (letter,) = bench.dead()
    assert (letter["entry"], letter["reason"]) == (entry, "no valid userId")
    assert (letter["userId"], letter["id"]) == ("x", "5000")
    assert bench.pending() == []
    assert bench.ledger.hget(keys.DEAD_ORDERS, "5000") == "no valid userId", "it shows FAILED"


@pytest.mark.parametrize("order_id", ["", "0", "abc", str(2**63)])
def test_a_malformed_entry_without_an_order_id(bench: Bench, order_id: str) -> None:
    bench.add(userId="7", voucherId="1", id=order_id, ms="1")
    assert bench.worker().run_once().dead == 1
    assert len(bench.dead()) == 1
    assert not bench.ledger.exists(keys.DEAD_ORDERS)


def test_short_stock_is_set_aside(bench: Bench) -> None:
    with bench.pool.begin() as connection:
        connection.execute(text("UPDATE tb_seckill_voucher SET stock = 1"))
    bench.accept(7, 8)
    counts = bench.worker().run_once()
    assert (counts.written, counts.dead) == (1, 1)
    (letter,) = bench.dead()
    assert letter["id"] == "1008"
    assert bench.ledger.hexists(keys.DEAD_ORDERS, "1008")
    assert bench.pending() == []


def test_a_conflict_is_set_aside(bench: Bench) -> None:
    add_order(bench.pool, order_id=99, user_id=7)
    bench.accept(7, 8)
    counts = bench.worker().run_once()
    assert (counts.written, counts.dead) == (1, 1)
    assert bench.ledger.hkeys(keys.DEAD_ORDERS) == ["1007"]


def test_an_own_entry_deleted_while_pending_is_journalled(bench: Bench) -> None:
    (entry,) = bench.accept(7)
    bench.give_to("c1")
    bench.ledger.xdel(keys.STREAM_ORDERS, entry)
    bench.worker("c1").run_once()
    assert bench.dead() == [{"entry": entry, "reason": LOST}]
    assert bench.pending() == []


def test_anothers_entry_deleted_while_pending_is_journalled(bench: Bench) -> None:
    first, _ = bench.accept(7, 8)
    bench.give_to("c2")
    bench.ledger.xdel(keys.STREAM_ORDERS, first)
    worker = bench.worker("c1", claim_idle_ms=1)
    bench.run_until(worker, lambda: not bench.pending())
    assert bench.dead() == [{"entry": first, "reason": LOST}]
    assert (worker.total.lost, worker.total.written) == (1, 1)


# Trouble passes, orders stay ----------------------------------------------------------------------


def test_mysql_down_keeps_everything_pending(bench: Bench) -> None:
    bench.accept(7, 8)
    nowhere = engine("mysql://u:p@127.0.0.1:1/d")
    worker = bench.worker(pool=nowhere)
    counts = worker.run_once()
    assert (counts.postponed, counts.failures, counts.written) == (2, 1, 0)
    assert len(bench.pending()) == 2
    assert bench.dead() == []
    for _ in range(5):  # an outage raises the delivery count; it decides nothing
        bench.clock.now_s += 10
        worker.run_once()
    assert bench.dead() == []
    worker.pool = bench.pool
    bench.run_until(worker, lambda: not bench.pending())
    assert len(orders(bench.pool)) == 2
    nowhere.dispose()


def test_a_foreign_lock_postpones_only_its_user(bench: Bench) -> None:
    bench.cache.set(keys.order_lock(7), "c9 1")
    bench.accept(7, 8)
    worker = bench.worker()
    counts = worker.run_once()
    assert (counts.written, counts.postponed) == (1, 1)
    assert orders(bench.pool) == {1008: (8, 1)}
    assert bench.cache.get(keys.order_lock(7)) == "c9 1", "nobody else's lock is touched"
    bench.cache.delete(keys.order_lock(7))
    bench.run_until(worker, lambda: not bench.pending())
    assert set(orders(bench.pool)) == {1007, 1008}


def test_a_stuck_order_blocks_nobody_and_is_not_hammered(bench: Bench) -> None:
    bench.cache.set(keys.order_lock(7), "c9 1")
    bench.accept(7)
    worker = bench.worker(retry_base_ms=1000, retry_max_ms=5000)
    worker.run_once()
    for user in range(8, 12):
        bench.accept(user)
        assert worker.run_once().written == 1
    assert worker.total.postponed == 1, "its time has not come"
    bench.clock.now_s += 1.5
    worker.run_once()  # looks at its own again
    assert worker.total.postponed == 2
    assert len(bench.pending()) == 1


def test_what_is_not_due_waits_although_another_is(bench: Bench) -> None:
    worker = bench.worker(retry_base_ms=1000, retry_max_ms=60_000)
    for user, steps in ((3, (0.0, 1.5, 2.5)), (7, (0.0,))):
        bench.cache.set(keys.order_lock(user), "c9 1")
        bench.accept(user)
        for step_s in steps:
            bench.clock.now_s += step_s
            worker.run_once()
            worker.run_once()
    assert worker.total.postponed == 4
    bench.clock.now_s += 1.2  # user 7's is due after 1 s, user 3's after 4 s
    for _ in range(3):
        worker.run_once()
    assert worker.total.postponed == 5


def test_its_own_lock_of_an_earlier_life_does_not_hinder(bench: Bench) -> None:
    bench.cache.set(keys.order_lock(7), "c1 0")
    bench.accept(7)
    assert bench.worker("c1").run_once().written == 1


def test_a_cache_that_is_down_costs_the_locks_not_the_orders(
    bench: Bench, own_ledger: RedisServer
) -> None:
    with sync_client(own_ledger.url) as gone:
        assert own_ledger.process is not None
        own_ledger.process.kill()
        bench.accept(7, 8)
        assert bench.worker(cache=gone).run_once().written == 2
    assert bench.pending() == []


def test_locks_are_held_while_mysql_writes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from flashsale.orders import persistence

    held: list[str | None] = []
    really_write = persistence.write

    def write(*args: Any) -> None:
        held.extend(bench.cache.mget(keys.order_lock(7), keys.order_lock(8)))
        really_write(*args)

    monkeypatch.setattr(persistence, "write", write)
    bench.accept(7, 8)
    bench.worker("c1").run_once()
    assert held == ["c1 1", "c1 1"]


def test_a_postponed_entry_that_another_finished_is_forgotten(bench: Bench) -> None:
    """Otherwise it stays due for ever, and the worker polls Redis a thousand times a second."""
    bench.cache.set(keys.order_lock(7), "c9 1")
    (entry,) = bench.accept(7)
    worker = bench.worker(block_ms=2000)
    worker._settings = worker._settings.model_copy(update={"block_ms": 1})
    worker.run_once()
    assert worker.postponed == 1
    bench.ledger.xack(keys.STREAM_ORDERS, keys.GROUP, entry)  # taken over and done by another
    for _ in range(4):
        bench.clock.now_s += 10
        worker.run_once()
    assert worker.postponed == 0
    assert worker._pending.wait_ms(worker._now_s(), 2000) == 2000, "idle again"


def test_postponed_entries_are_not_forgotten_while_they_are_ours(bench: Bench) -> None:
    for user in (3, 7):
        bench.cache.set(keys.order_lock(user), "c9 1")
    bench.accept(*range(1, 9))
    worker = bench.worker(batch_rows_max=2)
    for _ in range(12):
        bench.clock.now_s += 10
        worker.run_once()
    assert worker.postponed == 2
    assert len(orders(bench.pool)) == 6
    bench.cache.flushall()
    bench.run_until(worker, lambda: not bench.pending())
    assert len(orders(bench.pool)) == 8


def test_run_waits_for_a_ledger_that_is_away(
    own_ledger: RedisServer, cache: Redis, pool: Engine
) -> None:
    add_sale(pool)
    with sync_client(own_ledger.url) as ledger:
        open_sale(ledger)
        bench = Bench(ledger, cache, pool)
        bench.accept(7)
        worker = bench.worker()
        assert own_ledger.process is not None
        own_ledger.process.kill()

        def stopped() -> bool:
            assert own_ledger.process is not None
            if worker.total.failures >= 3 and own_ledger.process.exit_code is not None:
                own_ledger.start()
            return worker.total.written == 1

        worker.run(stopped)
    assert len(orders(pool)) == 1


# Trimming -----------------------------------------------------------------------------------------


def test_done_entries_are_trimmed_in_their_time(bench: Bench) -> None:
    bench.accept(*range(1, 31))
    worker = bench.worker(trim_keep_entries=5, trim_interval_s=10)
    worker.run_once()
    assert bench.ledger.xlen(keys.STREAM_ORDERS) == 30, "not yet"
    bench.clock.now_s += 11
    worker.run_once()
    assert 5 <= bench.ledger.xlen(keys.STREAM_ORDERS) <= 6


def test_trimming_spares_what_is_stuck(bench: Bench) -> None:
    bench.cache.set(keys.order_lock(3), "c9 1")
    bench.accept(*range(1, 31))
    worker = bench.worker(trim_keep_entries=0, trim_interval_s=1)
    worker.run_once()
    bench.clock.now_s += 11
    worker.run_once()
    assert bench.ledger.xlen(keys.STREAM_ORDERS) == 28
    bench.cache.flushall()
    bench.run_until(worker, lambda: not bench.pending())
    assert len(orders(bench.pool)) == 30


# Several workers ----------------------------------------------------------------------------------


def test_two_workers_share_a_stream(bench: Bench, ledger_url: str, mysql_url: str) -> None:
    """2,000 orders, one of the workers with a failing hand: each a row once, units right."""
    bench.accept(*range(1, 1001))
    open_sale(bench.ledger, 2, units=1000)
    add_sale(bench.pool, 2, stock=1000)
    bench.accept(*range(1, 1001), voucher_id=2, first_id=5000)

    def finished() -> bool:
        left = units(bench.pool, 1) + units(bench.pool, 2)
        return left == 0 and bench.ledger.xpending(keys.STREAM_ORDERS, keys.GROUP)["pending"] == 0

    def work(name: str, stumbles: bool) -> None:
        with sync_client(ledger_url) as own, closing(_Pool(mysql_url)) as own_pool:
            worker = Bench(own, bench.cache, own_pool.engine).worker(
                name, batch_rows_max=130, claim_idle_ms=100
            )
            if stumbles:
                worker._stream = _Stumbling(own, name)
            worker.run(finished)

    threads = [threading.Thread(target=work, args=(f"c{n}", n == 2)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    wanted = {1000 + user: (user, 1) for user in range(1, 1001)}
    wanted |= {5000 + user: (user, 2) for user in range(1, 1001)}
    assert orders(bench.pool) == wanted
    assert (units(bench.pool, 1), units(bench.pool, 2)) == (0, 0)
    assert bench.dead() == []


class _Pool:
    def __init__(self, url: str) -> None:
        self.engine = engine(url)

    def close(self) -> None:
        self.engine.dispose()


class _Stumbling(OrderStream):
    """Loses every third acknowledgement on its way, and the answer to every fifth."""

    acks = 0

    def acknowledge_and_read(self, entry_ids: Sequence[str], count: int) -> Fresh:
        self.acks += 1
        if self.acks % 3 == 0:
            raise Indeterminate("lost on its way")
        fresh = super().acknowledge_and_read(entry_ids, count)
        if self.acks % 5 == 0:
            raise Indeterminate("its answer lost: these are ours, and we do not know it")
        return fresh


# What it tells ------------------------------------------------------------------------------------


def test_batches_and_latencies_are_counted(bench: Bench) -> None:
    bench.accept(7, 8, 9)
    worker = bench.worker()
    worker.run_once()
    assert (worker.batch_sizes.count, worker.batch_sizes.sum) == (1, 3)
    assert (worker.latencies_s.count, worker.durations_s.count) == (3, 1)
    assert 0 < worker.latencies_s.sum < 3 * 10
    assert (worker.locks.counts.acquired, worker.locks.counts.lost, worker.locks.held) == (3, 0, 0)


def test_repr_tells_the_state(bench: Bench) -> None:
    bench.accept(7)
    worker = bench.worker()
    worker.run_once()
    assert "consumer='c1'" in repr(worker)
    assert "written=1" in repr(worker)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Set-asides are logged as errors, as they should be; not into the test's output."""
    import structlog

    with structlog.testing.capture_logs():
        yield
