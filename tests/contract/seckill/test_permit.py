"""The permit on real stores: who gets one, who loses it, and that nothing is sold in between."""

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis import Redis
from rig.relay import Relay
from rig.rows import add_sale, generation, marks, orders, units
from rig.sale import claim, everything, open_sale, session, sign_in, sold, stock
from rig.until import until
from sqlalchemy import Engine, text

from flashsale import failpoints, keys
from flashsale.errors import Unavailable
from flashsale.locks.batch import BatchLocks
from flashsale.model import Outcome
from flashsale.orders.dead_letters import read_letters
from flashsale.orders.persistence import write
from flashsale.orders.stream import FORGOTTEN, Order, OrderStream, read_entry
from flashsale.orders.worker import Worker
from flashsale.seckill.batch import Claimed
from flashsale.seckill.claims import Claims
from flashsale.seckill.ids import EPOCH_S, day_of
from flashsale.seckill.permit import Behind, BooksComparison, Permits
from flashsale.seckill.rebuild import Rebuild
from flashsale.settings import ClaimSettings, SessionSettings, WorkerSettings
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage.channel import Channel
from flashsale.storage.roles import sync_client

NO_PERMIT = Claimed(Outcome.SHED, behind="permit")
LONG_AGO = 5 << 32  # ids of orders whose claims are long over


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def books(ledger: Redis, pool: Engine) -> BooksComparison:
    add_sale(pool, stock=100)
    open_sale(ledger, units=100)
    sign_in(ledger, *range(1, 60))
    return BooksComparison(ledger, pool)


@asynccontextmanager
async def claims_on(url: str, books: BooksComparison) -> AsyncIterator[Claims]:
    settings = ClaimSettings(id_block=10, timeout_ms=500)
    claims = Claims(url, settings, SessionSettings(), Permits(books))
    try:
        await claims.clock.sync()
        yield claims
        await claims.drain()
    finally:
        await claims.aclose()


async def buy(claims: Claims, *users: int) -> list[Claimed | None]:
    return list(await asyncio.gather(*(claims.claim(1, session(user)) for user in users)))


def persisted(ledger: Redis, pool: Engine) -> list[Order]:
    """Every order on the stream made a row, as a worker does it."""
    entries: Any = ledger.xrange(keys.STREAM_ORDERS)
    orders = [read_entry(entry, fields) for entry, fields in entries]
    known = {row[0] for row in _ids(pool)}
    fresh = [o for o in orders if isinstance(o, Order) and o.order_id not in known]
    if fresh:
        write(pool, fresh, generation(pool))
    return fresh


def _ids(pool: Engine) -> Any:
    with pool.connect() as connection:
        return connection.execute(text("SELECT id FROM tb_voucher_order")).all()


# Writing a permit ---------------------------------------------------------------------------------


def test_the_first_permit_draws_the_epoch_of_both_stores(
    books: BooksComparison, ledger: Redis
) -> None:
    permit = books.permit()
    run_id = ledger.info("server")["run_id"]  # type: ignore[index]
    assert permit.startswith(f"{run_id}:")
    assert ledger.get(keys.PERMIT) == permit
    high, low = marks(books.pool)[keys.EPOCH]
    assert ledger.get(keys.EPOCH) == f"{high:016x}{low:016x}"
    assert books.permit() == books.confirm() == permit, "it stays"


def test_many_who_compare_at_once_agree(books: BooksComparison) -> None:
    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(asyncio.to_thread(books.confirm) for _ in range(8)))

    assert len(set(asyncio.run(all_at_once()))) == 1


def test_a_permit_in_force_needs_no_mysql(books: BooksComparison) -> None:
    permit = books.permit()
    books.pool.dispose()
    away = BooksComparison(books.ledger, _nowhere())
    assert away.permit() == permit
    books.ledger.delete(keys.PERMIT)
    with pytest.raises(Unavailable):
        away.permit()
    assert not books.ledger.exists(keys.PERMIT)


def _nowhere() -> Engine:
    from flashsale.storage.mysql import engine

    return engine("mysql://u:p@127.0.0.1:1/x")


def test_a_new_database_takes_the_ledgers_epoch(
    books: BooksComparison, ledger: Redis, pool: Engine
) -> None:
    books.permit()
    epoch = ledger.get(keys.EPOCH)
    with pool.begin() as connection:
        connection.execute(text("DELETE FROM tb_stream_position"))
    books.confirm()
    assert ledger.get(keys.EPOCH) == epoch
    books.ledger.set(keys.EPOCH, "f" * 32)
    with pytest.raises(Behind, match="epoch"):
        books.confirm()


def test_a_write_raises_stream_and_counter_in_mysql(books: BooksComparison, ledger: Redis) -> None:
    second = 123_456_789
    for number, user in ((7, 1), (9, 2), (8, 3)):
        fields = {"userId": user, "voucherId": 1, "id": second << 32 | number, "ms": 5}
        ledger.xadd(keys.STREAM_ORDERS, fields)  # type: ignore[arg-type]
    written = persisted(ledger, books.pool)
    found = marks(books.pool)
    assert found[keys.STREAM_ORDERS] == written[-1].position
    assert found[keys.order_counter(day_of(second))] == (9, 0)


def test_poison_raises_nothing_that_would_close_a_sale(
    books: BooksComparison, ledger: Redis
) -> None:
    """A counter that no lease reaches, and an entry whose id fits no column."""
    beyond = f"{2**64 - 1}-{2**64 - 3}"
    fields = {"userId": 1, "voucherId": 1, "id": 5 << 32 | 2**32 - 1, "ms": 5}
    ledger.xadd(keys.STREAM_ORDERS, fields, id=beyond)  # type: ignore[arg-type]
    assert len(persisted(ledger, books.pool)) == 1
    assert marks(books.pool) == {}
    assert books.confirm()


# Losing it ----------------------------------------------------------------------------------------


def flushed(ledger: Redis) -> None:
    ledger.flushall()
    sign_in(ledger, *range(1, 60))
    open_sale(ledger, units=100)


BEHIND: dict[str, tuple[Callable[[Redis], object], str]] = {
    "flushed": (flushed, "no epoch"),
    "another ledger": (lambda ledger: ledger.set(keys.EPOCH, "0" * 32), "epoch"),
    "without its stream": (lambda ledger: ledger.delete(keys.STREAM_ORDERS), "orders end at 0-0"),
    "with a lower counter": (
        lambda ledger: [ledger.set(k, 1) for k in ledger.scan_iter(f"{keys.order_counter('')}*")],
        "counted 1 order ids",
    ),
}


@pytest.mark.parametrize(("spoil", "told"), BEHIND.values(), ids=BEHIND.keys())
def test_a_ledger_that_is_behind_loses_its_permit(
    books: BooksComparison,
    ledger: Redis,
    ledger_url: str,
    spoil: Callable[[Redis], object],
    told: str,
) -> None:
    async def scene() -> None:
        async with claims_on(ledger_url, books) as claims:
            answers = await buy(claims, 1, 2, 3)
            assert {answer and answer.outcome for answer in answers} == {Outcome.SOLD}
            persisted(ledger, books.pool)
            spoil(ledger)
            with pytest.raises(Behind, match=told):
                books.confirm()
            before = everything(ledger)
            assert await buy(claims, 4, 5, 1) == [NO_PERMIT] * 3
            assert everything(ledger) == before, "nothing is sold, and no session touched"

    asyncio.run(scene())


def test_a_flush_needs_nobody_to_notice_it(
    books: BooksComparison, ledger: Redis, ledger_url: str
) -> None:
    async def scene() -> None:
        async with claims_on(ledger_url, books) as claims:
            await buy(claims, 1)
            flushed(ledger)
            assert await buy(claims, 2, 3) == [NO_PERMIT] * 2
            assert await buy(claims, 2, 3) == [NO_PERMIT] * 2, "and then it is compared"
            assert stock(ledger) == 100

    asyncio.run(scene())


def test_a_closed_ledger_gets_no_permit_until_it_is_lifted(
    books: BooksComparison, ledger: Redis
) -> None:
    old = books.permit()
    books.revoke("books: 3 orders are missing")
    with pytest.raises(Behind, match="3 orders are missing"):
        books.permit()
    ledger.delete(keys.CLOSED)
    assert books.permit() not in ("", old), "no claim of before the closing goes through"


# Older than it was --------------------------------------------------------------------------------


def put_back(server: RedisServer, copy: Path) -> None:
    """The server dies, and starts on an older file."""
    assert server.process is not None
    server.process.kill()
    server.sweep()
    shutil.rmtree(server.directory / "appendonlydir")
    shutil.copytree(copy, server.directory / "appendonlydir")
    server.start()


def restart(server: RedisServer) -> None:
    assert server.process is not None
    server.process.kill()
    server.sweep()
    server.start()


@pytest.fixture
def old(own_ledger: RedisServer, pool: Engine) -> Iterator[BooksComparison]:
    """Books on a ledger that can be stopped."""
    add_sale(pool, stock=10)
    with sync_client(own_ledger.url) as ledger:
        open_sale(ledger, units=10)
        sign_in(ledger, *range(1, 60))
        yield BooksComparison(ledger, pool)


def test_a_restart_that_lost_nothing_sells_on_by_itself(
    own_ledger: RedisServer, old: BooksComparison
) -> None:
    async def scene() -> None:
        async with claims_on(own_ledger.url, old) as claims:
            await buy(claims, 1, 2, 3)
            persisted(old.ledger, old.pool)
            first = claims._permits and claims._permits.current
            await asyncio.to_thread(restart, own_ledger)
            answers = await buy(claims, 4, 1)
            assert [answer and answer.outcome for answer in answers] == [
                Outcome.SOLD,
                Outcome.DUPLICATE,
            ]
            assert claims._permits
            assert claims._permits.current not in ("", first)

    asyncio.run(scene())


def of_sales(ledger: Redis) -> dict[str, Any]:
    """All that a sale writes; ids may be leased and never used."""
    counters = keys.order_counter("")
    found = everything(ledger).items()
    return {k: v for k, v in found if k != keys.PERMIT and not k.startswith(counters)}


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown to the replica"])
def test_a_ledger_that_came_back_older_sells_nothing(
    own_ledger: RedisServer, old: BooksComparison, tmp_path: Path, known: bool
) -> None:
    """Its own permit came back with it, and the replica's is the same: the run id tells."""

    async def scene() -> None:
        async with claims_on(own_ledger.url, old) as claims:
            await buy(claims, 1, 2, 3)
            persisted(old.ledger, old.pool)
            shutil.copytree(own_ledger.directory / "appendonlydir", tmp_path / "copy")
            await buy(claims, *range(4, 11))
            assert stock(old.ledger) == 0
            persisted(old.ledger, old.pool)
            await asyncio.to_thread(put_back, own_ledger, tmp_path / "copy")
            assert old.ledger.get(keys.PERMIT) == (claims._permits and claims._permits.current)
            assert stock(old.ledger) == 7, "seven units that are sold already"
            if known:
                with pytest.raises(Behind, match="MySQL has rows of orders up to"):
                    old.confirm()
            before = of_sales(old.ledger)
            for _ in range(3):
                answers = await buy(claims, *range(11, 20))
                assert set(answers) == {NO_PERMIT}
            assert len(sold(old.ledger)) == 3
            assert of_sales(old.ledger) == before

    asyncio.run(scene())


def test_a_replay_does_not_sell_on_a_ledger_that_came_back_older(
    own_ledger: RedisServer, old: BooksComparison, tmp_path: Path
) -> None:
    """The batch was lost with its server, and names the permit that the older file holds, too."""

    async def scene() -> None:
        async with claims_on(own_ledger.url, old) as claims:
            await buy(claims, 1)
            persisted(old.ledger, old.pool)
            shutil.copytree(own_ledger.directory / "appendonlydir", tmp_path / "copy")
            await buy(claims, 2)
            persisted(old.ledger, old.pool)
            assert own_ledger.process is not None
            os.kill(own_ledger.process.pid, signal.SIGSTOP)
            waiting = asyncio.gather(*(claims.claim(1, session(user)) for user in (3, 4)))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(put_back, own_ledger, tmp_path / "copy")
            answers = await waiting
            assert {a and a.outcome for a in answers} == {Outcome.UNKNOWN}
            assert set(sold(old.ledger)) == {"1"}

    asyncio.run(scene())


def test_ids_do_not_repeat_after_a_new_permit(books: BooksComparison, ledger_url: str) -> None:
    """The block that a replica holds was leased before: whoever rebuilt has raised the counter."""

    async def scene() -> None:
        async with claims_on(ledger_url, books) as claims:
            (first,) = await buy(claims, 1)
            assert first is not None
            day = day_of(int(first.order_id) >> 32)
            books.revoke()
            books.ledger.set(keys.order_counter(day), 70_000)
            assert await buy(claims, 2) == [NO_PERMIT]
            (second,) = await buy(claims, 2)
            assert second is not None
            assert int(second.order_id) & 0xFFFFFFFF == 70_001

    asyncio.run(scene())


def test_no_ids_are_taken_from_a_server_that_another_took_over_from(
    books: BooksComparison, ledger_url: str, own_ledger: RedisServer
) -> None:
    """It stood still, goes on with connections of then, and has the permit of then: its counter
    gives out what the other's does."""

    async def scene() -> None:
        stale = Channel(own_ledger.url, connections_max=1, timeout_s=2)
        with sync_client(own_ledger.url) as old:
            old.set(keys.PERMIT, "of:then")
        async with claims_on(ledger_url, books) as claims:
            of_now = claims._side
            claims._side = stale
            assert await buy(claims, 1) == [NO_PERMIT]
            claims._side = of_now
            (first,) = await buy(claims, 1)
            assert first is not None
            assert (first.outcome, int(first.order_id) & 0xFFFFFFFF) == (Outcome.SOLD, 1)
        await stale.aclose()

    asyncio.run(scene())


def test_a_replay_gives_no_id_a_second_time_that_a_successor_leased(
    books: BooksComparison, ledger: Redis, ledger_url: str
) -> None:
    """A replica that took over had not copied the lease yet. Who still waits for the old server
    replays on it in the end, with ids of the very second in which the new one gave them out."""

    async def scene() -> None:
        async with Relay(ledger_url) as relay, claims_on(relay.url, books) as late:
            second = the_second_of(late)
            await buy(late, 1)
            relay.hold(new=False)
            waiting = asyncio.ensure_future(buy(late, 2))
            await relay.held.wait()
            books.revoke()
            ledger.delete(keys.order_counter(day_of(second)))
            async with claims_on(ledger_url, books) as soon:
                soon._ids._now_s = late._ids._now_s
                sold_now = await buy(soon, 3, 4, 5)
                assert late._permits is not None
                late._permits.drop(late._permits.current)  # it has looked meanwhile
                relay.drop_all()
                (answer,) = await waiting
                ids = list(sold(ledger).values())
                assert len(set(ids[1:])) == len(ids[1:]), "but for the first, which was lost"
                assert [a and a.outcome for a in sold_now] == [Outcome.SOLD] * 3
                assert answer == Claimed(Outcome.SHED), "certainly not done"
                assert set(sold(ledger)) == {"1", "3", "4", "5"}

    def the_second_of(claims: Claims) -> int:
        """The clock stands still from now on, so that all of it is in one second."""
        now_s = claims.clock.now_s()
        claims._ids._now_s = lambda: now_s
        return int(now_s) - EPOCH_S

    asyncio.run(scene())


# A worker that is at work meanwhile ---------------------------------------------------------------


@pytest.fixture
def worker(own_ledger: RedisServer, old: BooksComparison, cache: Redis, tmp_path: Path) -> Worker:
    """Its orders are of users 1 to 3, and a copy of the ledger is from before they were accepted:
    put back, it offers their units again, and MySQL knows nothing of them yet."""
    old.permit()
    stream = OrderStream(old.ledger, "c1")
    stream.ensure_group()
    shutil.copytree(own_ledger.directory / "appendonlydir", tmp_path / "copy")
    claimed = claim(old.ledger, *((user, LONG_AGO + user) for user in (1, 2, 3)))
    assert {code for code, _ in claimed} == {0}
    settings = WorkerSettings(block_ms=1, linger_ms=0, retry_base_ms=1, retry_max_ms=2)
    return Worker(
        stream, old.pool, BatchLocks(cache, "c1", lease_ms=30_000, renew_ms=10_000), settings
    )


@contextmanager
def at_work(worker: Worker) -> Iterator[None]:
    ended = threading.Event()
    thread = threading.Thread(target=worker.run, args=(ended.is_set,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(20)
    assert not thread.is_alive()


@contextmanager
def stalled(point: str) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Whoever comes by the point first says so, and waits to be let go on."""
    here, go_on = threading.Event(), threading.Event()

    def stall() -> None:
        if not here.is_set():
            here.set()
            go_on.wait(20)

    with failpoints.armed(point, stall):
        yield here, go_on


def test_no_permit_is_written_while_a_worker_is_inside_mysql(
    own_ledger: RedisServer, old: BooksComparison, worker: Worker, tmp_path: Path
) -> None:
    """Its transaction waits for a lock across the restart, and commits in the end: the ledger is
    behind then, and was not a moment before."""
    inserted = threading.Event()
    with failpoints.armed("rows.inserted", inserted.set), old.pool.connect() as holder:
        holder.execute(text("SELECT * FROM tb_seckill_voucher FOR UPDATE"))
        with at_work(worker):
            assert inserted.wait(20)  # its next statement takes the units, and waits
            put_back(own_ledger, tmp_path / "copy")
            assert stock(old.ledger) == 10, "three of them are in a transaction that will commit"
            with pytest.raises(Unavailable):
                old.confirm()
            assert not old.compare()[1].is_permitted
            holder.rollback()
        with pytest.raises(Behind, match="MySQL has rows of orders up to"):
            old.confirm()
    assert set(orders(old.pool)) == {LONG_AGO + user for user in (1, 2, 3)}
    Rebuild(old).apply()
    assert (old.ledger.hlen(keys.seckill_receipt(1)), stock(old.ledger)) == (3, 7)


@pytest.mark.parametrize("point", ["worker.read", "worker.locked"])
def test_what_was_read_before_a_permit_is_not_written_after_it(
    own_ledger: RedisServer, old: BooksComparison, worker: Worker, tmp_path: Path, point: str
) -> None:
    """The units that the older ledger offers again are sold to others meanwhile."""
    with stalled(point) as (here, go_on), at_work(worker):
        assert here.wait(20)
        put_back(own_ledger, tmp_path / "copy")
        assert old.confirm()
        others = range(11, 21)  # all ten units
        claimed = claim(old.ledger, *((user, LONG_AGO + user) for user in others))
        assert {code for code, _ in claimed} == {0}
        go_on.set()
        until(lambda: len(orders(old.pool)) == 10 and worker.total.lost == 3, 20)
    assert set(orders(old.pool)) == {LONG_AGO + user for user in others}
    assert units(old.pool) == 0
    letters = {
        letter.order and letter.order.user_id: letter.reason for letter in read_letters(old.ledger)
    }
    assert letters == dict.fromkeys((1, 2, 3), FORGOTTEN)
    assert len(sold(old.ledger)) == 10


def test_what_the_ledger_came_back_with_is_read_again_and_written(
    own_ledger: RedisServer, old: BooksComparison, worker: Worker
) -> None:
    """A restart that lost nothing, in the middle of a batch: written once, under the new permit."""
    with stalled("worker.locked") as (here, go_on), at_work(worker):
        assert here.wait(20)
        restart(own_ledger)
        old.confirm()
        go_on.set()
        until(lambda: worker.total.written == 3, 20)
    assert worker.total.lost == 0
    assert units(old.pool) == 7
    assert not list(read_letters(old.ledger))


def test_what_an_old_primary_still_has_is_not_written_once_another_is_permitted(
    own_ledger: RedisServer, old: BooksComparison, worker: Worker, tmp_path: Path
) -> None:
    """It goes on, cut off from its Sentinels, and is reached over connections of before."""

    def superseded(
        here: threading.Event, go_on: threading.Event, relay: Relay, promoted: RedisServer
    ) -> None:
        with at_work(worker):
            assert here.wait(20)
            relay.lead_to(promoted.url)
            old.supersede()
            go_on.set()
            until(lambda: worker.total.lost == 3, 20)

    async def scene(promoted: RedisServer) -> None:
        async with Relay(own_ledger.url) as relay:
            with sync_client(relay.url) as led, stalled("worker.locked") as (here, go_on):
                worker._stream = OrderStream(led, "c1")
                await asyncio.to_thread(superseded, here, go_on, relay, promoted)

    with (
        RedisServer(RedisRole.LEDGER, tmp_path / "promoted") as promoted,
        sync_client(promoted.url) as new,
    ):
        open_sale(new, units=10)
        asyncio.run(scene(promoted))
        letters = {letter.order and letter.order.user_id for letter in read_letters(new)}
    assert letters == {1, 2, 3}, "named"
    assert not orders(old.pool)
    assert units(old.pool) == 10
    assert len(sold(old.ledger)) == 3, "it has them"


def test_a_generation_is_drawn_only_where_a_permit_is_to_be_written(books: BooksComparison) -> None:
    books.confirm()
    drawn = generation(books.pool)
    assert drawn
    books.confirm()
    assert generation(books.pool) == drawn, "it is in force"
    books.ledger.flushall()
    with pytest.raises(Behind):
        books.confirm()
    assert generation(books.pool) == drawn, "none can be written"
