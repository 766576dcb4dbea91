"""The sweeper on real stores: unpaid orders time out, owed units go back, each once."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from redis import Redis
from rig.rows import add_sale, order_row, units
from rig.sale import claim, open_sale, stock
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.model import PayStatus
from flashsale.orders.process import make_sweeper
from flashsale.orders.sweeper import Sweeper
from flashsale.seckill.ids import EPOCH_S
from flashsale.settings import LifecycleSettings, StoreSettings
from flashsale.storage.roles import Confirmation, sync_client

HOUR_S = 3_600


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class Time:
    """The sweeper's own clock, by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sweeper(
    pool: Engine,
    ledger: Redis,
    now_s: Time | None = None,
    *,
    claim_timeout_ms: int = 0,
    confirmation: Confirmation | None = None,
    **settings: Any,
) -> Sweeper:
    return Sweeper(
        pool,
        ledger,
        LifecycleSettings(**settings),
        claim_timeout_ms=claim_timeout_ms,
        now_s=now_s or Time(),
        confirmation=confirmation,
    )


def order_id(age_s: float, number: int) -> int:
    """An id as an order of that age has it."""
    return (int(datetime.now(UTC).timestamp() - age_s) - EPOCH_S) << 32 | number


def add(pool: Engine, ledger: Redis, age_s: float, *users: int, status: int = 1) -> list[int]:
    """Orders of that age, one a user, in both stores."""
    ids = [order_id(age_s, user) for user in users]
    answers = claim(ledger, *zip(users, ids, strict=True))
    assert [code for code, _ in answers] == [0] * len(users)
    statement = (
        "INSERT INTO tb_voucher_order (id, user_id, voucher_id, status, create_time) "
        "VALUES (:id, :user, 1, :status, UTC_TIMESTAMP(3) - INTERVAL :age SECOND)"
    )
    with pool.begin() as connection:
        for user, order in zip(users, ids, strict=True):
            values = {"id": order, "user": user, "status": status, "age": age_s}
            connection.execute(text(statement), values)
        connection.execute(
            text("UPDATE tb_seckill_voucher SET stock = stock - :n"), {"n": len(users)}
        )
    return ids


@pytest.fixture(autouse=True)
def _sale(ledger: Redis, pool: Engine) -> None:
    open_sale(ledger, units=100)
    add_sale(pool, stock=100)


def owed(pool: Engine) -> int:
    with pool.connect() as connection:
        return int(connection.execute(text("SELECT COUNT(*) FROM tb_order_return")).scalar_one())


def statuses(pool: Engine, ids: list[int]) -> set[int]:
    return {order_row(pool, order).status for order in ids}


def test_the_unpaid_time_out_and_nobody_else(ledger: Redis, pool: Engine) -> None:
    old = add(pool, ledger, HOUR_S, 1, 2, 3)
    paid = add(pool, ledger, HOUR_S, 4, status=PayStatus.PAID)
    young = add(pool, ledger, 1_700, 5)
    sweep = sweeper(pool, ledger)
    swept = sweep.run_once()
    assert (swept.timed_out, swept.returned) == (3, 3)
    assert statuses(pool, old) == {PayStatus.CANCELLED}
    assert statuses(pool, paid) == {PayStatus.PAID}
    assert statuses(pool, young) == {PayStatus.UNPAID}
    assert (units(pool), stock(ledger), owed(pool)) == (98, 98, 0)
    assert ledger.smembers(keys.seckill_order(1)) == {"4", "5"}
    swept = sweep.run_once()
    assert (swept.timed_out, swept.returned) == (0, 0)


def test_many_go_in_steps(ledger: Redis, pool: Engine) -> None:
    old = add(pool, ledger, HOUR_S, *range(1, 24))
    swept = sweeper(pool, ledger, sweep_rows_max=5).run_once()
    assert (swept.timed_out, swept.returned) == (23, 23)
    assert statuses(pool, old) == {PayStatus.CANCELLED}
    assert (units(pool), stock(ledger)) == (100, 100)


def test_a_row_that_came_late_is_found_by_the_next_full_look(ledger: Redis, pool: Engine) -> None:
    clock = Time()
    sweep = sweeper(pool, ledger, clock, rescan_interval_s=60)
    add(pool, ledger, HOUR_S, 1)
    assert sweep.run_once().timed_out == 1
    late = add(pool, ledger, 2 * HOUR_S, 2)
    assert sweep.run_once().timed_out == 0, "it has passed that place"
    clock.now = 61
    assert sweep.run_once().timed_out == 1
    assert statuses(pool, late) == {PayStatus.CANCELLED}


def test_no_order_times_out_while_its_claim_may_be_under_way(ledger: Redis, pool: Engine) -> None:
    add(pool, ledger, 30, 1)
    assert (
        sweeper(pool, ledger, unpaid_timeout_s=1, claim_timeout_ms=60_000).run_once().timed_out == 0
    )
    assert (
        sweeper(pool, ledger, unpaid_timeout_s=1, claim_timeout_ms=2_000).run_once().timed_out == 1
    )


def test_several_sweepers_do_it_once(ledger: Redis, pool: Engine, ledger_url: str) -> None:
    add(pool, ledger, HOUR_S, *range(1, 61))
    found: list[int] = []

    def sweep() -> None:
        with sync_client(ledger_url) as own:
            found.append(sweeper(pool, own, sweep_rows_max=7).run_once().timed_out)

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sync_client(ledger_url) as own:  # what one had locked another has passed by
        found.append(sweeper(pool, own).run_once().timed_out)
    assert sum(found) == 60
    assert (units(pool), stock(ledger), owed(pool)) == (100, 100, 0)


def test_what_the_ledger_refuses_stays_owed(ledger: Redis, pool: Engine) -> None:
    add(pool, ledger, HOUR_S, 1, 2)
    left = ledger.getdel(keys.seckill_stock(1))
    sweep = sweeper(pool, ledger)
    swept = sweep.run_once()
    assert (swept.timed_out, swept.returned, owed(pool)) == (2, 0, 2)
    ledger.set(keys.seckill_stock(1), left)  # type: ignore[arg-type]
    assert sweep.run_once().returned == 2
    assert (stock(ledger), owed(pool)) == (100, 0)
    assert (sweep.total.timed_out, sweep.total.returned) == (2, 2)


def test_what_no_replica_has_stays_owed_and_is_returned_once(ledger: Redis, pool: Engine) -> None:
    def asking(replicas: int) -> Sweeper:
        return sweeper(pool, ledger, confirmation=Confirmation(replicas, 50))

    add(pool, ledger, HOUR_S, 1, 2)
    for _ in range(2):
        assert asking(1).run_once().returned == 0
        assert (stock(ledger), owed(pool)) == (100, 2)
    assert asking(0).run_once().returned == 2
    assert (stock(ledger), owed(pool)) == (100, 0)


def test_trouble_is_for_the_next_round(pool: Engine) -> None:
    stop = threading.Event()

    class Away:
        calls = 0

        def time(self) -> tuple[int, int]:
            from redis.exceptions import ConnectionError as Lost

            Away.calls += 1
            if Away.calls == 3:
                stop.set()
            raise Lost("away")

    sweep = sweeper(pool, Away(), sweep_interval_s=0.001)  # type: ignore[arg-type]
    sweep.run(stop)
    assert sweep.total.failures == 3


def test_a_worker_makes_one(ledger_url: str, cache_url: str, mysql_url: str) -> None:
    stores = StoreSettings(ledger_url=ledger_url, cache_url=cache_url, mysql_url=mysql_url)
    made = make_sweeper(stores)
    assert made.run_once().timed_out == 0
    made.pool.dispose()
    made._ledgers.close()
