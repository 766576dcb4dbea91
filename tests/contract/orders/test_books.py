"""The books, watched on real stores: what is missing is seen, told, mended, and sells nothing."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from redis import Redis
from rig.rows import add_sale, generation, orders
from rig.sale import claim, open_sale
from rig.until import until
from sqlalchemy import Connection, Engine, text

from flashsale import keys
from flashsale.errors import Unavailable
from flashsale.keys import Lane
from flashsale.orders import books as books_module
from flashsale.orders.books import Look, SaleCounts, Sold, judged, reconcile, wrong_of
from flashsale.orders.metrics import BooksCollector, look
from flashsale.orders.persistence import persist
from flashsale.orders.stream import Order, OrderStream
from flashsale.orders.watch import LOOKS, TOLD_S, BooksWatch, lift
from flashsale.seckill.control import loaded_sales, read_units
from flashsale.seckill.permit import Behind, BooksComparison
from flashsale.seckill.queue import read_group
from flashsale.seckill.sale import KINDS, kinds_of

LONG_AGO = 5 << 32  # ids of orders whose claims are long over


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class Desk:
    """One sale, a worker by hand, and a watch."""

    def __init__(self, ledger: Redis, pool: Engine) -> None:
        self.ledger, self.pool = ledger, pool
        add_sale(pool, stock=100)
        open_sale(ledger, units=100)
        self.stream = OrderStream(ledger, "c1")
        self.stream.ensure_group()
        self.now_s = 1_000.0
        self.watch = BooksWatch(
            BooksComparison(ledger, pool),
            interval_s=60,
            claim_timeout_ms=2_000,
            now_s=lambda: self.now_s,
        )

    def sell(self, *users: int) -> None:
        answers = claim(self.ledger, *((user, LONG_AGO + user) for user in users))
        assert {code for code, _ in answers} == {0}

    def work(self) -> None:
        read = [*self.stream.pending("0", 100), *self.stream.fresh(100, 1)]
        if entries := [entry for entry in read if isinstance(entry, Order)]:
            result = persist(self.pool, entries, generation(self.pool))
            self.stream.acknowledge([order.entry_id for order in result.done])

    def looks(self, count: int) -> Look:
        for _ in range(count):
            found = self.watch.run_once()
        return found

    def figure(self, name: str, **labels: str) -> float | None:
        for metric in BooksCollector(self.watch).collect():
            for sample in metric.samples:
                if sample.name == f"flashsale_books_{name}" and sample.labels == labels:
                    return float(sample.value)
        return None


@pytest.fixture
def desk(ledger: Redis, pool: Engine) -> Desk:
    return Desk(ledger, pool)


def agree(found: Look) -> bool:
    return found == Look(permitted=True)


def test_a_sale_that_goes_on_agrees_at_every_step(desk: Desk) -> None:
    assert agree(desk.looks(1))
    desk.sell(1, 2, 3)
    assert agree(desk.looks(1)), "on their way"
    entries: Any = desk.stream.fresh(2, 1)
    assert agree(desk.looks(1)), "given to a worker"
    persist(desk.pool, entries)
    assert agree(desk.looks(1)), "rows, and not acknowledged"
    desk.work()
    assert agree(desk.looks(1))
    with desk.pool.begin() as connection:
        for statement in (
            f"UPDATE tb_voucher_order SET status = 4 WHERE id = {LONG_AGO + 1}",
            "UPDATE tb_seckill_voucher SET stock = stock + 1",
            "INSERT INTO tb_order_return (order_id, user_id, voucher_id) "
            f"VALUES ({LONG_AGO + 1}, 1, 1)",
        ):
            connection.execute(text(statement))
    assert agree(desk.looks(1)), "cancelled, and owed to the ledger"
    assert (desk.watch.total.requeued, desk.watch.total.closings) == (0, 0)


# What is missing ----------------------------------------------------------------------------------


def _trimmed(desk: Desk) -> None:
    desk.ledger.xtrim(keys.STREAM_ORDERS, maxlen=0, approximate=False)


def _deleted(desk: Desk) -> None:
    entries: Any = desk.ledger.xrange(keys.STREAM_ORDERS)
    desk.ledger.xdel(keys.STREAM_ORDERS, *[entry for entry, _ in entries[-3:]])


@pytest.mark.parametrize("lose", [_trimmed, _deleted])
def test_entries_that_went_unread_are_seen_told_and_written_again(
    desk: Desk, lose: Callable[[Desk], None]
) -> None:
    desk.sell(1, 2)
    desk.work()
    desk.sell(3, 4, 5)
    lose(desk)
    assert desk.looks(1).missing == 3
    assert desk.watch.total.requeued == 0, "one look may be of a moment in between"
    assert desk.figure("missing_orders") == 0
    desk.looks(1)
    assert desk.watch.total.requeued == 3
    assert desk.figure("missing_orders") == 3
    desk.work()
    assert orders(desk.pool) == {LONG_AGO + user: (user, 1) for user in range(1, 6)}
    assert agree(desk.looks(1))
    assert desk.figure("requeued_orders_total") == 3
    desk.now_s += TOLD_S - 1
    assert desk.figure("missing_orders") == 3, "no scrape misses it"
    desk.now_s += 2
    assert desk.figure("missing_orders") == 0


def test_what_a_worker_was_given_and_lost_is_not_waited_for(desk: Desk) -> None:
    """It was stopped with entries in its hands, and these were trimmed."""
    desk.sell(1, 2, 3)
    desk.stream.fresh(2, 1)
    _trimmed(desk)
    assert desk.looks(2).missing == 3
    assert desk.watch.total.requeued == 3
    assert read_group(desk.ledger).outstanding == 3
    desk.work()
    assert len(orders(desk.pool)) == 3


def _sold(*units_and_owed: tuple[int, int]) -> Callable[[Connection, Lane], dict[int, Sold]]:
    told = iter(units_and_owed)
    return lambda connection, lane: {1: Sold(*next(told), 0, 1)}


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ([(2, 0), (3, 0), (2, 0)], (0, 0)),  # user 3 cancels, and the ledger has not heard of it
        ([(4, 0), (3, 0), (4, 0)], (0, 0)),  # somebody's order became a row meanwhile
        ([(2, 0), (2, 0), (2, 0)], (1, 0)),
        ([(5, 0), (4, 0), (5, 0)], (0, 1)),
    ],
)
def test_what_one_reading_of_mysql_says_is_not_believed(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    told: list[tuple[int, int]],
    wrong: tuple[int, int],
) -> None:
    desk.sell(1, 2, 3)
    desk.work()
    monkeypatch.setattr(books_module, "read_sold", _sold(*told))
    found = reconcile(BooksComparison(desk.ledger, desk.pool))
    assert (found.missing, found.forgotten) == wrong


def test_what_stays_missing_closes_the_sales_until_the_books_agree(desk: Desk) -> None:
    desk.looks(1)
    desk.sell(1, 2)
    receipt = keys.seckill_receipt(1)
    kept = desk.ledger.hgetall(receipt)
    _trimmed(desk)
    desk.ledger.hset(receipt, mapping={"1": "x", "2": "y"})  # no order to write again
    desk.looks(LOOKS)
    assert desk.ledger.get(keys.CLOSED).startswith("books: 2 accepted orders")  # type: ignore[union-attr]
    assert not desk.ledger.exists(keys.PERMIT)
    assert desk.figure("permitted") is not None
    found = desk.looks(1)
    assert not found.permitted
    assert desk.figure("permitted") == 0
    assert desk.watch.total.closings == 1
    desk.ledger.hset(receipt, mapping=kept)  # type: ignore[arg-type]
    desk.looks(1)
    assert desk.watch.total.requeued == 2
    desk.work()
    assert not desk.looks(LOOKS - 1).permitted
    desk.looks(1)
    assert agree(desk.looks(1))


def test_a_young_claim_is_not_written_again(desk: Desk) -> None:
    """It may still be replayed; and whoever is behind a backlog is on the way."""
    now_s = int(desk.ledger.time()[0])  # type: ignore[index]
    young = (now_s - 1_640_995_200) << 32 | 5
    claim(desk.ledger, (9, young))
    _trimmed(desk)
    desk.looks(LOOKS)
    assert desk.watch.total.requeued == 0


def test_a_dead_letter_is_not_missing(desk: Desk) -> None:
    desk.sell(1)
    (order,) = desk.stream.fresh(10, 1)
    assert desk.stream.set_aside(order, "no stock")
    assert agree(desk.looks(LOOKS))


def test_a_backlog_that_cannot_be_counted_is_unknown(desk: Desk, monkeypatch: Any) -> None:
    from flashsale.seckill import queue

    monkeypatch.setattr(queue, "_COUNTED_MAX", 2)
    desk.sell(1)
    desk.stream.fresh(1, 1)
    desk.sell(2, 3, 4, 5)
    entries: Any = desk.ledger.xrange(keys.STREAM_ORDERS)
    desk.ledger.xdel(keys.STREAM_ORDERS, entries[2][0])
    if desk.ledger.xinfo_groups(keys.STREAM_ORDERS)[0]["lag"] is not None:  # type: ignore[index]
        pytest.skip("this Redis keeps count past a gap")
    assert desk.looks(LOOKS).missing is None
    assert desk.figure("missing_orders") is None, "not nought"


# Lost and torn sales, and a ledger that is behind ------------------------------------------------


@pytest.mark.parametrize(
    ("names", "lost", "torn"),
    [
        ([keys.seckill_stock(1)], [1], []),
        ([keys.seckill_sale(1)], [1], []),
        ([keys.seckill_order(1)], [], [1]),
        ([keys.seckill_receipt(1)], [], [1]),
        ([keys.seckill_order(1), keys.seckill_receipt(1)], [], [1]),
    ],
    ids=["stock", "sale", "set", "receipts", "set and receipts"],
)
def test_a_sale_that_lost_a_key_is_told(
    desk: Desk, names: list[str], lost: list[int], torn: list[int]
) -> None:
    desk.sell(1, 2)
    desk.work()
    desk.ledger.delete(*names)
    found = desk.looks(1)
    assert (list(found.lost_sales), list(found.torn_sales)) == (lost, torn)
    assert (desk.figure("lost_sales"), desk.figure("torn_sales")) == (len(lost), len(torn))


def test_a_sale_that_is_gone_altogether_is_lost_as_well(desk: Desk) -> None:
    desk.sell(1)
    desk.work()
    desk.ledger.srem(keys.LOADED_SALES, "1")
    assert list(desk.looks(1).lost_sales) == [1]


EVERY_KEY = {**KINDS, **kinds_of([1])}


@pytest.mark.parametrize("name", EVERY_KEY)
def test_a_key_of_another_type_is_told_and_hides_nothing(desk: Desk, name: str) -> None:
    desk.sell(1, 2)
    desk.work()
    desk.looks(1)
    desk.ledger.delete(name)
    desk.ledger.zadd(name, {"x": 1})
    found = desk.looks(1)
    if name == keys.PERMIT:  # one of another type is none, and a new one takes its place
        assert agree(found)
    else:
        assert list(found.mistyped) == [name]
        assert desk.figure("mistyped_keys") == 1
        assert [told for told in wrong_of(found) if name in told]
    figures = look(desk.ledger)
    assert (figures.dead is None) == (name == keys.STREAM_DEAD)
    assert desk.watch.total.failures == 0


@pytest.mark.parametrize("name", ["abc", "007", "²", "-", "9" * 30])
def test_a_stock_that_is_no_number_is_a_lost_sale(desk: Desk, name: str) -> None:
    desk.ledger.set(keys.seckill_stock(1), name)
    desk.ledger.sadd(keys.LOADED_SALES, name)
    found = desk.looks(1)
    assert list(found.lost_sales) == [1]
    assert list(look(desk.ledger).sales) == []
    assert read_units(desk.ledger, loaded_sales(desk.ledger))[0].voucher_id == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM tb_voucher_order WHERE user_id = 1",
        "UPDATE tb_voucher_order SET status = 4 WHERE user_id = 1",
        "UPDATE tb_voucher_order SET voucher_id = 2 WHERE user_id = 1",
        "INSERT INTO tb_voucher_order (id, user_id, voucher_id, create_time) "
        "VALUES (1, 99, 1, '2026-01-01')",
        "UPDATE tb_seckill_voucher SET initial_stock = initial_stock + 1",
    ],
)
def test_units_and_rows_of_mysql_that_do_not_add_up_are_told(desk: Desk, statement: str) -> None:
    desk.sell(1, 2)
    desk.work()
    assert agree(desk.looks(1))
    with desk.pool.begin() as connection:
        connection.execute(text(statement))
    assert desk.looks(1).uneven_sales == (), "they are counted every few seconds"
    desk.now_s += 6
    found = desk.looks(1)
    assert found.uneven_sales == (1,)
    assert desk.figure("uneven_sales") == 1
    assert "sales whose units and rows in MySQL do not add up: 1" in wrong_of(found)


def test_what_is_new_is_looked_at_again_at_once(desk: Desk) -> None:
    """The next look by the clock would be in a minute."""
    desk.sell(1, 2)
    _trimmed(desk)
    desk.ledger.hset(keys.seckill_receipt(1), mapping={"1": "x", "2": "y"})
    stop = threading.Event()
    thread = threading.Thread(target=desk.watch.run, args=(stop,))
    thread.start()
    try:
        desk.watch.doubt.set()
        until(lambda: desk.watch.total.closings == 1)
        assert desk.watch.total.looks in (LOOKS - 1, LOOKS)
    finally:
        stop.set()
        desk.watch.doubt.set()
        thread.join(5)


def test_a_ledger_that_is_behind_is_told_and_closed_at_once(desk: Desk) -> None:
    desk.sell(1)
    desk.work()
    desk.looks(1)
    assert desk.figure("behind", what="stream") == 0
    desk.ledger.delete(keys.STREAM_ORDERS)
    found = desk.looks(1)
    assert [reason.what for reason in found.reasons] == ["stream"]
    assert not found.permitted
    assert desk.figure("behind", what="stream") == 1
    assert not desk.ledger.exists(keys.PERMIT)


def test_rows_that_the_ledger_forgot_close_it(desk: Desk) -> None:
    desk.sell(1, 2, 3)
    desk.work()
    desk.ledger.delete(keys.seckill_order(1), keys.seckill_receipt(1))
    desk.ledger.set(keys.seckill_stock(1), 100)  # a sale as it was before
    assert desk.looks(LOOKS).forgotten == 3
    assert desk.ledger.get(keys.CLOSED) == "books: 3 orders in MySQL are not held in the ledger"
    with pytest.raises(Behind):
        BooksComparison(desk.ledger, desk.pool).permit()


def test_what_somebody_else_closed_stays_closed(desk: Desk) -> None:
    books = BooksComparison(desk.ledger, desk.pool)
    books.revoke("rebuild: at work")
    assert not desk.looks(3 * LOOKS).permitted
    assert not lift(desk.ledger, "books: something else")
    assert desk.ledger.get(keys.CLOSED) == "rebuild: at work"


def test_doubt_is_looked_into_at_once_and_trouble_is_told(desk: Desk, monkeypatch: Any) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=desk.watch.run, args=(stop,))
    thread.start()
    try:
        desk.watch.doubt.set()
        until(lambda: desk.watch.total.looks == 1)

        def fails() -> None:
            raise Unavailable("no")

        monkeypatch.setattr(desk.watch, "look", fails)
        desk.watch.doubt.set()
        until(lambda: desk.watch.total.failures == 1)
        assert desk.figure("permitted") is None, "nothing is told that is not known"
    finally:
        stop.set()
        desk.watch.doubt.set()
        thread.join(5)


# Judging, purely ----------------------------------------------------------------------------------


def sale(offered: int = 10, left: int = 7, members: int = 3, receipts: int = 3) -> SaleCounts:
    return SaleCounts(offered, left, members, receipts)


@pytest.mark.parametrize(
    ("units", "owed", "on_their_way", "missing", "forgotten"),
    [
        (3, 0, 0, 0, 0),
        (1, 0, 2, 0, 0),
        (1, 0, 5, 0, 0),
        (1, 0, 1, 1, 0),
        (2, 1, 0, 0, 0),
        (5, 0, 0, 0, 2),
        (1, 0, None, None, 0),
    ],
)
def test_judged(
    units: int, owed: int, on_their_way: int | None, missing: int | None, forgotten: int
) -> None:
    found = judged({1: sale()}, {1: Sold(units, owed, 0, 1)}, on_their_way)
    assert (found.missing, found.forgotten) == (missing, forgotten)


def test_one_sale_does_not_make_up_for_another() -> None:
    found = judged({1: sale(), 2: sale()}, {1: Sold(5, 0, 0, 1), 2: Sold(1, 0, 0, 1)}, 0)
    assert (found.missing, found.forgotten) == (2, 2)


def test_entries_that_were_trimmed_unread_are_not_waited_for(desk: Desk) -> None:
    """Redis counts them in the group's lag for as long as the stream lives."""
    desk.sell(1, 2, 3)
    desk.ledger.xtrim(keys.STREAM_ORDERS, maxlen=0, approximate=False)
    assert read_group(desk.ledger).outstanding == 0
    assert desk.watch.requeue_missing() == 3
    assert read_group(desk.ledger).outstanding == 3
    desk.work()
    assert len(orders(desk.pool)) == 3
    assert read_group(desk.ledger).outstanding == 0
    assert desk.looks(1).missing == 0
