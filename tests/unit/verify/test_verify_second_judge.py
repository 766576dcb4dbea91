"""Two judges over whole histories: where both agree, and where only the second can see."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from rig.sale_world import Row, World, broken

from flashsale.model import Outcome, Verdict
from flashsale.report.html import _timeline
from flashsale.verify import linearizability
from flashsale.verify.finding import CheckResult
from flashsale.verify.linearizability import LINEARIZABLE, linearizable
from flashsale.verify.verdict import judge

SOLD, SOLD_OUT, DUPLICATE = Outcome.SOLD, Outcome.SOLD_OUT, Outcome.DUPLICATE
OPEN = Outcome.INDETERMINATE


def of_a_shop(world: World) -> CheckResult:
    """The same of a shop that has no ledger, by its database alone."""
    snapshot = world.snapshot()
    sales = []
    for sale in snapshot.sales:
        assert sale.before is not None
        before = replace(sale.before, redis_stock=None, redis_initial=None, unsettled=frozenset())
        sales.append(replace(sale, before=before))
    foreign = replace(snapshot, sales=tuple(sales), rests_on=("orders of the shop's database",))
    (found,) = (c for c in judge(foreign).checks if c.name == LINEARIZABLE)
    return found


def second(world: World) -> CheckResult:
    """What the second judge says, as it stands among the checks."""
    (found,) = (c for c in judge(world.snapshot()).checks if c.name == LINEARIZABLE)
    return found


# Histories in which every count is right, every promise kept, and the order of answers wrong.


def a_winner_is_told_sold_out(world: World) -> str:
    world.buy(1, 101)
    world.buy(2, 102)
    world.say(1, SOLD_OUT)
    return "user 1, voucher 1: told “sold out” while holding an order (order 101)"


def who_was_told_duplicate_is_told_sold_out(world: World) -> str:
    world.say(1, OPEN)
    world.sell(1, 101)
    world.buy(2, 102)
    world.say(1, DUPLICATE, 101)
    world.say(1, SOLD_OUT)
    return "user 1, voucher 1: told “sold out”"


def two_answers_to_one_user_at_once(world: World) -> str:
    """Sold and sold out overlap: whichever was first, the other is a lie."""
    world.sell(1, 101)
    world.say(1, SOLD, 101, sent_us=10, done_us=50)
    world.say(1, SOLD_OUT, sent_us=20, done_us=60)
    world.buy(2, 102)
    return "told “sold out” while holding an order (order 101)"


def a_duplicate_before_anything_was_asked(world: World) -> str:
    """No id came with it, so nothing but the order of the answers tells."""
    world.say(1, DUPLICATE)
    world.buy(1, 101)
    world.buy(2, 102)
    return "told “duplicate” before any claim of theirs had been sent that can have sold"


def a_duplicate_before_the_sale_beside_a_claim_that_came_later(world: World) -> str:
    world.say(1, DUPLICATE, 101)
    world.buy(1, 101)
    world.say(1, OPEN)
    world.buy(2, 102)
    return "told “duplicate” before any claim of theirs had been sent that can have sold"


def sold_out_before_a_unit_could_be_gone_that_came_back_later(world: World) -> str:
    """One sale was late, and one unit came back: the count excuses it, the order does not."""
    world.buy(1, 101)
    world.say(3, SOLD_OUT)
    world.buy(2, 102)
    world.end(102)
    return "user 3, voucher 1: told “sold out” when 1 unit cannot have been sold yet"


def sold_out_with_units_that_nobody_had_taken(world: World) -> str:
    """What is left is as much as came back, so no count shows that none was gone."""
    world.say(3, SOLD_OUT)
    world.buy(1, 101)
    world.end(101)
    world.buy(2, 102)
    world.end(102)
    return "user 3, voucher 1: told “sold out” when 2 units cannot have been sold yet"


def sold_out_before_the_claims_that_took_the_last_unit(world: World) -> str:
    """They had no answer, and two of them were of one user: which one sold, no count tells."""
    world.buy(1, 101)
    world.say(3, SOLD_OUT)
    world.say(2, OPEN)
    world.say(2, OPEN)
    world.sell(2, 102)
    return "user 3, voucher 1: told “sold out” when 1 unit cannot have been sold yet"


def sold_out_before_a_claim_that_turned_out_to_have_sold(world: World) -> str:
    world.buy(1, 101)
    world.say(3, SOLD_OUT)
    world.say(2, Outcome.SHED)
    world.say(2, OPEN, resolved=102)
    world.sell(2, 102)
    return "user 3, voucher 1: told “sold out” when 1 unit cannot have been sold yet"


def duplicate_before_the_claims_that_can_have_sold_it(world: World) -> str:
    """Nobody was told that it was sold, so no check knows when it was."""
    world.say(1, DUPLICATE, 101)
    world.say(1, OPEN)
    world.sell(1, 101)
    world.buy(2, 102)
    return "told “duplicate” before any claim of theirs had been sent that can have sold"


TEN = [
    a_winner_is_told_sold_out,
    who_was_told_duplicate_is_told_sold_out,
    two_answers_to_one_user_at_once,
    a_duplicate_before_anything_was_asked,
    a_duplicate_before_the_sale_beside_a_claim_that_came_later,
    sold_out_before_a_unit_could_be_gone_that_came_back_later,
    sold_out_with_units_that_nobody_had_taken,
    sold_out_before_the_claims_that_took_the_last_unit,
    sold_out_before_a_claim_that_turned_out_to_have_sold,
    duplicate_before_the_claims_that_can_have_sold_it,
]


@pytest.mark.parametrize("history", TEN, ids=lambda history: history.__name__)
def test_the_second_judge_sees_what_no_count_can(history: Callable[[World], str]) -> None:
    world = World(units=2)
    says = history(world)
    assert broken(world.snapshot()) == set()  # every check of the first passes
    found = second(world)
    assert found.verdict == Verdict.FAIL
    assert says in found.detail
    assert judge(world.snapshot()).exit_code == 3
    assert [step["illegal"] for step in found.history].count(True) == 1
    assert len(found.history) <= 3


# Histories of a sale that answers as it should, and the same with one fault that both can see.


def _play(seed: int) -> World:
    """A sale at random: claims overlap, are asked again, lost, refused; units come back."""
    random = Random(seed)
    world = World(units=random.randint(1, 5))
    for n in range(random.randint(8, 40)):
        at_us, user = 100 * n, random.randint(1, 8)
        instants = {
            "sent_us": at_us - random.randint(0, 250),
            "done_us": at_us + random.randint(0, 250),
        }
        lost = random.random() < 0.15
        outcome, order = SOLD_OUT, 0
        if user in world.receipts:
            outcome, order = DUPLICATE, world.receipts[user]
        elif world.ledger["stock"]:
            outcome, order = SOLD, 1_000 + n
            world.sell(user, order)
        if lost:
            outcome, order = OPEN, 0
        world.say(user, outcome, order, **instants)
        if world.receipts and random.random() < 0.03:
            world.end(random.choice(list(world.receipts.values())))
    return world


@pytest.mark.parametrize("seed", range(20))
def test_two_judges_agree_on_a_good_history(seed: int) -> None:
    world = _play(seed)
    assert broken(world.snapshot()) == set()
    assert second(world).verdict == Verdict.PASS, second(world).detail


@pytest.mark.parametrize("seed", range(20))
def test_two_judges_agree_on_a_bad_history(seed: int) -> None:
    """More sold than there is, a user sold to twice, or a sale after a "sold out" had come."""
    world = _play(seed)
    match seed % 3:
        case 0:
            for user in range(
                900, 900 + world.ledger["stock"] + world.snapshot().sales[0].returned + 1
            ):
                world.buy(user, 9_000 + user)
        case 1:
            world.say(901, SOLD, 9_001)
            world.say(901, SOLD, 9_002)
            world.sell(901, 9_001)
            world.persist(901, 9_002)
        case _:
            world.restock(1)  # one more than anybody needs, at an instant that excuses one sale
            world.start()
            world.claims.clear()
            world.say(900, SOLD_OUT)
            for user in range(901, 901 + world.ledger["stock"]):
                world.buy(user, 9_000 + user)
    assert broken(world.snapshot()), seed
    assert second(world).verdict == Verdict.FAIL


# What a second judge may not hold against a sale.


@pytest.fixture
def world() -> World:
    """Two units, both sold; a third user refused, a winner told so."""
    world = World(units=2)
    world.buy(1, 101)
    world.buy(2, 102)
    world.say(3, SOLD_OUT)
    world.say(1, DUPLICATE, 101)
    return world


def test_a_good_history_passes_and_counts_what_hung_on_others(world: World) -> None:
    found = second(world)
    assert (found.verdict, found.history) == (Verdict.PASS, ())
    assert found.exercised == {"answers that hang on others": 2, "claims without an answer": 0}


def test_orders_from_before_the_run_are_held(world: World) -> None:
    world.claims.clear()
    world.start()
    world.say(1, DUPLICATE, 101)
    world.say(3, SOLD_OUT)
    assert second(world).verdict == Verdict.PASS
    world.say(2, SOLD_OUT)
    assert "user 2" in second(world).detail


def test_without_a_baseline_nobody_is_blamed_for_what_was_before(world: World) -> None:
    world.claims = world.claims[2:]
    world.before = None
    assert second(world).verdict == Verdict.PASS


def test_a_unit_that_went_to_a_stranger_is_gone(world: World) -> None:
    """`no_phantom` accuses whoever sold it; who was refused was told the truth."""
    world.claims = [claim for claim in world.claims if claim.user != 2]
    assert broken(world.snapshot()) == {"no_phantom"}
    assert second(world).verdict == Verdict.PASS


def test_a_restock_lets_a_sale_go_on(world: World) -> None:
    world.restock(1)
    world.buy(3, 103)
    world.say(4, SOLD_OUT)
    assert second(world).verdict == Verdict.PASS


def test_who_cancels_may_buy_again(world: World) -> None:
    world.end(101)
    world.buy(1, 201)
    world.say(1, DUPLICATE, 201)
    assert second(world).verdict == Verdict.PASS


def test_two_machines_clocks_are_not_compared(world: World) -> None:
    world.claims.insert(0, replace(world.claims[2], sent_us=0, done_us=1, clock=1))
    assert second(world).verdict == Verdict.PASS
    world.claims[0].clock = 0
    assert second(world).verdict == Verdict.FAIL


def test_users_on_whom_the_stores_did_not_agree_are_excused(world: World) -> None:
    world.claims.clear()
    world.receipts[7] = 777
    world.start()
    world.say(7, SOLD_OUT)
    world.say(7, DUPLICATE, 778)
    world.say(3, SOLD_OUT)
    assert second(world).verdict == Verdict.PASS


def test_a_long_history_is_shrunk_to_the_claim_that_has_no_place() -> None:
    world = World(units=300)
    for user in range(1, 301):
        world.buy(user, 1_000 + user)
        if user == 200:
            world.say(900, SOLD_OUT)
    found = second(world)
    assert "user 900, voucher 1: told “sold out” when" in found.detail
    assert [step["user"] for step in found.history] == [900]


def test_each_sale_is_judged_by_itself(world: World) -> None:
    opinion = linearizable(world.snapshot())
    assert opinion.findings == ()


def test_the_timeline_marks_the_answer_and_takes_no_strangers_word() -> None:
    world = World(units=2)
    two_answers_to_one_user_at_once(world)
    bars = _timeline(second(world).history)
    assert [(bar.who, bar.told, bar.illegal) for bar in bars] == [
        ("user 1", "sold order 101", False),
        ("user 1", "sold out", True),
    ]
    assert (bars[0].left, bars[1].instants) == (0.0, "20 µs – 60 µs")
    assert _timeline([{"user": 1}, "x", {"user": 1, "told": "sold", "sent_us": "x"}]) == []


# Somebody else's shop.


def test_what_a_shop_counted_before_the_run_decides_by_the_answers_alone(world: World) -> None:
    assert of_a_shop(world).verdict == Verdict.PASS
    world.claims.insert(0, replace(world.claims[2], user=4, sent_us=0, done_us=1))
    found = of_a_shop(world)
    assert found.verdict == Verdict.FAIL
    assert "user 4, voucher 1: told “sold out” when 2 units cannot have been sold yet" in (
        found.detail
    )


def test_more_sales_than_a_shop_counted_units_have_no_order(world: World) -> None:
    world.buy(5, 105)
    found = of_a_shop(world)
    assert found.verdict == Verdict.FAIL
    assert "told “sold” when no unit can have been left" in found.detail


@pytest.mark.parametrize("spoil", ["books", "restock"])
def test_what_a_shop_did_not_count_well_accuses_nobody(world: World, spoil: str) -> None:
    if spoil == "books":
        world.claims.clear()
        world.rows.clear()
        world.start()  # two units are gone, and no order has them
        for user in (7, 8):
            world.say(user, SOLD, 100 + user)
            world.rows.append(Row(100 + user, user))
    else:
        world.restock(1)
        world.buy(5, 105)
    world.say(4, SOLD_OUT)
    assert of_a_shop(world).verdict == Verdict.PASS


def test_who_holds_an_order_may_be_told_sold_out_by_a_shop(world: World) -> None:
    world.say(1, SOLD_OUT)
    assert of_a_shop(world).verdict == Verdict.PASS
    assert second(world).verdict == Verdict.FAIL


def test_what_is_not_decided_is_unknown_and_says_so_and_leaves_the_verdict_to_the_checks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.claims.insert(0, replace(world.claims[2], user=4, sent_us=0, done_us=1))
    monkeypatch.setattr(linearizability, "search", lambda *_: None)
    found = of_a_shop(world)
    assert found.verdict == Verdict.UNKNOWN
    assert "not decided within the bounds of the search" in found.detail
    assert "claims, and no order found for them" in found.detail
