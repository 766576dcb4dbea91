"""Rebuilding on real stores: whatever was lost, the books are whole again; cut short is safe."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from redis import Redis
from rig.killed import each_kill, killed
from rig.rows import add_sale, generation, marks, order_row, orders, units
from rig.sale import HOUR_MS, claim, everything, now_ms, open_sale, stock
from sqlalchemy import Engine, Table, delete, insert, select, text

from flashsale import keys
from flashsale.campaign.rebuilding import acknowledged_and_gone, differences, finish_changes
from flashsale.errors import Indeterminate, Unavailable, UsageError, ViolationError
from flashsale.failpoints import armed
from flashsale.orders.books import Look, read_uneven
from flashsale.orders.persistence import persist
from flashsale.orders.stream import OrderStream
from flashsale.orders.watch import BooksWatch
from flashsale.seckill import rebuild as rebuild_module
from flashsale.seckill import survey as survey_module
from flashsale.seckill.control import SaleControl, read_units
from flashsale.seckill.ids import EPOCH_S, day_of
from flashsale.seckill.permit import Behind, BooksComparison
from flashsale.seckill.queue import read_queue
from flashsale.seckill.rebuild import CLOSED_FOR_REBUILD, Rebuild, alone
from flashsale.seckill.sale import KINDS, kinds_of, read_terms
from flashsale.seckill.survey import survey
from flashsale.storage.tables import (
    journal,
    order_return,
    seckill_voucher,
    stream_position,
    voucher_order,
)

UNITS = 30
BEGIN_MS, END_MS = now_ms() - HOUR_MS, now_ms() + HOUR_MS
BASE = (BEGIN_MS // 1000 + 60 - EPOCH_S) << 32


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class Shop:
    """Two sales, half sold: rows, a backlog, one order cancelled and one set aside."""

    def __init__(self, ledger: Redis, pool: Engine) -> None:
        self.ledger, self.pool = ledger, pool
        self.books = BooksComparison(ledger, pool)
        for voucher in (1, 2):
            open_sale(ledger, voucher, units=UNITS)
            window = {"begin": BEGIN_MS, "end": END_MS}
            ledger.hset(keys.seckill_sale(voucher), mapping=window)  # type: ignore[arg-type]
            add_sale(pool, voucher, stock=UNITS, begin=_stamp(BEGIN_MS), end=_stamp(END_MS))
        ledger.set(keys.order_counter(day_of(BASE >> 32)), 50_000)
        self.stream = OrderStream(ledger, "c1")
        self.stream.ensure_group()
        self.books.permit()

    def sell(self, voucher: int, *users: int) -> list[int]:
        ids = [BASE + 1000 * voucher + user for user in users]
        answers = claim(self.ledger, *zip(users, ids, strict=True), voucher_id=voucher)
        assert {code for code, _ in answers} <= {0}
        return ids

    def work(self, count: int = 1000) -> None:
        """What a worker does with all that it is given."""
        entries: Any = [*self.stream.pending("0", count), *self.stream.fresh(count, 1)]
        if entries:
            result = persist(self.pool, entries, generation(self.pool))
            assert not result.waiting
            assert not result.rejected
            self.stream.acknowledge([order.entry_id for order in result.done])

    def half_sold(self) -> None:
        self.sell(1, *range(1, 11))
        self.sell(2, *range(1, 6))
        self.work()
        self.cancel(3)
        self.sell(1, *range(11, 16))  # accepted, and no rows yet

    def cancel(self, user: int) -> None:
        """User's order of voucher 1, in MySQL and in the ledger."""
        self.sql(
            f"UPDATE tb_voucher_order SET status = 4 WHERE voucher_id = 1 AND user_id = {user}",
            "UPDATE tb_seckill_voucher SET stock = stock + 1 WHERE voucher_id = 1",
        )
        self.ledger.hdel(keys.seckill_receipt(1), str(user))
        self.ledger.srem(keys.seckill_order(1), str(user))
        self.ledger.incr(keys.seckill_stock(1))

    def sql(self, *statements: str) -> None:
        with self.pool.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def receipts(self, voucher: int = 1) -> dict[str, str]:
        return self.ledger.hgetall(keys.seckill_receipt(voucher))  # type: ignore[return-value]

    def check_whole(self, held: int = 14) -> None:
        """Everything that a whole ledger is, after the workers have done their work."""
        assert not survey(self.books).is_needed
        self.work()
        for voucher, count in ((1, held), (2, 5)):
            receipts = self.receipts(voucher)
            assert len(receipts) == count
            assert self.ledger.smembers(keys.seckill_order(voucher)) == set(receipts)
            assert stock(self.ledger, voucher) == UNITS - count
            live = {
                (str(user), str(order))
                for order, (user, of) in orders(self.pool).items()
                if of == voucher and order_row(self.pool, order).live
            }
            assert live == set(receipts.items())
        with self.pool.connect() as connection:
            assert read_uneven(connection) == []
        watch = BooksWatch(self.books, interval_s=1, claim_timeout_ms=2_000)
        found = watch.look()
        assert found == Look(permitted=True)
        assert claim(self.ledger, (100, BASE + 9_100)) == [(0, str(BASE + 9_100))]


def _stamp(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


@pytest.fixture
def shop(ledger: Redis, pool: Engine) -> Shop:
    shop = Shop(ledger, pool)
    shop.half_sold()
    return shop


def test_a_whole_ledger_is_left_as_it_is(shop: Shop) -> None:
    before = everything(shop.ledger)
    found = survey(shop.books)
    assert not found.is_needed
    assert everything(shop.ledger) == before
    permit = shop.books.permit()
    done = Rebuild(shop.books).apply()
    assert (done.rounds, done.requeued) == (1, 0)
    assert done.permit not in ("", permit)
    shop.check_whole()


# What was lost ------------------------------------------------------------------------------------


def deleted(*names: str) -> Callable[[Shop], object]:
    return lambda shop: shop.ledger.delete(*names)


def read_and_deleted(shop: Shop) -> None:
    """Entries that a worker was given go from under it."""
    shop.stream.fresh(10, 1)
    entries: Any = shop.ledger.xrange(keys.STREAM_ORDERS)
    shop.ledger.xdel(keys.STREAM_ORDERS, *[entry for entry, _ in entries])
    shop.stream.take_over(0, 100)  # and Redis lets go of them


def spent(shop: Shop) -> None:
    """Somebody writes the stream's last possible entry."""
    last = 2**64 - 1
    shop.ledger.xadd(keys.STREAM_ORDERS, {"x": "1"}, id=f"{last}-{last}")


def other_state(shop: Shop) -> None:
    shop.ledger.hset(keys.seckill_sale(1), mapping={"initial": 99, "end": 5})


def of_another_type(name: str) -> Callable[[Shop], object]:
    def replaced(shop: Shop) -> None:
        shop.ledger.delete(name)
        shop.ledger.zadd(name, {"x": 1})

    return replaced


def said(*statements: str) -> Callable[[Shop], object]:
    """Somebody says so to MySQL, by hand."""
    return lambda shop: shop.sql(*statements)


RESTORED: dict[str, Callable[[Shop], object]] = {
    "stock": deleted(keys.seckill_stock(1)),
    "sale": deleted(keys.seckill_sale(1)),
    "set": deleted(keys.seckill_order(1)),
    "receipts of rows": lambda shop: shop.ledger.hdel(keys.seckill_receipt(1), "1", "2"),
    "receipts of the backlog": lambda shop: shop.ledger.hdel(keys.seckill_receipt(1), "11", "15"),
    "receipts": deleted(keys.seckill_receipt(1)),
    "all of a sale but its receipts": deleted(
        keys.seckill_stock(1), keys.seckill_sale(1), keys.seckill_order(1), keys.LOADED_SALES
    ),
    "backlog": lambda shop: shop.ledger.xtrim(keys.STREAM_ORDERS, maxlen=0, approximate=False),
    "pending entries": read_and_deleted,
    "stream": deleted(keys.STREAM_ORDERS),
    "group": lambda shop: shop.ledger.xgroup_destroy(keys.STREAM_ORDERS, keys.GROUP),
    "epoch": deleted(keys.EPOCH),
    "stream's ids": spent,
    "terms": other_state,
    "a wrong stock": lambda shop: shop.ledger.set(keys.seckill_stock(1), 30),
    "a stock that Redis does not count with": lambda shop: shop.ledger.set(
        keys.seckill_stock(1), "016"
    ),
    "a state that is none": lambda shop: shop.ledger.hset(keys.seckill_sale(1), "state", "opne"),
    "a fence that is no number": lambda shop: shop.ledger.set(keys.LOCK_FENCE, "x"),
    "a row": said("DELETE FROM tb_voucher_order WHERE user_id = 1 AND voucher_id = 1"),
    "all rows": said("DELETE FROM tb_voucher_order"),
    "a row and its unit": said(
        "DELETE FROM tb_voucher_order WHERE user_id = 1 AND voucher_id = 1",
        "UPDATE tb_seckill_voucher SET stock = stock + 1 WHERE voucher_id = 1",
    ),
    "a sale of MySQL": said("DELETE FROM tb_seckill_voucher WHERE voucher_id = 1"),
    "units of MySQL": said("UPDATE tb_seckill_voucher SET stock = 0"),
    "more units of MySQL": said("UPDATE tb_seckill_voucher SET stock = stock + 5"),
    **{
        f"the type of {name}": of_another_type(name)
        for name in (*KINDS, *kinds_of([1]), keys.order_counter(day_of(BASE >> 32)))
        if name != keys.STREAM_ORDERS  # what was in it and had no receipt yet is gone with it
    },
    "strangers": lambda shop: [
        shop.ledger.hset(keys.seckill_receipt(1), mapping={"x": "y", "007": "8"}),
        shop.ledger.sadd(keys.seckill_order(1), "x", "007", "88"),
    ],
}


@pytest.mark.parametrize("lose", RESTORED.values(), ids=RESTORED.keys())
def test_what_was_lost_is_restored(shop: Shop, lose: Callable[[Shop], object]) -> None:
    lose(shop)
    before = everything(shop.ledger)
    found = survey(shop.books)
    assert found.is_needed
    assert everything(shop.ledger) == before, "a look changes nothing"
    Rebuild(shop.books).apply()
    shop.check_whole()


def test_what_hand_work_made_of_a_row_counts(shop: Shop) -> None:
    """Of user 1 the row is another user's, of 2 another sale's, of 4 it is cancelled."""
    shop.sql(
        "UPDATE tb_voucher_order SET user_id = 90 WHERE user_id = 1 AND voucher_id = 1",
        "UPDATE tb_voucher_order SET user_id = 91, voucher_id = 2 "
        "WHERE user_id = 2 AND voucher_id = 1",
        "UPDATE tb_voucher_order SET status = 4 WHERE user_id = 4 AND voucher_id = 1",
    )
    found = survey(shop.books)
    assert [repair.units for repair in found.repairs] == [UNITS - 7, UNITS - 6]
    Rebuild(shop.books).apply()
    shop.work()
    assert not survey(shop.books).is_needed
    assert {"90"} <= shop.receipts().keys()
    assert not {"1", "2", "4"} & shop.receipts().keys()
    assert "91" in shop.receipts(2)
    assert (stock(shop.ledger, 1), stock(shop.ledger, 2)) == (UNITS - 12, UNITS - 6)
    assert (units(shop.pool, 1), units(shop.pool, 2)) == (UNITS - 12, UNITS - 6)


@pytest.fixture
def without_unique_key(pool: Engine) -> Iterator[None]:
    """Nothing keeps a second live row of a user out, until the test has ended."""
    name = "uk_live_order"
    with pool.begin() as connection:
        connection.execute(text(f"ALTER TABLE tb_voucher_order DROP INDEX {name}"))
    yield
    with pool.begin() as connection:
        connection.execute(text("DELETE FROM tb_voucher_order"))
        of = "(user_id, voucher_id, live)"
        connection.execute(text(f"ALTER TABLE tb_voucher_order ADD UNIQUE KEY {name} {of}"))


@pytest.mark.usefixtures("without_unique_key")
def test_a_users_second_live_row_is_told_and_takes_no_receipt(shop: Shop) -> None:
    """The order that its user was told of stays theirs, and no rebuild makes the other go."""
    shop.work()
    before = shop.receipts()
    second = "INSERT INTO tb_voucher_order (id, user_id, voucher_id, create_time) SELECT "
    of = "user_id, voucher_id, create_time FROM tb_voucher_order WHERE voucher_id = 1 AND user_id"
    shop.sql(f"{second} id + 500, {of} IN (1, 2)", f"{second} id - 500, {of} = 4")
    Rebuild(shop.books).apply()
    assert shop.receipts() == before
    found = survey(shop.books)
    assert not found.is_needed
    assert [(sale.terms.voucher_id, sale.doubled) for sale in found.broken] == [(1, 3)]
    assert [d[:2] for d in differences(found)] == [
        ("sale 1", "3 live rows are of users who have another one")
    ]


def test_units_sold_twice_are_told_by_every_look_at_them(shop: Shop) -> None:
    shop.work()
    shop.sql("UPDATE tb_seckill_voucher SET initial_stock = 11 WHERE voucher_id = 1")
    Rebuild(shop.books).apply()
    found = survey(shop.books)
    assert not found.is_needed, "no rebuild makes them go"
    assert [(sale.terms.voucher_id, sale.oversold) for sale in found.broken] == [(1, 3)]
    assert [d[:2] for d in differences(found)] == [
        ("sale 1", "3 units are sold that there are not")
    ]


# MySQL came back older ----------------------------------------------------------------------------

_RESTORED_TABLES = (voucher_order, seckill_voucher, stream_position, order_return, journal)


def dumped(pool: Engine) -> dict[Table, list[dict[str, Any]]]:
    with pool.connect() as connection:
        return {
            table: [
                {name: value for name, value in row._mapping.items() if name != "live"}
                for row in connection.execute(select(table))
            ]
            for table in _RESTORED_TABLES
        }


def put_back(pool: Engine, dump: dict[Table, list[dict[str, Any]]]) -> None:
    with pool.begin() as connection:
        for table, rows in dump.items():
            connection.execute(delete(table))
            if rows:
                connection.execute(insert(table), rows)


def test_an_older_mysql_is_told_of_what_it_forgot_by_the_receipts(shop: Shop) -> None:
    shop.work()
    dump = dumped(shop.pool)
    shop.sell(1, 20, 21)
    shop.work()
    put_back(shop.pool, dump)
    watch = BooksWatch(shop.books, interval_s=1, claim_timeout_ms=2_000)
    assert watch.run_once().missing == 2
    watch.run_once()
    assert watch.total.requeued == 2
    shop.check_whole(held=16)


def test_of_an_older_mysql_an_order_that_was_cancelled_since_holds_its_unit_again(
    shop: Shop,
) -> None:
    shop.work()
    dump = dumped(shop.pool)
    shop.cancel(5)
    shop.sell(1, 20)
    shop.work()
    put_back(shop.pool, dump)
    Rebuild(shop.books).apply()
    assert "5" in shop.receipts()
    shop.check_whole(held=15)


def test_a_change_of_a_sale_that_an_older_mysql_forgot_does_not_stand_in_its_way(
    shop: Shop,
) -> None:
    shop.work()
    control = SaleControl(shop.pool, shop.ledger, "ann")
    control.restock(1, 1)
    dump = dumped(shop.pool)
    for _ in range(3):
        control.restock(1, 1)
    put_back(shop.pool, dump)
    shop.sql("ALTER TABLE tb_journal AUTO_INCREMENT = 3")
    with pytest.raises(ViolationError, match="`flashsale rebuild --apply` makes"):
        control.restock(1, 1)
    finish_changes(shop.pool, shop.ledger)
    Rebuild(shop.books).apply()
    finish_changes(shop.pool, shop.ledger)
    assert not control.unfinished()
    control.restock(1, 1)
    (sale, _), (terms, _) = read_units(shop.ledger, [1, 2]), read_terms(shop.pool)
    assert (sale.offered, sale.imbalance) == (terms.initial, "")
    assert terms.initial == UNITS + 3
    assert not survey(shop.books).is_needed


def test_of_a_flushed_ledger_all_is_restored_but_what_mysql_never_knew(shop: Shop) -> None:
    last, entries = marks(shop.pool)[keys.STREAM_ORDERS], shop.ledger.xlen(keys.STREAM_ORDERS)
    acknowledged = [int(order) for order in shop.receipts().values()]
    shop.ledger.flushall()
    found = survey(shop.books)
    assert [reason.what for reason in found.reasons] == ["epoch", "stream", "counter"]
    gone = acknowledged_and_gone(shop.books, acknowledged, found)
    assert gone == [BASE + 1000 + user for user in range(11, 16)]
    Rebuild(shop.books).apply()
    shop.stream.ensure_group()
    assert entries > 0 == shop.ledger.xlen(keys.STREAM_ORDERS)
    shop.check_whole(held=9)
    info: Any = shop.ledger.xinfo_stream(keys.STREAM_ORDERS)
    ms, _, seq = info["last-generated-id"].partition("-")
    assert (int(ms), int(seq)) > last, "what is sold from now on is not behind"


def test_an_older_ledger_learns_what_happened_since(shop: Shop) -> None:
    """User 5 held an order then, and has cancelled it; 20 and 21 have bought since."""
    shop.sell(1, 20, 21)
    shop.work()
    shop.cancel(5)
    shop.ledger.hset(keys.seckill_receipt(1), "5", BASE + 1005)
    shop.ledger.sadd(keys.seckill_order(1), "5")
    shop.ledger.hdel(keys.seckill_receipt(1), "20", "21")
    shop.ledger.srem(keys.seckill_order(1), "20", "21")
    shop.ledger.set(keys.seckill_stock(1), UNITS - 14)
    Rebuild(shop.books).apply()
    assert "5" not in shop.receipts()
    shop.check_whole(held=15)


def test_a_dead_letter_holds_its_unit_and_is_not_written_again(shop: Shop) -> None:
    (order,) = shop.sell(2, 9)
    shop.work()
    shop.sql(
        f"DELETE FROM tb_voucher_order WHERE id = {order}",
        "UPDATE tb_seckill_voucher SET stock = stock + 1 WHERE voucher_id = 2",
    )
    shop.ledger.hset(keys.DEAD_ORDERS, str(order), "why not")
    shop.ledger.delete(keys.seckill_stock(2))
    Rebuild(shop.books).apply()
    assert stock(shop.ledger, 2) == UNITS - 6
    assert shop.receipts(2)["9"] == str(order)
    assert order not in read_queue(shop.ledger).orders


def test_a_paused_sale_stays_paused(shop: Shop) -> None:
    shop.ledger.hset(keys.seckill_sale(1), "state", "paused")
    shop.ledger.delete(keys.seckill_stock(1))
    Rebuild(shop.books).apply()
    assert shop.ledger.hget(keys.seckill_sale(1), "state") == "paused"


def test_a_sale_that_was_changed_by_command_comes_back_as_changed(shop: Shop) -> None:
    """As the journal says, and what was cut short is made once, before the flush or after it."""
    control = SaleControl(shop.pool, shop.ledger, "ann")
    control.pause(1)
    control.restock(1, 5)
    shop.ledger.flushall()
    Rebuild(shop.books).apply()
    for _ in range(2):
        sale = read_units(shop.ledger, [1])[0]
        assert (sale.state, sale.offered, sale.imbalance) == ("paused", UNITS + 5, "")
        control.finish(1)
    control.restock(1, -2)
    assert stock(shop.ledger) == UNITS + 3 - sale.held


@pytest.mark.parametrize("change", [1, -1])
def test_a_change_that_was_cut_short_and_flushed_is_made_once(shop: Shop, change: int) -> None:
    for kill in each_kill():
        before = read_terms(shop.pool)[0].initial
        with killed(kill, shop.ledger, shop.pool):
            SaleControl(shop.pool, shop.ledger, "ann").restock(1, change)
        shop.ledger.flushall()
        Rebuild(shop.books).apply()
        control = SaleControl(shop.pool, shop.ledger, "bob")
        control.finish(1)
        assert not control.unfinished()
        sale = read_units(shop.ledger, [1])[0]
        (terms, _) = read_terms(shop.pool)
        assert (sale.offered, sale.imbalance) == (terms.initial, "")
        assert sale.offered in (before, before + change)


def test_an_order_that_is_written_again_is_dated_within_its_sale(shop: Shop) -> None:
    early = (BEGIN_MS // 1000 - EPOCH_S) << 32 | 7  # its second began before the sale did
    claim(shop.ledger, (50, early))
    shop.ledger.xtrim(keys.STREAM_ORDERS, maxlen=0, approximate=False)
    Rebuild(shop.books).apply()
    entries: Any = shop.ledger.xrange(keys.STREAM_ORDERS)
    dated = {fields["id"]: int(fields["ms"]) for _, fields in entries}
    assert dated[str(early)] == BEGIN_MS
    assert all(BEGIN_MS <= at < END_MS for at in dated.values())


# Beside others, and cut short ---------------------------------------------------------------------


def test_nothing_is_sold_meanwhile_and_a_second_one_is_refused(shop: Shop) -> None:
    shop.books.revoke(CLOSED_FOR_REBUILD)
    with pytest.raises(Behind, match="cut short"):
        shop.books.permit()
    with alone(shop.pool), pytest.raises(UsageError, match="another `flashsale rebuild`"):
        Rebuild(shop.books).apply()


class Cut(Exception):  # noqa: N818 - no error of anybody's
    """The rebuild was killed here."""


def test_cut_short_anywhere_it_sells_nothing_and_the_next_one_ends_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each of its calls to the ledger in turn, until one run comes through."""
    real = rebuild_module.call
    steps, left = 0, [0]

    def counted(*args: Any, **words: Any) -> Any:
        if left[0] == 0:
            raise Cut
        left[0] -= 1
        return real(*args, **words)

    for module in (rebuild_module, survey_module):
        monkeypatch.setattr(module, "call", counted)
    while True:
        shop.ledger.delete(keys.seckill_order(1), keys.seckill_stock(2))
        shop.ledger.hdel(keys.seckill_receipt(1), "1", "12")
        shop.ledger.xtrim(keys.STREAM_ORDERS, maxlen=0, approximate=False)
        left[0] = steps
        try:
            Rebuild(shop.books).apply()
            break
        except Cut:
            steps += 1
        with pytest.raises(Behind):
            shop.books.permit()
    assert steps > 10
    monkeypatch.undo()
    shop.work()
    assert not survey(shop.books).is_needed
    assert "12" not in shop.receipts(), "its entry went with its receipt: nothing names it any more"


def _older(shop: Shop) -> None:
    """The ledger of before users 9 and 10 bought: no closing is in it."""
    shop.ledger.hdel(keys.seckill_receipt(1), "9", "10")
    shop.ledger.srem(keys.seckill_order(1), "9", "10")
    shop.ledger.incrby(keys.seckill_stock(1), 2)
    shop.ledger.delete(keys.CLOSED)


def _flushed(shop: Shop) -> None:
    shop.ledger.flushall()


@pytest.mark.parametrize("point", ["rebuild.requeued", "rebuild.drawn"])
@pytest.mark.parametrize(("lose", "held"), [(_older, 14), (_flushed, 14)])
def test_a_ledger_that_is_another_one_at_the_end_is_rebuilt_from_the_beginning(
    shop: Shop, point: str, lose: Callable[[Shop], None], held: int
) -> None:
    """Two faults at once: it is lost again after the last survey."""
    shop.work()
    shop.ledger.delete(keys.seckill_stock(1))
    left = [lose]

    def lost() -> None:
        if left and (point == "rebuild.drawn" or not survey(shop.books).repairs):
            left.pop()(shop)

    with armed(point, lost):
        Rebuild(shop.books).apply()
    assert not left
    shop.check_whole(held=held)


def test_a_ledger_that_was_started_anew_while_it_was_surveyed_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey_module, "read_server", lambda ledger: ("another", ["2026:01:01"]))
    with pytest.raises(Unavailable, match="while it was surveyed"):
        survey(shop.books)


def test_a_store_that_goes_away_leaves_the_sales_closed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise Indeterminate("MySQL went away")

    shop.ledger.delete(keys.seckill_stock(1))
    monkeypatch.setattr(rebuild_module, "set_epoch", fails)
    with pytest.raises(Indeterminate):
        Rebuild(shop.books).apply()
    with pytest.raises(Behind, match="run it again"):
        shop.books.permit()
    monkeypatch.undo()
    Rebuild(shop.books).apply()
    shop.check_whole()
