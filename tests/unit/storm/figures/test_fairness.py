from collections.abc import Sequence

import pytest

from flashsale.model import Outcome
from flashsale.storm.figures.sale import BuyAttempt, Fairness, fairness_of

SOLD, GONE, DUPLICATE = Outcome.SOLD, Outcome.SOLD_OUT, Outcome.DUPLICATE
DOUBT, SHED = Outcome.INDETERMINATE, Outcome.SHED


def buyers(won: Sequence[bool]) -> list[BuyAttempt]:
    return [
        BuyAttempt(user, user, 100, SOLD if wins else GONE, wins)
        for user, wins in enumerate(won, 1)
    ]


def tries(*endings: Outcome, resolved: bool = False) -> list[BuyAttempt]:
    """The claims of one user."""
    return [BuyAttempt(7, n, 100, end, end is SOLD or resolved) for n, end in enumerate(endings)]


def test_first_come_first_served() -> None:
    found = fairness_of(buyers([True] * 20 + [False] * 80))
    assert found.win_rates == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert found.precedence == 1
    assert sum(found.buyers) == 100


def test_last_come_first_served_is_told_from_it() -> None:
    found = fairness_of(buyers([False] * 95 + [True] * 5))
    assert found.win_rates == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]
    assert found.precedence == 0


def test_a_lottery_is_near_one_half() -> None:
    found = fairness_of(buyers([True, False, False, True] * 25))
    assert found.precedence == pytest.approx(0.5, abs=0.01)
    assert found.win_rates == [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("won", [[], [True] * 9, [False] * 9])
def test_without_winners_and_losers_there_is_no_precedence(won: list[bool]) -> None:
    assert fairness_of(buyers(won)).precedence is None


def test_few_buyers_spread_over_the_tenths() -> None:
    assert fairness_of(buyers([True])).buyers == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert fairness_of(buyers([True, False])).win_rates[2] == 1
    assert fairness_of(buyers([True, False])).win_rates[7] == 0
    assert fairness_of(buyers([True, False])).win_rates[0] is None


@pytest.mark.parametrize(
    ("claims", "winners", "losers"),
    [
        (tries(GONE, SOLD), 1, 0),  # a unit came back
        (tries(SOLD, DUPLICATE), 1, 0),
        (tries(SHED, GONE), 0, 1),
        (tries(SHED), 0, 1),
        (tries(DUPLICATE), 0, 0),  # bought before the storm
        (tries(DOUBT), 0, 0),  # nobody knows
        (tries(DOUBT, resolved=True), 1, 0),
        (tries(DOUBT, DUPLICATE), 1, 0),  # the order in doubt is what it duplicates
        (tries(DOUBT, GONE), 0, 0),
    ],
)
def test_a_buyer_counts_once_however_often_they_ask(
    claims: list[BuyAttempt], winners: int, losers: int
) -> None:
    found = fairness_of(claims)
    assert sum(found.winners) == winners
    assert sum(found.buyers) == winners + losers


def test_vouchers_are_compared_within_themselves_and_counted_together() -> None:
    whole = Fairness()
    for count in (10, 30):
        whole.add(fairness_of(buyers([True] * (count // 2) + [False] * (count // 2))))
    assert whole.buyers == [4] * 10
    assert whole.win_rates == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert whole.precedence == 1
