import pytest

from flashsale.model import Outcome
from flashsale.storm.figures.sale import BuyAttempt, BuyAttempts, Sellout, sellout_of

SOLD, GONE = Outcome.SOLD, Outcome.SOLD_OUT


def claim(
    user: int, sent: int, done: int, ending: Outcome, holds: bool | None = None
) -> BuyAttempt:
    return BuyAttempt(user, sent, done, ending, ending is SOLD if holds is None else holds)


def of(*claims: BuyAttempt, units: int | None = 2) -> Sellout:
    return sellout_of(BuyAttempts(7, units, list(claims)))


HELD = of(
    claim(1, 0, 10, SOLD),
    claim(2, 0, 30, SOLD),
    claim(3, 0, 20, GONE),  # the first to know, although the last order is still on its way
    claim(4, 0, 50, GONE),
    claim(5, 45, 60, GONE),
)


def test_a_voucher_that_sold_out() -> None:
    assert (HELD.sold, HELD.refused, HELD.untold) == (2, 3, 0)
    assert (HELD.left, HELD.undersold) == (0, 0)
    assert HELD.sold_out_us == 30
    assert HELD.first_told_us == 20


def test_propagation_runs_from_the_first_proof_or_from_a_later_claim() -> None:
    assert HELD.waits.count == 3
    assert HELD.waits.max_us == 30  # user 4: asked before, told at 50
    assert of(claim(1, 0, 10, SOLD), claim(3, 900, 905, GONE), units=1).waits.max_us == 5


def test_the_last_units_order_is_a_proof_too() -> None:
    found = of(claim(1, 0, 10, SOLD), claim(2, 0, 40, GONE), units=1)
    assert found.waits.max_us == 30
    assert found.late_sold == 0


def test_orders_told_after_the_first_sold_out_are_late() -> None:
    assert (HELD.late_sold, HELD.late_by_us) == (1, 10)


def test_all_sold_and_nobody_refused_is_sold_out() -> None:
    found = of(claim(1, 0, 10, SOLD), claim(2, 0, 30, SOLD))
    assert (found.sold_out_us, found.first_told_us, found.waits.count) == (30, None, 0)


def test_units_left_while_buyers_were_refused_are_undersold() -> None:
    found = of(claim(1, 0, 10, SOLD), claim(2, 0, 20, GONE), units=5)
    assert (found.left, found.undersold) == (4, 1)
    assert found.sold_out_us is None


def test_what_is_in_doubt_is_no_proof_of_underselling() -> None:
    doubt = claim(2, 0, 99, Outcome.INDETERMINATE)
    assert of(doubt, claim(3, 0, 20, GONE), units=1).undersold == 0
    settled = claim(2, 0, 99, Outcome.SHED)
    assert of(settled, claim(3, 0, 20, GONE), units=1).undersold == 1
    found_out = claim(2, 0, 99, Outcome.INDETERMINATE, holds=True)
    assert of(found_out, claim(3, 0, 20, GONE), units=1).left == 0


def test_who_holds_an_order_was_not_refused() -> None:
    again = of(claim(1, 0, 10, SOLD), claim(1, 20, 30, GONE), units=5)
    assert (again.refused, again.undersold) == (0, 0)


def test_a_sale_with_units_left_and_nobody_refused_is_not_sold_out() -> None:
    found = of(claim(1, 0, 10, SOLD), units=5)
    assert (found.left, found.undersold, found.sold_out_us) == (4, 0, None)


def test_units_that_nobody_knows_are_not_guessed() -> None:
    found = of(claim(1, 0, 10, SOLD), claim(2, 0, 20, GONE), units=None)
    assert (found.left, found.undersold) == (None, None)
    assert found.sold_out_us == 10


@pytest.mark.parametrize("ending", [Outcome.SHED, Outcome.INDETERMINATE, Outcome.RATE_LIMITED])
def test_buyers_left_without_an_answer_are_untold(ending: Outcome) -> None:
    found = of(claim(1, 0, 10, GONE), claim(2, 0, 20, ending), units=0)
    assert found.untold == 1
    told_later = of(claim(1, 0, 10, ending), claim(1, 11, 20, GONE), units=0)
    assert told_later.untold == 0
    assert of(claim(1, 0, 10, ending), units=5).untold == 0  # the stock is not gone
