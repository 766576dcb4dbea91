"""A batch of orders to rows on a real MariaDB: each order in one list, each unit taken once."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.rows import add_order, add_sale, order_row, orders, position, units
from rig.until import until
from sqlalchemy import Engine, event, text

from flashsale.errors import Indeterminate
from flashsale.keys import Lane
from flashsale.model import ID_MAX
from flashsale.orders import persistence
from flashsale.orders.persistence import Persisted, persist
from flashsale.orders.stream import Order
from flashsale.storage.mysql import engine


def order(order_id: int, user_id: int, voucher_id: int = 1, seq: int | None = None) -> Order:
    entry_id = f"1767225600123-{order_id if seq is None else seq}"
    return Order(entry_id, order_id, user_id, voucher_id, 1767225600123)


def ids(found: Sequence[Order]) -> list[int]:
    return [one.order_id for one in found]


def accounted(result: Persisted, batch: Sequence[Order]) -> bool:
    """Every order of the batch is in exactly one list."""
    named = [*result.written, *result.repeated, *result.waiting, *(o for o, _ in result.rejected)]
    return sorted(map(id, named)) == sorted(map(id, batch))


def test_all_new(pool: Engine) -> None:
    add_sale(pool, 1, stock=10)
    add_sale(pool, 2, stock=10)
    batch = [order(1, 7), order(2, 8), order(3, 7, voucher_id=2)]
    result = persist(pool, batch)
    assert ids(result.written) == [1, 2, 3]
    assert accounted(result, batch)
    assert orders(pool) == {1: (7, 1), 2: (8, 1), 3: (7, 2)}
    assert (units(pool, 1), units(pool, 2)) == (8, 9)
    assert position(pool) == (1767225600123, 3)


def test_what_a_row_says(pool: Engine) -> None:
    add_sale(pool)
    before = datetime.now(UTC).replace(tzinfo=None)
    persist(pool, [Order("5-1", ID_MAX, ID_MAX - 1, 1, 1767225599999)])
    row = order_row(pool, ID_MAX)
    assert row.create_time == datetime(2025, 12, 31, 23, 59, 59, 999_000), "Redis' time, in UTC"
    assert abs(row.persisted_at - before) < timedelta(seconds=10), "MySQL's time, in UTC"
    assert (row.user_id, row.pay_type, row.status, row.live) == (ID_MAX - 1, 1, 1, 1)
    assert row.pay_time is row.use_time is row.refund_time is None


@pytest.mark.parametrize("ms", [1, 999, 1000, 253_402_300_799_999])
def test_any_moment_fits(pool: Engine, ms: int) -> None:
    add_sale(pool)
    assert ids(persist(pool, [Order("5-1", 1, 7, 1, ms)]).written) == [1]
    epoch = datetime(1970, 1, 1)
    assert order_row(pool, 1).create_time == epoch + timedelta(milliseconds=ms)


def test_a_repeated_batch_takes_its_units_once(pool: Engine) -> None:
    add_sale(pool, stock=10)
    batch = [order(1, 7), order(2, 8)]
    persist(pool, batch)
    result = persist(pool, batch)
    assert ids(result.repeated) == [1, 2]
    assert accounted(result, batch)
    assert units(pool) == 8


def test_a_mixed_batch(pool: Engine) -> None:
    add_sale(pool, stock=10)
    persist(pool, [order(2, 8)])
    batch = [order(1, 7), order(2, 8), order(3, 9)]
    result = persist(pool, batch)
    assert (ids(result.written), ids(result.repeated)) == ([1, 3], [2])
    assert accounted(result, batch)
    assert units(pool) == 7


def test_what_is_left_of_a_mixed_batch_goes_as_a_batch_again(
    pool: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that comes back after a crash has one batch half done, not 99 transactions."""
    add_sale(pool)
    persist(pool, [order(50, 50)])
    sizes: list[int] = []
    really_write = persistence.write

    def write(pool: Engine, batch: Sequence[Order], generation: int, lane: Lane) -> None:
        sizes.append(len(batch))
        really_write(pool, batch, generation, lane)

    monkeypatch.setattr(persistence, "write", write)
    result = persist(pool, [order(n, n) for n in range(1, 100)])
    assert (len(result.written), ids(result.repeated)) == (98, [50])
    assert sizes == [99, 98]


def test_a_repeated_order_that_was_cancelled_since_is_done(pool: Engine) -> None:
    add_sale(pool, stock=10)
    add_order(pool, order_id=1, user_id=7, status=4)
    assert ids(persist(pool, [order(1, 7)]).repeated) == [1]
    assert units(pool) == 10


def test_a_user_who_cancelled_buys_again(pool: Engine) -> None:
    add_sale(pool, stock=10)
    add_order(pool, order_id=1, user_id=7, status=4)
    assert ids(persist(pool, [order(2, 7)]).written) == [2]
    assert units(pool) == 9


def test_a_user_who_cancelled_buys_again_in_a_mixed_batch(pool: Engine) -> None:
    """The look at what MySQL knows must not take the cancelled order for a conflict."""
    add_sale(pool, stock=10)
    add_order(pool, order_id=1, user_id=7, status=4)
    add_order(pool, order_id=3, user_id=8)
    result = persist(pool, [order(2, 7), order(3, 8)])
    assert (ids(result.written), ids(result.repeated)) == ([2], [3])


def test_a_place_held_by_another_order_is_rejected_alone(pool: Engine) -> None:
    add_sale(pool, stock=10)
    add_order(pool, order_id=99, user_id=8)
    batch = [order(1, 7), order(2, 8), order(3, 9)]
    result = persist(pool, batch)
    ((rejected, reason),) = result.rejected
    assert (rejected.order_id, "99" in reason) == (2, True)
    assert ids(result.written) == [1, 3]
    assert accounted(result, batch)
    assert units(pool) == 8


def test_an_id_taken_by_another_user_is_rejected_alone(pool: Engine) -> None:
    add_sale(pool, stock=10)
    add_order(pool, order_id=2, user_id=99)
    batch = [order(1, 7), order(2, 8), order(3, 9)]
    result = persist(pool, batch)
    assert ids([rejected for rejected, _ in result.rejected]) == [2]
    assert ids(result.written) == [1, 3]
    assert orders(pool)[2] == (99, 1)


def test_two_orders_of_one_user_in_a_batch(pool: Engine) -> None:
    add_sale(pool, stock=10)
    batch = [order(1, 7), order(2, 7), order(3, 8)]
    result = persist(pool, batch)
    assert ids(result.written) == [1, 3]
    assert ids([rejected for rejected, _ in result.rejected]) == [2]
    assert accounted(result, batch)
    assert units(pool) == 8


def test_one_order_twice_in_a_batch(pool: Engine) -> None:
    add_sale(pool, stock=10)
    batch = [order(1, 7, seq=1), order(1, 7, seq=2), order(3, 8)]
    result = persist(pool, batch)
    assert (ids(result.written), ids(result.repeated)) == ([1, 3], [1])
    assert accounted(result, batch)
    assert units(pool) == 8


def test_short_stock_rejects_only_what_it_is_short_of(pool: Engine) -> None:
    add_sale(pool, 1, stock=2)
    add_sale(pool, 2, stock=5)
    batch = [order(1, 7), order(2, 8), order(3, 9), order(4, 7, voucher_id=2)]
    result = persist(pool, batch)
    assert ids(result.written) == [1, 2, 4]
    assert ids([rejected for rejected, _ in result.rejected]) == [3]
    assert (units(pool, 1), units(pool, 2)) == (0, 4)
    assert accounted(result, batch)


def test_a_voucher_that_mysql_does_not_know_is_rejected(pool: Engine) -> None:
    add_sale(pool, 1, stock=5)
    result = persist(pool, [order(1, 7), order(2, 8, voucher_id=404)])
    assert ids(result.written) == [1]
    assert ids([rejected for rejected, _ in result.rejected]) == [2]
    assert orders(pool) == {1: (7, 1)}, "no row without its unit"


def test_the_position_only_moves_forward(pool: Engine) -> None:
    add_sale(pool)
    for seconds, seq, newest in ((9, 5, (9, 5)), (9, 4, (9, 5)), (8, 99, (9, 5)), (10, 0, (10, 0))):
        number = seconds * 100 + seq
        persist(pool, [Order(f"{seconds}-{seq}", number, number, 1, 1000)])
        assert position(pool) == newest


def test_a_batch_is_whole_or_not_at_all(pool: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without their units would oversell, units without rows would undersell."""
    add_sale(pool, stock=1)
    with pytest.raises(persistence.ShortStock):
        persistence.write(pool, [order(1, 7), order(2, 8)])
    assert (orders(pool), units(pool), position(pool)) == ({}, 1, None)


# Trouble: what MySQL could not be asked waits -----------------------------------------------------


def test_without_mysql_everything_waits() -> None:
    nowhere = engine("mysql://u:p@127.0.0.1:1/d")
    batch = [order(1, 7), order(2, 8)]
    result = persist(nowhere, batch)
    assert ids(result.waiting) == [1, 2]
    assert "MySQL" in result.trouble
    nowhere.dispose()


def test_a_table_that_is_missing_is_no_verdict_on_an_order(blank_mysql_url: str) -> None:
    empty = engine(blank_mysql_url)
    result = persist(empty, [order(1, 7)])
    assert ids(result.waiting) == [1]
    empty.dispose()


@pytest.fixture
def impatient(mysql_url: str) -> Iterator[Engine]:
    """A pool that waits for a lock for one second."""
    pool = engine(mysql_url)

    @event.listens_for(pool, "connect")
    def _(connection: object, record: object) -> None:
        with connection.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute("SET innodb_lock_wait_timeout = 1")

    yield pool
    pool.dispose()


def test_a_lock_that_is_not_given_up_means_waiting(pool: Engine, impatient: Engine) -> None:
    add_sale(pool, stock=10)
    with pool.connect() as other:
        other.execute(text("SELECT stock FROM tb_seckill_voucher FOR UPDATE"))
        result = persist(impatient, [order(1, 7)])
        assert ids(result.waiting) == [1]
        assert "1205" in result.trouble
        other.rollback()
    assert orders(pool) == {}, "nothing of it was kept"
    assert ids(persist(impatient, [order(1, 7)]).written) == [1]
    assert units(pool) == 9


def test_a_deadlock_means_waiting(pool: Engine) -> None:
    add_sale(pool, stock=10)
    results: list[Persisted] = []
    with pool.connect() as other:
        # Heavier than the batch, so that InnoDB ends the batch and not this one.
        values = ",".join(f"({n},{n},2,NOW())" for n in range(1000, 1300))
        into = "INSERT INTO tb_voucher_order (id,user_id,voucher_id,create_time) VALUES "
        other.execute(text(into + values))
        other.execute(text("SELECT stock FROM tb_seckill_voucher FOR UPDATE"))
        writer = threading.Thread(target=lambda: results.append(persist(pool, [order(1, 7)])))
        writer.start()
        with pool.connect() as watcher:
            until(lambda: "UPDATE tb_seckill_voucher" in _running(watcher))
        other.execute(text(into + "(1,7,2,NOW())"))  # waits for the batch's row, and it for ours
        writer.join(10)
        other.rollback()
    (result,) = results
    assert ids(result.waiting) == [1]
    assert "1213" in result.trouble
    assert ids(persist(pool, [order(1, 7)]).written) == [1]


def _running(connection: object) -> str:
    found = connection.execute(text("SHOW PROCESSLIST"))  # type: ignore[attr-defined]
    return "\n".join(str(row.Info) for row in found)


def test_a_connection_killed_under_a_batch_means_waiting(pool: Engine) -> None:
    add_sale(pool, stock=10)
    results: list[Persisted] = []
    with pool.connect() as other, pool.connect() as watcher:
        other.execute(text("SELECT stock FROM tb_seckill_voucher FOR UPDATE"))
        writer = threading.Thread(target=lambda: results.append(persist(pool, [order(1, 7)])))
        writer.start()
        until(lambda: "UPDATE tb_seckill_voucher" in _running(watcher))
        for row in watcher.execute(text("SHOW PROCESSLIST")).all():
            if row.Info and row.Info.startswith("UPDATE tb_seckill_voucher"):
                watcher.execute(text(f"KILL {row.Id}"))
        writer.join(10)
        other.rollback()
    assert ids(results[0].waiting) == [1]
    assert ids(persist(pool, [order(1, 7)]).written) == [1]
    assert units(pool) == 9


def test_a_commit_whose_answer_was_lost_is_found_to_be_done(
    pool: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_sale(pool, stock=10)
    really_write = persistence.write

    def write_and_lose(pool: Engine, batch: Sequence[Order], generation: int, lane: Lane) -> None:
        really_write(pool, batch, generation, lane)
        raise Indeterminate("the answer to COMMIT was lost")

    monkeypatch.setattr(persistence, "write", write_and_lose)
    batch = [order(1, 7), order(2, 8)]
    assert ids(persist(pool, batch).waiting) == [1, 2]
    monkeypatch.setattr(persistence, "write", really_write)
    assert ids(persist(pool, batch).repeated) == [1, 2]
    assert units(pool) == 8


def test_trouble_halfway_keeps_what_was_found_out(
    pool: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, MySQL goes away at the third: the first two are done, the rest waits."""
    add_sale(pool, stock=2)
    really_write, calls = persistence.write, []

    def write(pool: Engine, batch: Sequence[Order], generation: int, lane: Lane) -> None:
        calls.append(len(batch))
        if len(calls) == 4:
            raise Indeterminate("gone")
        really_write(pool, batch, generation, lane)

    monkeypatch.setattr(persistence, "write", write)
    batch = [order(n, n) for n in range(1, 6)]
    result = persist(pool, batch)
    assert calls == [5, 1, 1, 1]
    assert (ids(result.written), ids(result.waiting)) == ([1, 2], [3, 4, 5])
    assert accounted(result, batch)


# Any batches at all -------------------------------------------------------------------------------


class Model:
    """The same promises, one order after another, in plain Python."""

    def __init__(self, stock: dict[int, int]) -> None:
        self.stock = stock
        self.rows: dict[int, tuple[int, int]] = {}

    def take(self, one: Order) -> str:
        place = (one.user_id, one.voucher_id)
        if self.rows.get(one.order_id) == place:
            return "repeated"
        held = place in self.rows.values()
        if one.order_id in self.rows or held or self.stock.get(one.voucher_id, 0) < 1:
            return "rejected"
        self.rows[one.order_id] = place
        self.stock[one.voucher_id] -= 1
        return "written"


ORDERS = st.builds(order, st.integers(1, 8), st.integers(1, 5), st.integers(1, 3))


@given(
    batches=st.lists(st.lists(ORDERS, min_size=1, max_size=7), min_size=1, max_size=4),
    stock=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
@settings(max_examples=30)
def test_batches_and_model_agree(
    pool: Engine, batches: list[list[Order]], stock: tuple[int, int]
) -> None:
    with pool.begin() as connection:
        for table in ("tb_voucher_order", "tb_seckill_voucher", "tb_stream_position"):
            connection.execute(text(f"DELETE FROM {table}"))
    add_sale(pool, 1, stock=stock[0])
    add_sale(pool, 2, stock=stock[1])
    model = Model(dict(enumerate(stock, start=1)))
    for batch in batches:
        wanted = [(one.order_id, model.take(one)) for one in batch]
        result = persist(pool, batch)
        assert not result.waiting
        found = [
            *((o.order_id, "written") for o in result.written),
            *((o.order_id, "repeated") for o in result.repeated),
            *((o.order_id, "rejected") for o, _ in result.rejected),
        ]
        assert sorted(found) == sorted(wanted)
        assert orders(pool) == model.rows
        assert {v: units(pool, v) for v in (1, 2)} == model.stock
