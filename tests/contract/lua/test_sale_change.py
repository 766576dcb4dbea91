"""sale_change.lua: a change is made once, and never below what is sold."""

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import claim, everything, open_sale, stock

from flashsale import keys
from flashsale.lua.scripts import script

CHANGE = script("sale_change")
NAMES = [keys.seckill_stock(1), keys.seckill_sale(1)]
CHANGED, REFUSED, LATER, NOT_LOADED = 1, 0, 2, -1


def change(ledger: Redis, number: int | str, units: int | str = 0, state: str = "") -> int:
    return int(ledger.eval(CHANGE.text, 2, *NAMES, number, units, state))  # type: ignore[arg-type]


def sale(ledger: Redis) -> dict[str, str]:
    found: dict[str, str] = ledger.hgetall(NAMES[1])  # type: ignore[assignment]
    return found


def test_units_come_and_go_with_initial(ledger: Redis) -> None:
    open_sale(ledger, units=10)
    claim(ledger, (7, 70))
    assert change(ledger, 3, 5) == CHANGED
    assert (stock(ledger), sale(ledger)["initial"]) == (14, "15")
    assert change(ledger, 4, -14) == CHANGED
    assert (stock(ledger), sale(ledger)["initial"]) == (0, "1")


def test_once_however_often_it_is_asked(ledger: Redis) -> None:
    open_sale(ledger, units=10)
    assert change(ledger, 3, 5) == CHANGED
    before = everything(ledger)
    assert [change(ledger, 3, 5) for _ in range(3)] == [CHANGED] * 3
    assert everything(ledger) == before


def test_an_earlier_change_comes_too_late(ledger: Redis) -> None:
    open_sale(ledger, units=10)
    change(ledger, 10, 5)
    before = everything(ledger)
    assert change(ledger, 9, 5) == LATER, "numbers, not texts: 9 is before 10"
    assert everything(ledger) == before


def test_never_below_what_is_sold_and_a_refusal_stays_the_answer(ledger: Redis) -> None:
    open_sale(ledger, units=2)
    claim(ledger, (7, 70))
    assert change(ledger, 3, -2) == REFUSED
    assert (stock(ledger), sale(ledger)["initial"]) == (1, "2")
    change_later = {"change": "3", "refused": "1"}
    assert change_later.items() <= sale(ledger).items()
    ledger.incr(NAMES[0])  # a unit comes back: too late for this change
    assert change(ledger, 3, -2) == REFUSED
    assert change(ledger, 4, -2) == CHANGED
    assert change(ledger, 4, -2) == CHANGED


def test_claims_are_told_the_state(ledger: Redis) -> None:
    open_sale(ledger, units=10)
    for number, (state, code) in enumerate((("paused", 6), ("open", 0), ("closed", 4)), 1):
        assert change(ledger, number, 0, state) == CHANGED
        assert claim(ledger, (number, number))[0][0] == code
    assert claim(ledger, (2, 5)) == [(2, "2")], "a winner learns the truth of a closed sale, too"


@pytest.mark.parametrize("lost", NAMES)
def test_what_is_not_loaded_is_not_made_up(ledger: Redis, lost: str) -> None:
    open_sale(ledger)
    ledger.delete(lost)
    before = everything(ledger)
    assert change(ledger, 1, 5, "open") == NOT_LOADED
    assert everything(ledger) == before


@pytest.mark.parametrize(
    ("number", "units"), [("0", 1), ("x", 1), ("1" * 16, 1), (1, "1.5"), (1, "+1"), (1, "-0")]
)
def test_arguments_that_are_none_are_refused(
    ledger: Redis, number: int | str, units: int | str
) -> None:
    open_sale(ledger)
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        change(ledger, number, units)
    assert everything(ledger) == before


@pytest.mark.parametrize("place", [0, 1])
def test_a_key_of_a_wrong_type_leaves_everything_untouched(ledger: Redis, place: int) -> None:
    open_sale(ledger)
    ledger.delete(NAMES[place])
    ledger.rpush(NAMES[place], "x")
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        change(ledger, 1, 5)
    assert everything(ledger) == before
