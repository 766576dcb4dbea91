"""The end of a sale: what is under way is waited for, books are compared, the stream trimmed."""

import threading
from collections.abc import Iterator

import pytest
import structlog
from redis import Redis
from rig.rows import add_sale
from rig.sale import claim, open_sale
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.locks.batch import BatchLocks
from flashsale.orders.closing import close_books, compare_books, unwritten
from flashsale.orders.stream import OrderStream
from flashsale.orders.worker import Worker
from flashsale.settings import WorkerSettings


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def worker(ledger: Redis, cache: Redis, pool: Engine) -> Worker:
    """Two sales of 10 units in both stores, and who writes their orders."""
    for voucher in (1, 2):
        open_sale(ledger, voucher, units=10)
        add_sale(pool, voucher, stock=10)
    ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
    locks = BatchLocks(cache, "c1", lease_ms=30_000, renew_ms=10_000)
    return Worker(OrderStream(ledger, "c1"), pool, locks, WorkerSettings(block_ms=1, linger_ms=0))


def test_an_end_in_order(ledger: Redis, pool: Engine, worker: Worker) -> None:
    claim(ledger, *((n, n) for n in range(1, 7)))
    worker.run_once()
    closing = close_books(ledger, pool, 1, patience_s=0)
    assert (closing.offered, closing.held, closing.left) == (10, 6, 0)
    assert not closing.problems
    assert closing.trimmed == 5, "all but the last, at which the group stands"
    assert close_books(ledger, pool, 1, patience_s=0).trimmed == 0


def test_what_is_under_way_is_waited_for(ledger: Redis, pool: Engine, worker: Worker) -> None:
    claim(ledger, (7, 70), (8, 80))
    claim(ledger, (7, 71), voucher_id=2)
    assert unwritten(ledger, 1) == 2
    OrderStream(ledger, "c1").fresh(1, 1)
    assert unwritten(ledger, 1) == 2, "one of them pending"
    looks: list[int] = []
    thread = threading.Thread(target=worker.run_once)

    def on_look(left: int) -> None:
        if not looks:
            thread.start()
        looks.append(left)

    closing = close_books(ledger, pool, 1, patience_s=30, on_look=on_look)
    thread.join()
    assert looks[0] == 2
    assert looks[-1] == 0
    assert (closing.left, closing.problems) == (0, ())


def test_what_nobody_writes_is_told_and_nothing_is_trimmed(
    ledger: Redis, pool: Engine, worker: Worker
) -> None:
    claim(ledger, (7, 70))
    closing = close_books(ledger, pool, 1, patience_s=0)
    assert (closing.left, closing.trimmed) == (1, 0)
    assert close_books(ledger, pool, 2, patience_s=0).left == 0, "another sale's"
    assert ledger.xlen(keys.STREAM_ORDERS) == 1


def test_a_unit_that_is_owed_is_under_way(ledger: Redis, pool: Engine, worker: Worker) -> None:
    statement = "INSERT INTO tb_order_return (order_id, user_id, voucher_id) VALUES (1, 7, 1)"
    with pool.begin() as connection:
        connection.execute(text(statement))
    assert close_books(ledger, pool, 1, patience_s=0).left == 1


SPOILT = {
    "the ledger has lost the sale": lambda ledger, sql: ledger.delete(keys.seckill_stock(1)),
    "in the ledger 7 left + 2 held = 9, but 10 offered": lambda ledger, sql: ledger.decr(
        keys.seckill_stock(1)
    ),
    "in MySQL 3 units are gone from the stock, but 2 orders are live": lambda ledger, sql: sql(
        "UPDATE tb_seckill_voucher SET stock = stock - 1 WHERE voucher_id = 1"
    ),
    "11 units offered in the ledger, 10 in MySQL": lambda ledger, sql: ledger.hincrby(
        keys.seckill_sale(1), "initial", 1
    ),
    "2 in the order set, 1 receipts, 2 live orders": lambda ledger, sql: ledger.hdel(
        keys.seckill_receipt(1), "7"
    ),
    "order 99 of user 7 has a receipt and no live row": lambda ledger, sql: ledger.hset(
        keys.seckill_receipt(1), "7", "99"
    ),
    "1 dead letters": lambda ledger, sql: ledger.xadd(
        keys.STREAM_DEAD, {"entry": "1-1", "reason": "x", "voucherId": "1"}
    ),
}


@pytest.mark.parametrize("problem", SPOILT)
def test_books_that_disagree_are_told_and_nothing_is_trimmed(
    ledger: Redis, pool: Engine, worker: Worker, problem: str
) -> None:
    claim(ledger, (7, 70), (8, 80))
    worker.run_once()
    assert not list(compare_books(ledger, pool, 1))

    def sql(statement: str) -> None:
        with pool.begin() as connection:
            connection.execute(text(statement))

    SPOILT[problem](ledger, sql)
    assert any(problem in told for told in compare_books(ledger, pool, 1))
    assert ledger.xlen(keys.STREAM_ORDERS) == 2
