"""Changing a sale while it runs: effective at once, in both stores, once, and in the journal."""

import threading
from collections.abc import Callable, Iterator

import pytest
import structlog
from redis import Redis
from rig.killed import each_kill, killed
from rig.rows import add_order, add_sale, units
from rig.sale import claim, everything, stock
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable, UsageError, ViolationError
from flashsale.orders.sweeper import Sweeper
from flashsale.seckill import journal
from flashsale.seckill.control import Changed, SaleControl, UnfinishedError, change_call, read_units
from flashsale.seckill.journal import Action, ChangeStep, Line
from flashsale.seckill.sale import load_sale, read_terms
from flashsale.settings import LifecycleSettings
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import evaluate, sync_client

SOLD, SOLD_OUT, ENDED, PAUSED = 0, 1, 4, 6


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def control(ledger: Redis, pool: Engine) -> SaleControl:
    """Sale 1 has 10 units in both stores."""
    put_on_sale(ledger, pool, 1)
    return SaleControl(pool, ledger, "ann")


def put_on_sale(ledger: Redis, pool: Engine, voucher_id: int, count: int = 10) -> None:
    add_sale(pool, voucher_id, stock=count)
    (terms,) = (t for t in read_terms(pool) if t.voucher_id == voucher_id)
    assert load_sale(ledger, terms)


def lines(pool: Engine, voucher_id: int = 1) -> list[Line]:
    with transaction(pool) as connection:
        return journal.of_sale(connection, voucher_id, 1000)


def offered(ledger: Redis, pool: Engine, voucher_id: int = 1) -> tuple[int | None, int]:
    """In the ledger and in MySQL."""
    statement = text("SELECT initial_stock FROM tb_seckill_voucher WHERE voucher_id = :v")
    with pool.connect() as connection:
        found = connection.execute(statement, {"v": voucher_id}).scalar_one()
    return read_units(ledger, [voucher_id])[0].offered, int(found)


def sweeper(ledger: Redis, pool: Engine, *, pause: bool = False) -> Sweeper:
    settings = LifecycleSettings(pause_unbalanced=pause)
    return Sweeper(pool, ledger, settings, claim_timeout_ms=0, now_s=lambda: 0.0)


def test_states_are_what_claims_are_told(ledger: Redis, control: SaleControl) -> None:
    assert control.pause(1, "odd figures").becomes == "paused"
    assert claim(ledger, (7, 70)) == [(PAUSED, "")]
    assert control.resume(1).was == "paused"
    assert claim(ledger, (7, 70)) == [(SOLD, "70")]
    control.close(1)
    assert claim(ledger, (8, 80)) == [(ENDED, "")]
    control.open(1)
    assert claim(ledger, (8, 80)) == [(SOLD, "80")]


def test_each_change_is_two_lines(control: SaleControl, pool: Engine) -> None:
    changed = control.pause(1, "odd figures")
    planned, done = lines(pool)
    assert changed == Changed(1, "open", "paused", planned.number)
    assert (planned.action, planned.actor, planned.reason) == (Action.PAUSE, "ann", "odd figures")
    assert (planned.was, planned.becomes, planned.step) == ("open", "paused", ChangeStep.PLANNED)
    assert (done.ends, done.step) == (planned.number, ChangeStep.DONE)
    assert planned.at is not None


def test_what_is_so_already_is_no_change(control: SaleControl, ledger: Redis, pool: Engine) -> None:
    control.pause(1)
    before = everything(ledger)
    assert control.pause(1) == Changed(1, "paused", "paused")
    assert len(lines(pool)) == 2
    assert everything(ledger) == before


def test_what_a_sale_cannot_become_names_the_cure(control: SaleControl, pool: Engine) -> None:
    control.close(1)
    with pytest.raises(UsageError, match=r"is closed.*`flashsale sale open`"):
        control.resume(1)
    with pytest.raises(UsageError, match="is closed"):
        control.pause(1)
    control.open(1)
    control.pause(1)
    with pytest.raises(UsageError, match=r"is paused.*`flashsale sale resume`"):
        control.open(1)
    with pytest.raises(UsageError, match="on sale nowhere"):
        control.pause(99)
    assert len(lines(pool)) == 6


def test_units_come_and_go_in_both_stores(
    control: SaleControl, ledger: Redis, pool: Engine
) -> None:
    claim(ledger, (7, 70), (8, 80))
    assert control.restock(1, 5) == Changed(1, "10", "15", lines(pool)[0].number)
    assert (stock(ledger), units(pool), offered(ledger, pool)) == (13, 15, (15, 15))
    control.restock(1, -13)
    assert (stock(ledger), units(pool), offered(ledger, pool)) == (0, 2, (2, 2))
    assert claim(ledger, (9, 90)) == [(SOLD_OUT, "")]


def test_never_fewer_than_are_sold(control: SaleControl, ledger: Redis, pool: Engine) -> None:
    claim(ledger, *((n, n) for n in range(1, 8)))
    with pytest.raises(ViolationError, match="fewer than 4 units are left"):
        control.restock(1, -4)
    assert (stock(ledger), units(pool), offered(ledger, pool)) == (3, 10, (10, 10))
    planned, refused = lines(pool)
    assert (refused.ends, refused.step) == (planned.number, ChangeStep.REFUSED)
    control.restock(1, -3)
    with pytest.raises(ViolationError, match="would make -1"):
        control.restock(1, -8)


def test_a_sale_that_is_not_loaded(ledger: Redis, pool: Engine) -> None:
    add_sale(pool, 1, stock=10)
    control = SaleControl(pool, ledger, "ann")
    for change in (control.pause, control.close, lambda v: control.restock(v, 1)):
        with pytest.raises(UsageError, match=r"not in the ledger.*`flashsale sale open 1`"):
            change(1)
    assert everything(ledger) == {}
    assert not lines(pool)
    assert control.open(1).becomes == "open"
    assert claim(ledger, (7, 70)) == [(SOLD, "70")]


def test_a_ledger_that_lost_its_sale_gets_it_back_as_it_stood(
    control: SaleControl, ledger: Redis, pool: Engine
) -> None:
    control.restock(1, 5)
    control.pause(1)
    ledger.flushall()
    (terms,) = read_terms(pool)
    load_sale(ledger, terms)
    seen = read_units(ledger, [1])[0]
    assert (seen.state, seen.offered, seen.left) == ("paused", 15, 15)
    control.resume(1)
    assert claim(ledger, (7, 70)) == [(SOLD, "70")]


CHANGES: dict[str, Callable[[SaleControl, int], object]] = {
    "more": lambda control, voucher: control.restock(voucher, 5),
    "fewer": lambda control, voucher: control.restock(voucher, -5),
    "too few": lambda control, voucher: control.restock(voucher, -9),
    "pause": lambda control, voucher: control.pause(voucher),
    "close": lambda control, voucher: control.close(voucher),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("by", ["sweeper", "the next command"])
def test_killed_between_any_two_steps_it_is_made_once_or_not_at_all(
    ledger: Redis, pool: Engine, what: str, by: str
) -> None:
    """And in between, the ledger never has more to sell than MySQL has to give."""
    seen = set()
    for voucher, kill in enumerate(each_kill(), 1):
        put_on_sale(ledger, pool, voucher)
        claim(ledger, (7, 100 + voucher), (8, 200 + voucher), voucher_id=voucher)
        with killed(kill, ledger, pool):
            try:
                CHANGES[what](SaleControl(pool, ledger, "ann"), voucher)
            except ViolationError:
                assert what == "too few"
        assert stock(ledger, voucher) + 2 <= units(pool, voucher)
        if by == "sweeper":
            sweeper(ledger, pool).run_once()
        else:
            SaleControl(pool, ledger, "bob").finish(voucher)
        with transaction(pool) as connection:
            assert not journal.unended(connection)
        there, here = offered(ledger, pool, voucher)
        sale = read_units(ledger, [voucher])[0]
        assert there == here == units(pool, voucher)
        assert not sale.imbalance
        assert len(lines(pool, voucher)) in (0, 2)
        seen.add((there, sale.state))
    assert (
        seen
        == {
            "more": {(10, "open"), (15, "open")},
            "fewer": {(10, "open"), (5, "open")},
            "too few": {(10, "open")},
            "pause": {(10, "open"), (10, "paused")},
            "close": {(10, "open"), (10, "closed")},
        }[what]
    )


def test_a_change_that_comes_again_after_a_later_one_changes_nothing(
    control: SaleControl, ledger: Redis, pool: Engine
) -> None:
    """A process that hung behind its first step, and wakes when others have gone on."""
    control.restock(1, 5)
    hung = lines(pool)[0]
    control.restock(1, 5)
    before = everything(ledger)
    assert evaluate(ledger, change_call(hung)) == 2
    assert control._carried_out(hung) is ChangeStep.DONE
    assert everything(ledger) == before
    assert offered(ledger, pool) == (20, 20)


def test_trouble_halfway_is_not_to_be_repeated(control: SaleControl, pool: Engine) -> None:
    """The ledger goes away behind the first step."""
    with sync_client("redis://127.0.0.1:1/0") as nowhere:
        lost = SaleControl(pool, nowhere, "ann")
        with pytest.raises(Indeterminate, match="Connection refused"):
            lost.restock(1, 5)
        assert not lines(pool)
        line = Line(Action.RESTOCK, 1, "ann", step=ChangeStep.PLANNED, units=5, number=1)
        with pytest.raises(UnfinishedError, match=r"do not repeat it.*`flashsale sale show 1`"):
            lost._carried_out(line)


def test_many_at_once_are_made_one_after_another(
    control: SaleControl, ledger: Redis, pool: Engine, ledger_url: str
) -> None:
    done: list[Changed] = []

    def restock() -> None:
        with sync_client(ledger_url) as own:
            other = SaleControl(pool, own, "bob")
            for _ in range(5):
                while True:
                    try:
                        done.append(other.restock(1, 1))
                        break
                    except Unavailable:  # another change is under way
                        continue

    threads = [threading.Thread(target=restock) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert offered(ledger, pool) == (25, 25)
    assert sorted(int(each.becomes) for each in done) == list(range(11, 26))


def test_a_sale_whose_books_disagree_is_paused_where_that_is_asked_for(
    control: SaleControl, ledger: Redis, pool: Engine
) -> None:
    put_on_sale(ledger, pool, 2)
    claim(ledger, (7, 70))
    ledger.decr(keys.seckill_stock(1))
    assert sweeper(ledger, pool).run_once().paused == 0
    assert sweeper(ledger, pool, pause=True).run_once().paused == 1
    assert ledger.hget(keys.seckill_sale(1), "state") == "paused"
    assert claim(ledger, (8, 81), voucher_id=2) == [(SOLD, "81")], "that one is in order"
    planned, _ = lines(pool)
    assert planned.actor == "sweeper"
    assert planned.reason == ("the books disagree: 8 left + 1 held = 9, but 10 offered")
    assert sweeper(ledger, pool, pause=True).run_once().paused == 0


def test_a_row_that_is_live_keeps_its_unit(control: SaleControl, pool: Engine) -> None:
    """MySQL's own books after a restock in both directions."""
    add_order(pool, order_id=70, user_id=7)
    with pool.begin() as connection:
        connection.execute(text("UPDATE tb_seckill_voucher SET stock = stock - 1"))
    control.restock(1, 3)
    control.restock(1, -5)
    assert units(pool) == 7
