"""What the tables and transactions promise on a real MariaDB, whoever writes to them."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from rig.rows import add_order, add_sale, order_row, orders, units
from sqlalchemy import Engine, text

from flashsale.errors import Indeterminate, Unavailable
from flashsale.model import LIVE_STATUSES
from flashsale.storage.mysql import Database, Duplicate, engine, transaction
from flashsale.storage.tables import create_all

INSERT = "INSERT INTO tb_voucher_order (id, user_id, voucher_id, status, create_time) VALUES "


def write(pool: Engine, statement: str) -> None:
    with transaction(pool) as connection:
        connection.execute(text(statement))


def test_stock_never_falls_below_zero(pool: Engine) -> None:
    add_sale(pool, stock=1)
    with pytest.raises(Unavailable):
        write(pool, "UPDATE tb_seckill_voucher SET stock = stock - 2")
    assert units(pool) == 1


@pytest.mark.parametrize("status", [1, 2, 3, 4, 5, 6])
def test_a_live_order_holds_its_users_one_place(pool: Engine, status: int) -> None:
    add_order(pool, order_id=1, user_id=7, status=status)
    again = INSERT + "(2, 7, 1, 1, NOW())"
    if status in LIVE_STATUSES:
        with pytest.raises(Duplicate):
            write(pool, again)
    else:
        write(pool, again)
    assert order_row(pool, 1).live == (1 if status in LIVE_STATUSES else None)


def test_cancelling_frees_the_place_and_reviving_cannot_take_it_back(pool: Engine) -> None:
    add_order(pool, order_id=1, user_id=7)
    write(pool, "UPDATE tb_voucher_order SET status = 4 WHERE id = 1")
    add_order(pool, order_id=2, user_id=7)
    with pytest.raises(Duplicate):
        write(pool, "UPDATE tb_voucher_order SET status = 1 WHERE id = 1")


def test_an_id_is_taken_once(pool: Engine) -> None:
    add_order(pool, order_id=1, user_id=7)
    with pytest.raises(Duplicate):
        write(pool, INSERT + "(1, 8, 1, 1, NOW())")


def test_creating_what_is_there_changes_nothing(pool: Engine) -> None:
    add_order(pool, order_id=1, user_id=7)
    create_all(pool)
    assert orders(pool) == {1: (7, 1)}


def test_creating_without_mysql_is_unavailable() -> None:
    nowhere = engine("mysql://u:p@127.0.0.1:1/d")
    with pytest.raises(Unavailable):
        create_all(nowhere)
    nowhere.dispose()


def test_an_error_rolls_everything_back(pool: Engine) -> None:
    add_order(pool, order_id=1, user_id=7)

    def both() -> None:
        with transaction(pool) as connection:
            connection.execute(text(INSERT + "(2, 8, 1, 1, NOW())"))
            connection.execute(text(INSERT + "(1, 9, 1, 1, NOW())"))

    with pytest.raises(Duplicate):
        both()
    assert orders(pool) == {1: (7, 1)}


def test_times_are_utc_and_reads_are_committed(pool: Engine) -> None:
    with transaction(pool) as connection:
        now = connection.execute(text("SELECT NOW(3)")).scalar_one()
        level = connection.execute(text("SELECT @@tx_isolation")).scalar_one()
    assert abs(now - datetime.now(UTC).replace(tzinfo=None)) < timedelta(seconds=10)
    assert level == "READ-COMMITTED"


def test_a_connection_the_server_closed_meanwhile_heals(pool: Engine) -> None:
    with transaction(pool) as connection:
        number = connection.execute(text("SELECT CONNECTION_ID()")).scalar_one()
    other = engine(str(pool.url.render_as_string(hide_password=False)))
    write(other, f"KILL {number}")
    other.dispose()
    with transaction(pool) as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_connection_lost_under_a_statement_is_indeterminate(pool: Engine) -> None:
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            write(pool, "DO SLEEP(20)")
        except (Indeterminate, Unavailable) as trouble:
            seen.append(trouble)

    with pool.connect() as watcher:
        sleeper = threading.Thread(target=wait)
        sleeper.start()
        number = None
        while number is None:
            for row in watcher.execute(text("SHOW PROCESSLIST")).all():
                if row.Info and row.Info.startswith("DO SLEEP"):
                    number = row.Id
        watcher.execute(text(f"KILL {number}"))
        sleeper.join(10)
    assert [type(trouble) for trouble in seen] == [Indeterminate]


def test_a_pool_that_is_spent_is_unavailable(mysql_url: str) -> None:
    narrow = engine(mysql_url, kept=1, at_most=1, wait_s=0.05)
    with narrow.connect(), pytest.raises(Unavailable, match="no MySQL connection was free"):
        write(narrow, "DO 1")
    narrow.dispose()


@pytest.mark.anyio
async def test_transactions_beside_the_loop_are_bounded(pool: Engine) -> None:
    database = Database(pool, threads_max=3)
    inside, most = [0], [0]
    lock, three = threading.Lock(), threading.Barrier(3)

    def work(connection: object) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        three.wait(20)
        connection.execute(text("DO SLEEP(0.005)"))  # type: ignore[attr-defined]
        with lock:
            inside[0] -= 1

    await asyncio.gather(*(database.run(work) for _ in range(12)))
    assert most[0] == 3
    with pytest.raises(Duplicate):
        await database.run(
            lambda connection: connection.execute(
                text(INSERT + "(1, 8, 1, 1, NOW()), (1, 9, 1, 1, NOW())")
            )
        )
    database.close()
