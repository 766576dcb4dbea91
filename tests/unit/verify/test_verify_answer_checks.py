"""Answers: a good history and a broken one for every rule about "duplicate" and "sold out"."""

from dataclasses import replace

import pytest
from rig.sale_world import World, broken, doubts, findings, together, violations

from flashsale.model import Outcome, PayStatus, Verdict
from flashsale.verify.attempts import GARBLED, NEVER, NO_ORDER
from flashsale.verify.linearizability import linearizable
from flashsale.verify.queue import Backlog, Queue

QUEUED = Queue(exists=True, last_entry="9-0", backlog=Backlog(undelivered=1))


@pytest.fixture
def world() -> World:
    """Two units; the first is sold to user 1, who asks again."""
    world = World(units=2)
    world.buy(1, 101)
    world.say(1, Outcome.DUPLICATE, 101)
    return world


# Whoever repeats an Idempotency-Key is told of the same order as “sold” again


@pytest.fixture
def keyed() -> World:
    """Two units; user 1 buys one, user 2 the other, user 3 is refused, and user 1 asks again."""
    world = World(units=2)
    world.buy(1, 101)
    world.buy(2, 102)
    world.say(3, Outcome.SOLD_OUT)
    world.say(1, Outcome.SOLD, 101)
    return world


def test_an_answer_that_is_repeated_is_one_order(keyed: World) -> None:
    for repeated in range(2):
        assert broken(keyed.snapshot()) == set(), repeated
        assert keyed.snapshot().accepted == 2
        assert not linearizable(keyed.snapshot()).findings
        keyed.say(1, Outcome.DUPLICATE, 101)  # without the key
        keyed.say(1, Outcome.SOLD, 101)


def test_an_answer_may_repeat_what_the_first_claim_was_not_told(keyed: World) -> None:
    """Its reply was lost before anybody was refused."""
    keyed.claims[0].outcome, keyed.claims[0].order = Outcome.UNKNOWN, NO_ORDER
    keyed.claims[0].resolved = 101
    assert broken(keyed.snapshot()) == set()
    assert not linearizable(keyed.snapshot()).findings


def test_an_order_that_is_cancelled_may_be_told_again(keyed: World) -> None:
    keyed.end(101)
    keyed.say(1, Outcome.SOLD, 101)
    assert broken(keyed.snapshot()) == set()
    assert not linearizable(keyed.snapshot()).findings


def test_a_sale_after_sell_out_is_found_though_it_is_repeated(keyed: World) -> None:
    keyed.say(4, Outcome.SOLD, 104)
    keyed.say(4, Outcome.SOLD, 104)
    found = violations(keyed.snapshot(), "sold_out_truthful")
    assert found.count("order 104, user 4") == 1
    assert "user 1" not in found


def test_a_second_order_beside_one_that_is_repeated_is_found(keyed: World) -> None:
    keyed.say(1, Outcome.SOLD, 105)
    found = violations(keyed.snapshot(), "one_per_user")
    assert "promised besides order" in found
    assert "user 1" in found


def test_anothers_order_told_as_if_repeated_is_found(keyed: World) -> None:
    keyed.say(4, Outcome.SOLD, 101)
    assert {"unique_ids", "sold_out_truthful", "accepted_persisted"} <= broken(keyed.snapshot())


# A shop that names no orders tells a user once more of what they have


@pytest.fixture
def unnamed() -> World:
    """Two units, sold to users 1 and 2 without an id; user 3 is refused, and user 1 asks again."""
    world = World(units=2)
    for user in (1, 2):
        world.say(user, Outcome.SOLD)
        world.sell(user, 100 + user)
    world.say(3, Outcome.SOLD_OUT)
    world.say(1, Outcome.SOLD)
    return world


def test_an_order_without_an_id_may_be_told_again(unnamed: World) -> None:
    assert broken(unnamed.snapshot()) == set()
    assert unnamed.snapshot().accepted == 2
    assert not linearizable(unnamed.snapshot()).findings


def test_a_second_order_without_an_id_is_a_sale_of_its_own(unnamed: World) -> None:
    unnamed.sell(1, 103)
    assert {"one_per_user", "no_oversell"} <= broken(unnamed.snapshot())
    assert "user 1" in violations(unnamed.snapshot(), "sold_out_truthful")
    assert unnamed.snapshot().accepted == 3


def test_an_order_without_an_id_that_was_sold_after_sell_out_is_found(unnamed: World) -> None:
    unnamed.say(4, Outcome.SOLD)
    unnamed.say(4, Outcome.SOLD)
    found = violations(unnamed.snapshot(), "sold_out_truthful")
    assert (found.count("user 4"), found.count("user 1")) == (1, 0)


def test_an_order_without_an_id_is_not_the_one_that_ended_before_the_run() -> None:
    world = World(units=2)
    world.sell(1, 101)
    world.end(101)
    world.start()
    world.say(1, Outcome.SOLD)
    assert "user 1, voucher 1: no row of this user" in violations(
        world.snapshot(), "accepted_persisted"
    )


def test_who_may_hold_several_and_is_told_of_more_than_there_are_is_in_doubt() -> None:
    world = World(units=5)
    world.say(1, Outcome.SOLD)
    world.say(1, Outcome.SOLD)
    world.sell(1, 101)
    sale = replace(world.snapshot().sales[0], limit=2)
    found = doubts(replace(world.snapshot(), sales=(sale,)), "accepted_persisted")
    assert "user 1, voucher 1: told of 1 more orders than there are rows of theirs" in found
    assert not doubts(world.snapshot(), "accepted_persisted")  # of one order a user: told again


@pytest.mark.parametrize("order", [101, NO_ORDER])
def test_a_claim_whose_answer_was_lost_may_have_sold_what_is_told_later(order: int) -> None:
    world = World(units=1)
    world.say(1, Outcome.INDETERMINATE)
    world.sell(1, 101)
    world.say(2, Outcome.SOLD_OUT)
    world.say(1, Outcome.SOLD, order)
    assert broken(world.snapshot()) == set()
    world.claims[0].outcome = Outcome.REFUSED
    assert "user 1" in violations(world.snapshot(), "sold_out_truthful")


# duplicate_truthful


def test_a_duplicate_that_names_the_users_order_is_true(world: World) -> None:
    assert broken(world.snapshot()) == set()


@pytest.mark.parametrize("status", [PayStatus.CANCELLED, PayStatus.REFUNDED])
def test_an_order_that_has_ended_since_still_makes_it_true(world: World, status: int) -> None:
    world.end(101, status)
    assert broken(world.snapshot()) == set()


def test_a_duplicate_without_such_an_order_is_named(world: World) -> None:
    world.say(2, Outcome.DUPLICATE, 777)
    found = violations(world.snapshot(), "duplicate_truthful")
    assert "order 777, user 2, voucher 1: told “duplicate”, but there is no such order" in found


def test_a_duplicate_whose_row_is_gone_is_named(world: World) -> None:
    world.rows.clear()
    assert "order 101, user 1" in violations(world.snapshot(), "duplicate_truthful")


def test_a_duplicate_that_names_anothers_order_is_named(world: World) -> None:
    world.say(2, Outcome.DUPLICATE, 101)
    found = violations(world.snapshot(), "duplicate_truthful")
    assert "order 101, user 2, voucher 1: the order is of user 1" in found


def test_a_duplicate_that_names_garbage_is_named(world: World) -> None:
    world.say(1, Outcome.DUPLICATE, GARBLED, garbled="none")
    found = violations(world.snapshot(), "duplicate_truthful")
    assert "user 1, voucher 1: told of 'none', which is no order id" in found


def test_a_duplicate_without_an_id_needs_any_order_of_the_user(world: World) -> None:
    world.say(1, Outcome.DUPLICATE)
    assert not violations(world.snapshot(), "duplicate_truthful")
    world.say(2, Outcome.DUPLICATE)
    found = violations(world.snapshot(), "duplicate_truthful")
    assert "user 2, voucher 1: told “duplicate” without holding any order" in found


def test_a_duplicate_of_an_order_from_before_is_true(world: World) -> None:
    world.claims.clear()
    world.start()
    world.say(1, Outcome.DUPLICATE, 101)
    assert broken(world.snapshot()) == set()


def test_an_order_that_an_earlier_run_lost_is_remarked_not_judged(world: World) -> None:
    world.rows.clear()
    world.claims.clear()
    world.start()
    world.say(1, Outcome.DUPLICATE, 101)
    world.say(1, Outcome.INDETERMINATE, resolved=101)
    assert broken(world.snapshot()) == set()
    (remark,) = findings(world.snapshot(), "duplicate_truthful", Verdict.PASS)
    assert "order 101, user 1, voucher 1: still no row" in str(remark)


def test_an_order_that_was_still_queued_before_the_run_and_is_a_row_now_is_true() -> None:
    world = World(units=2)
    world.sell_in_ledger(1, 101)
    world.start()
    world.persist(1, 101)
    world.say(1, Outcome.DUPLICATE, 101)
    assert broken(world.snapshot()) == set()
    assert not findings(world.snapshot(), "duplicate_truthful", Verdict.PASS)


def test_an_order_that_was_a_row_before_the_run_must_still_be_one(world: World) -> None:
    world.claims.clear()
    world.start()
    world.say(1, Outcome.DUPLICATE, 101)
    world.rows.clear()
    assert "order 101" in violations(world.snapshot(), "duplicate_truthful")


def test_while_orders_are_queued_a_missing_one_is_in_doubt(world: World) -> None:
    world.rows.clear()
    assert not violations(world.snapshot(QUEUED), "duplicate_truthful")
    assert "order 101" in doubts(world.snapshot(QUEUED), "duplicate_truthful")


def test_a_duplicate_before_the_order_was_asked_for_is_named() -> None:
    world = World(units=2)
    world.say(1, Outcome.DUPLICATE, 101, sent_us=0, done_us=50)
    world.say(1, Outcome.SOLD, 101, sent_us=60, done_us=70)
    world.sell(1, 101)
    found = violations(world.snapshot(), "duplicate_truthful")
    assert "order 101, user 1, voucher 1: told of it 10 µs before it was asked for" in found


def test_on_two_clocks_nobody_knows_which_was_earlier() -> None:
    world = World(units=2)
    world.say(1, Outcome.DUPLICATE, 101, sent_us=0, done_us=50, clock=1)
    world.say(1, Outcome.SOLD, 101, sent_us=60, done_us=70, clock=2)
    world.sell(1, 101)
    assert broken(world.snapshot()) == set()


@pytest.mark.parametrize(("sent_us", "done_us"), [(50, 70), (40, 70), (NEVER, NEVER)])
def test_claims_that_overlap_may_be_answered_in_any_order(sent_us: int, done_us: int) -> None:
    world = World(units=2)
    world.say(1, Outcome.DUPLICATE, 101, sent_us=0, done_us=50)
    world.say(1, Outcome.SOLD, 101, sent_us=sent_us, done_us=done_us)
    world.sell(1, 101)
    assert broken(world.snapshot()) == set()


def test_a_duplicate_that_arrived_at_no_known_instant_may_have_come_late() -> None:
    world = World(units=2)
    world.say(1, Outcome.SOLD, 101, sent_us=60, done_us=70)
    world.say(1, Outcome.DUPLICATE, 101, sent_us=65, done_us=NEVER)
    world.sell(1, 101)
    assert broken(world.snapshot()) == set()


# sold_out_truthful


def _sold_out_then_sold(sent_us: int) -> World:
    world = World(units=1)
    world.say(9, Outcome.SOLD_OUT, sent_us=0, done_us=100)
    world.say(1, Outcome.SOLD, 101, sent_us=sent_us, done_us=sent_us + 50)
    world.sell(1, 101)
    return world


def test_a_sale_sent_after_a_sold_out_arrived_is_named() -> None:
    found = violations(_sold_out_then_sold(130).snapshot(), "sold_out_truthful")
    assert "order 101, user 1, voucher 1: sent 30 µs after user 9 had been told “sold out”" in found


def test_a_microsecond_is_late_enough() -> None:
    assert "sent 1 µs after" in violations(_sold_out_then_sold(101).snapshot(), "sold_out_truthful")


@pytest.mark.parametrize("sent_us", [50, 100])
def test_a_sale_that_was_under_way_by_then_is_fine(sent_us: int) -> None:
    assert broken(_sold_out_then_sold(sent_us).snapshot()) == set()


def test_what_another_clock_saw_says_nothing_and_what_ones_own_saw_does() -> None:
    world = _sold_out_then_sold(130)
    world.claims[0].clock, world.claims[1].clock = 1, 2
    assert broken(world.snapshot()) == set()
    (remark,) = findings(world.snapshot(), "sold_out_truthful", Verdict.PASS)
    assert "if the two clocks agree: order 101" in str(remark)
    assert "sent 30 µs after user 9" in str(remark)
    world.say(8, Outcome.SOLD_OUT, sent_us=0, done_us=120, clock=2)
    found = violations(world.snapshot(), "sold_out_truthful")
    assert "sent 10 µs after user 8 had been told “sold out”" in found
    assert not findings(world.snapshot(), "sold_out_truthful", Verdict.PASS)


def test_another_vouchers_sold_out_says_nothing() -> None:
    world = World(units=2)
    world.buy(1, 101)
    other = World(units=0, voucher=2)
    other.say(9, Outcome.SOLD_OUT, sent_us=0, done_us=1)
    assert broken(together([other, world])) == set()


def test_the_earliest_sold_out_counts() -> None:
    world = _sold_out_then_sold(130)
    world.say(8, Outcome.SOLD_OUT, sent_us=200, done_us=300)
    assert "after user 9" in violations(world.snapshot(), "sold_out_truthful")


def test_an_unanswered_claim_that_sold_late_is_named() -> None:
    world = _sold_out_then_sold(130)
    world.claims[1].outcome = Outcome.INDETERMINATE
    world.claims[1].order = 0
    assert "order 101, user 1" in violations(world.snapshot(), "sold_out_truthful")


def test_an_unanswered_claim_beside_an_earlier_one_is_not_blamed() -> None:
    world = _sold_out_then_sold(130)
    world.claims[1].outcome = Outcome.INDETERMINATE
    world.claims[1].order = 0
    world.say(1, Outcome.INDETERMINATE, sent_us=10, done_us=20)
    assert broken(world.snapshot()) == set()


def test_a_returned_unit_may_be_sold_after_sold_out() -> None:
    world = World(units=1)
    world.buy(5, 105)
    world.say(9, Outcome.SOLD_OUT, sent_us=30, done_us=100)
    world.end(105)
    world.say(1, Outcome.SOLD, 101, sent_us=130, done_us=150)
    world.sell(1, 101)
    assert broken(world.snapshot()) == set()
    (remark,) = findings(world.snapshot(), "sold_out_truthful", Verdict.PASS)
    assert "voucher 1: 1 orders, 1 units returned" in str(remark)


def test_an_order_of_before_that_was_cancelled_in_the_run_returns_its_unit() -> None:
    world = World(units=1)
    world.sell(5, 105)
    world.start()
    world.say(9, Outcome.SOLD_OUT, sent_us=0, done_us=100)
    world.end(105)
    world.say(1, Outcome.SOLD, 101, sent_us=130, done_us=150)
    world.sell(1, 101)
    assert broken(world.snapshot()) == set()


def test_an_order_that_had_ended_before_the_run_returns_nothing() -> None:
    world = World(units=1)
    world.sell(5, 105)
    world.end(105)
    world.start()
    world.say(9, Outcome.SOLD_OUT, sent_us=0, done_us=100)
    world.say(1, Outcome.SOLD, 101, sent_us=130, done_us=150)
    world.sell(1, 101)
    assert "order 101" in violations(world.snapshot(), "sold_out_truthful")


def test_a_restock_may_be_sold_after_sold_out() -> None:
    world = World(units=0)
    world.say(9, Outcome.SOLD_OUT, sent_us=0, done_us=100)
    world.restock(1)
    world.say(1, Outcome.SOLD, 101, sent_us=130, done_us=150)
    world.sell(1, 101)
    assert broken(world.snapshot()) == set()


def test_units_that_came_may_be_sold_though_others_went() -> None:
    world = World(units=2)
    world.restock(-1)
    world.say(8, Outcome.SOLD, 100, sent_us=0, done_us=10)
    world.sell(8, 100)
    world.say(9, Outcome.SOLD_OUT, sent_us=20, done_us=100)
    world.restock(1)
    world.say(1, Outcome.SOLD, 101, sent_us=130, done_us=150)
    world.sell(1, 101)
    assert broken(world.snapshot()) == set()
    world.ledger["restocked"] = 0
    assert broken(world.snapshot()) == {"sold_out_truthful"}, "as many as before"


def test_units_that_came_before_the_run_excuse_nothing() -> None:
    world = World(units=0)
    world.restock(1)
    world.start()
    world.say(9, Outcome.SOLD_OUT, sent_us=0, done_us=100)
    world.say(1, Outcome.SOLD, 101, sent_us=130, done_us=150)
    world.sell(1, 101)
    assert "sold_out_truthful" in broken(world.snapshot())


def test_more_sales_than_returned_units_are_named() -> None:
    world = World(units=2)
    world.say(9, Outcome.SOLD_OUT, sent_us=0, done_us=100)
    world.restock(1)
    for user in (1, 2):
        world.say(user, Outcome.SOLD, 100 + user, sent_us=130, done_us=150)
        world.sell(user, 100 + user)
    (finding,) = findings(world.snapshot(), "sold_out_truthful", Verdict.FAIL)
    assert finding.total == 2


def test_without_a_baseline_a_late_sale_may_be_a_restock() -> None:
    world = _sold_out_then_sold(130)
    world.before = None
    assert not violations(world.snapshot(), "sold_out_truthful")
    assert "order 101" in doubts(world.snapshot(), "sold_out_truthful")


# Rows of a shop of its own


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("units", "is_wrong", "is_odd"),
    [((2, 2), False, False), ((2, 1), True, False), ((3, 2), True, False), ((1, 1), False, True)],
)
def test_an_order_has_the_units_that_were_asked_for(
    units: tuple[int, int], is_wrong: bool, is_odd: bool, named: bool
) -> None:
    world = World(units=9)
    for user in (1, 2):
        world.say(user, Outcome.SOLD, 100 + user if named else NO_ORDER)
        world.sell(user, 100 + user)
    snapshot = world.snapshot()
    sale = replace(snapshot.sales[0], quantity=2)
    sale.rows.units.extend(units)
    snapshot = replace(snapshot, sales=(sale,))
    what = "another number of units than was asked for"
    assert (what in violations(snapshot, "accepted_persisted")) is is_wrong
    assert (what in doubts(snapshot, "accepted_persisted")) is is_odd


def test_an_earlier_order_without_a_place_in_redis_returns_no_unit() -> None:
    """A shop without holders in Redis: nothing there gives a unit back for a row from before."""
    world = World(units=3)
    world.sell(9, 109)
    world.members.clear()
    world.receipts.clear()
    world.start()
    world.claims.clear()
    world.say(1, Outcome.SOLD_OUT, sent_us=0, done_us=100)
    world.say(2, Outcome.SOLD, 102, sent_us=130, done_us=150)
    world.sell(2, 102)
    sale = world.snapshot().sales[0]
    assert sale.before is not None
    assert sale.before.unsettled == {9}
    assert sale.returned == 0
    assert "order 102" in violations(world.snapshot(), "sold_out_truthful")
