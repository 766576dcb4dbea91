"""Units: a good history and a broken one for every rule about stock."""

import pytest
from rig.sale_world import Row, World, broken, doubts, findings, violations

from flashsale.model import Outcome, PayStatus, Verdict
from flashsale.verify.queue import Backlog, Queue

QUEUED = Queue(exists=True, last_entry="9-0", backlog=Backlog(undelivered=1))


@pytest.fixture
def sold_out() -> World:
    """Three units, three buyers, two turned away."""
    world = World(units=3)
    for user in (1, 2, 3):
        world.buy(user, 100 + user)
    world.say(4, Outcome.SOLD_OUT)
    world.say(5, Outcome.SOLD_OUT)
    return world


def test_a_sale_that_sold_out_breaks_nothing(sold_out: World) -> None:
    assert broken(sold_out.snapshot()) == set()


# no_oversell


def test_a_row_past_the_last_unit_is_an_oversell(sold_out: World) -> None:
    sold_out.buy(6, 106)
    found = violations(sold_out.snapshot(), "no_oversell")
    assert "order 106, user 6, voucher 1: 4 orders for 3 units" in found


def test_only_the_surplus_is_named(sold_out: World) -> None:
    sold_out.rows[1].created_ms += 500
    sold_out.buy(6, 106)
    (finding,) = findings(sold_out.snapshot(), "no_oversell", Verdict.FAIL)
    assert (finding.total, finding.offences[0].order) == (1, 102)


def test_a_promise_that_mysql_refused_is_an_oversell_too(sold_out: World) -> None:
    sold_out.say(6, Outcome.SOLD, 106)
    assert "order 106, user 6" in violations(sold_out.snapshot(), "no_oversell")


def test_a_receipt_still_in_the_queue_counts(sold_out: World) -> None:
    sold_out.sell_in_ledger(6, 106)
    assert "order 106" in violations(sold_out.snapshot(QUEUED), "no_oversell")


def test_a_deleted_row_does_not_make_room(sold_out: World) -> None:
    sold_out.rows.pop()
    assert not violations(sold_out.snapshot(), "no_oversell")
    sold_out.buy(6, 106)
    assert violations(sold_out.snapshot(), "no_oversell")


def test_units_of_cancelled_orders_may_be_sold_again(sold_out: World) -> None:
    sold_out.end(101)
    sold_out.buy(6, 106)
    assert broken(sold_out.snapshot()) == set()


def test_a_restock_makes_room(sold_out: World) -> None:
    sold_out.restock(1)
    sold_out.buy(6, 106)
    assert broken(sold_out.snapshot()) == set()


def test_what_was_oversold_before_is_not_this_runs_fault(sold_out: World) -> None:
    sold_out.sell(6, 106)
    sold_out.claims.clear()
    sold_out.start()
    assert not violations(sold_out.snapshot(), "no_oversell")
    sold_out.sell(7, 107)
    assert "order 107" in violations(sold_out.snapshot(), "no_oversell")


def test_what_was_promised_too_much_before_is_not_this_runs_fault(sold_out: World) -> None:
    sold_out.sell_in_ledger(6, 106)
    sold_out.claims.clear()
    sold_out.start()
    assert not violations(sold_out.snapshot(), "no_oversell")


def test_without_units_there_is_no_oversell_to_judge(sold_out: World) -> None:
    sold_out.mysql = None
    sold_out.ledger["initial"] = None
    assert "in neither store" in doubts(sold_out.snapshot(), "no_oversell")


# mysql_conservation


@pytest.mark.parametrize("units", [1, -1])
def test_a_unit_more_or_less_in_mysql_is_named(sold_out: World, units: int) -> None:
    sold_out.move_mysql_stock(units)
    found = violations(sold_out.snapshot(), "mysql_conservation")
    assert f"voucher 1: initial 3 − stock {units} = {3 - units}, but 3 live orders" in found
    assert broken(sold_out.snapshot()) == {"mysql_conservation"}


def test_a_deleted_row_unbalances_mysql(sold_out: World) -> None:
    sold_out.rows.pop()
    assert "but 2 live orders" in violations(sold_out.snapshot(), "mysql_conservation")


def test_a_cancelled_order_that_kept_its_unit_unbalances_mysql(sold_out: World) -> None:
    sold_out.row(101).status = PayStatus.CANCELLED
    assert violations(sold_out.snapshot(), "mysql_conservation")


def test_refunding_is_live_and_refunded_is_not(sold_out: World) -> None:
    sold_out.row(101).status = PayStatus.REFUNDING
    assert not violations(sold_out.snapshot(), "mysql_conservation")
    sold_out.row(101).status = PayStatus.REFUNDED
    assert violations(sold_out.snapshot(), "mysql_conservation")


def test_books_that_were_off_before_are_remarked_not_judged(sold_out: World) -> None:
    sold_out.move_mysql_stock(2)
    sold_out.start()
    snapshot = sold_out.snapshot()
    assert not violations(snapshot, "mysql_conservation")
    (remark,) = findings(snapshot, "mysql_conservation", Verdict.PASS)
    assert "voucher 1: by -2 units" in str(remark)


def test_a_sale_that_vanished_from_mysql_is_a_violation(sold_out: World) -> None:
    sold_out.mysql = None
    assert "gone from tb_seckill_voucher" in violations(sold_out.snapshot(), "mysql_conservation")


def test_a_sale_that_mysql_never_had_is_unknown(sold_out: World) -> None:
    sold_out.mysql = None
    sold_out.before = None
    assert not violations(sold_out.snapshot(), "mysql_conservation")
    assert "not in tb_seckill_voucher" in doubts(sold_out.snapshot(), "mysql_conservation")
    sold_out.start()
    assert "not in tb_seckill_voucher" in doubts(sold_out.snapshot(), "mysql_conservation")


# redis_conservation


@pytest.mark.parametrize("units", [1, -1])
def test_a_unit_more_or_less_in_redis_is_named(sold_out: World, units: int) -> None:
    sold_out.ledger["stock"] += units
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert f"voucher 1: stock {units} + order set 3 = {3 + units}, but initial 3" in found
    assert "redis_conservation" in broken(sold_out.snapshot())


def test_a_removed_member_is_named_with_its_order(sold_out: World) -> None:
    sold_out.members.remove(2)
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert "order 102, user 2, voucher 1: a receipt, but not in the order set" in found
    assert "order 102, user 2, voucher 1: a live order, but not in the order set" in found


def test_a_swapped_member_is_found_though_the_sum_is_right(sold_out: World) -> None:
    sold_out.members.remove(2)
    sold_out.members.add(99)
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert "user 99, voucher 1: in the order set, but no live order" in found
    assert "user 99, voucher 1: in the order set without a receipt" in found


def test_a_removed_receipt_is_named(sold_out: World) -> None:
    del sold_out.receipts[3]
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert "user 3, voucher 1: in the order set without a receipt" in found


def test_all_receipts_gone_is_no_system_without_receipts(sold_out: World) -> None:
    sold_out.receipts.clear()
    sold_out.ledger.update(has_terms=False)
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert "user 1, voucher 1: in the order set without a receipt" in found


def test_a_receipt_for_another_order_is_named(sold_out: World) -> None:
    sold_out.receipts[3] = 999
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert "order 103, user 3, voucher 1: the receipt names order 999 instead" in found


@pytest.mark.parametrize("first", [True, False])
def test_a_second_row_has_no_receipt_wherever_it_stands(sold_out: World, first: bool) -> None:
    second = Row(199, 3)
    sold_out.rows.insert(0 if first else len(sold_out.rows), second)
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert "order 199, user 3, voucher 1: the receipt names order 103 instead" in found


def test_a_deleted_row_leaves_a_member_without_order(sold_out: World) -> None:
    sold_out.rows.pop()
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert "order 103, user 3, voucher 1: in the order set, but no live order" in found


def test_a_member_whose_row_is_still_queued_is_in_doubt(sold_out: World) -> None:
    sold_out.rows.pop()
    assert not violations(sold_out.snapshot(QUEUED), "redis_conservation")
    assert "order 103" in doubts(sold_out.snapshot(QUEUED), "redis_conservation")


def test_a_cancelled_order_whose_unit_never_came_back_is_named(sold_out: World) -> None:
    sold_out.row(103).status = PayStatus.CANCELLED
    sold_out.move_mysql_stock(1)
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert "order 103, user 3, voucher 1: the order has ended, but its unit was not" in found


def test_what_no_script_writes_is_named(sold_out: World) -> None:
    sold_out.ledger["oddities"] = ("seckill:stock:1 is a list, not a string",)
    assert "is a list" in violations(sold_out.snapshot(), "redis_conservation")


@pytest.mark.parametrize(
    ("part", "text"),
    [("stock", "has lost the stock"), ("initial", "has lost the terms")],
)
def test_a_ledger_that_lost_part_of_a_sale_is_a_violation(
    sold_out: World, part: str, text: str
) -> None:
    sold_out.ledger[part] = None
    assert text in violations(sold_out.snapshot(), "redis_conservation")
    assert not doubts(sold_out.snapshot(), "redis_conservation")


def test_a_ledger_that_never_had_the_sale_is_unknown(sold_out: World) -> None:
    sold_out.ledger = {}
    sold_out.members.clear()
    sold_out.receipts.clear()
    sold_out.before = None
    assert not violations(sold_out.snapshot(), "redis_conservation")
    assert "not in the ledger" in doubts(sold_out.snapshot(), "redis_conservation")
    sold_out.start()
    assert "not in the ledger" in doubts(sold_out.snapshot(), "redis_conservation")


def test_stores_that_differ_in_the_initial_stock_are_named(sold_out: World) -> None:
    sold_out.ledger["stock"] += 5
    sold_out.ledger["initial"] += 5
    found = violations(sold_out.snapshot(), "redis_conservation")
    assert "voucher 1: initial 8 in Redis, 3 in MySQL" in found


def test_a_ledger_that_was_off_before_is_remarked_not_judged(sold_out: World) -> None:
    sold_out.ledger["stock"] -= 1
    sold_out.members.discard(2)
    sold_out.start()
    snapshot = sold_out.snapshot()
    assert not violations(snapshot, "redis_conservation")
    (remark,) = findings(snapshot, "redis_conservation", Verdict.PASS)
    assert "voucher 1: by +2 units" in str(remark)


def test_a_system_without_receipts_is_judged_by_its_order_set() -> None:
    world = World(units=2)
    world.ledger.update(has_terms=False, initial=None, begin_ms=None, end_ms=None)
    world.start()
    world.buy(1, 101)
    world.receipts.clear()
    assert broken(world.snapshot()) == set()
    world.members.add(7)
    assert "redis_conservation" in broken(world.snapshot())


# no_undersell


def test_turning_buyers_away_from_units_left_is_named() -> None:
    world = World(units=3)
    world.buy(1, 101)
    world.say(2, Outcome.SOLD_OUT)
    found = violations(world.snapshot(), "no_undersell")
    assert "user 2, voucher 1: told “sold out”, yet 2 of 3 were never sold" in found


def test_a_unit_that_leaked_from_the_stock_is_undersold(sold_out: World) -> None:
    sold_out.rows.pop()
    sold_out.members.discard(3)
    sold_out.receipts.pop(3)
    sold_out.claims = [claim for claim in sold_out.claims if claim.user != 3]
    found = violations(sold_out.snapshot(), "no_undersell")
    assert "user 4, voucher 1: told “sold out”, yet 1 of 3 were never sold" in found


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.SHED,
        Outcome.INDETERMINATE,
        Outcome.UNKNOWN,
        Outcome.UNSENT,
        Outcome.REFUSED,
        Outcome.RATE_LIMITED,
        Outcome.ENDED,
        Outcome.PAUSED,
    ],
)
def test_units_left_are_fine_where_nobody_was_told_sold_out(outcome: Outcome) -> None:
    world = World(units=3)
    world.buy(1, 101)
    world.say(2, outcome)
    assert broken(world.snapshot()) == set()


def test_units_left_are_fine_where_every_user_was_served() -> None:
    world = World(units=3)
    world.buy(1, 101)
    world.say(1, Outcome.DUPLICATE, 101)
    assert broken(world.snapshot()) == set()


def test_a_unit_returned_after_the_last_refusal_is_no_undersell(sold_out: World) -> None:
    sold_out.end(103)
    assert broken(sold_out.snapshot()) == set()


def test_a_restock_after_the_last_refusal_is_no_undersell(sold_out: World) -> None:
    sold_out.restock(5)
    assert broken(sold_out.snapshot()) == set()


def test_returned_units_excuse_no_more_than_themselves() -> None:
    world = World(units=5)
    for user in (1, 2, 3):
        world.buy(user, 100 + user)
    world.end(101)
    world.say(9, Outcome.SOLD_OUT)
    assert "yet 2 of 5 were never sold" in violations(world.snapshot(), "no_undersell")


def test_without_a_baseline_an_undersell_may_be_a_restock() -> None:
    world = World(units=3)
    world.say(2, Outcome.SOLD_OUT)
    world.before = None
    assert not violations(world.snapshot(), "no_undersell")
    assert "user 2" in doubts(world.snapshot(), "no_undersell")


def test_units_that_leaked_before_the_run_are_not_its_undersell(sold_out: World) -> None:
    world = World(units=3)
    world.ledger["stock"] = 0
    world.start()
    world.say(1, Outcome.SOLD_OUT)
    assert not violations(world.snapshot(), "no_undersell")


def test_a_sale_partly_sold_before_is_no_undersell() -> None:
    world = World(units=3)
    world.sell(1, 101)
    world.sell(2, 102)
    world.start()
    world.buy(3, 103)
    world.say(4, Outcome.SOLD_OUT)
    assert broken(world.snapshot()) == set()


def test_without_units_there_is_no_undersell_to_judge(sold_out: World) -> None:
    sold_out.mysql = None
    sold_out.ledger["initial"] = None
    assert "in neither store" in doubts(sold_out.snapshot(), "no_undersell")
