"""budget_take.lua: from all of several counters, or from none."""

from collections.abc import Sequence

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from flashsale.lua.scripts import REFUSED, script

TAKE = script("budget_take")
WINDOW_MS = 60_000


def take(
    ledger: Redis, names: Sequence[str], limits: Sequence[int], window_ms: int = WINDOW_MS
) -> int:
    return int(ledger.eval(TAKE.text, len(names), *names, str(window_ms), *map(str, limits)))  # type: ignore[arg-type]


def test_a_budget_is_spent_and_tells_how_long(ledger: Redis) -> None:
    assert [take(ledger, ["a"], [3]) for _ in range(3)] == [0, 0, 0]
    assert WINDOW_MS - 5_000 < take(ledger, ["a"], [3]) <= WINDOW_MS
    assert ledger.get("a") == "3", "a refused call costs nothing"


def test_the_window_begins_with_the_first_take(ledger: Redis) -> None:
    take(ledger, ["a"], [2])
    ledger.pexpire("a", 1_000)
    take(ledger, ["a"], [2])
    assert 0 < ledger.pttl("a") <= 1_000
    assert take(ledger, ["a"], [2]) <= 1_000
    ledger.delete("a")  # the window has ended
    assert take(ledger, ["a"], [2]) == 0


def test_none_is_taken_where_one_is_spent(ledger: Redis) -> None:
    assert take(ledger, ["a", "b"], [5, 1]) == 0
    assert take(ledger, ["a", "b"], [5, 1]) > 0
    assert (ledger.get("a"), ledger.get("b")) == ("1", "1")


def test_the_longest_wait_counts(ledger: Redis) -> None:
    take(ledger, ["a", "b"], [1, 1])
    ledger.pexpire("a", 5_000)
    assert take(ledger, ["a", "b"], [1, 1]) > 50_000


def test_a_counter_that_would_never_end_starts_anew(ledger: Redis) -> None:
    ledger.set("a", 99)
    assert take(ledger, ["a"], [3]) == 0
    assert ledger.get("a") == "1"
    assert ledger.pttl("a") > 0


@pytest.mark.parametrize(
    "args", [(), ("0", "1"), ("x", "1"), ("1000",), ("1000", "1", "2")], ids=str
)
def test_wrong_arguments_are_refused(ledger: Redis, args: tuple[str, ...]) -> None:
    with pytest.raises(ResponseError, match=REFUSED):
        ledger.eval(TAKE.text, 1, "a", *args)
    assert not ledger.exists("a")


def test_a_wrong_type_is_refused_before_anything_is_taken(ledger: Redis) -> None:
    ledger.sadd("b", "x")
    with pytest.raises(ResponseError, match=REFUSED):
        take(ledger, ["a", "b"], [1, 1])
    assert not ledger.exists("a")
