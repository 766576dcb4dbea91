"""seckill.lua on a ledger that may be behind: without its permit, or with books that disagree."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import (
    claim,
    claim_by_session,
    claim_keys,
    everything,
    now_ms,
    open_sale,
    run,
    session,
    sign_in,
    sold,
    stock,
)

from flashsale import keys

SOLD, DUPLICATE, NOBODY, BEHIND = 0, 2, 8, 9
PERMIT = (BEHIND, "permit")
BOOKS = (BEHIND, "books")
LATER = 2**52


def permitted(ledger: Redis, permit: str, *pairs: tuple[str, int]) -> list[tuple[int, str]]:
    """A claim by sessions that names a permit."""
    args: list[Any] = [1, LATER]
    args += [part for _, order in pairs for part in ("", order)]
    names = [*claim_keys(), *(name for name, _ in pairs), keys.PERMIT]
    reply = run(ledger, names, [*args, 3_600_000, 60_000, 86_400_000, permit])
    return list(zip(reply[::2], reply[1::2], strict=True))


@pytest.fixture(autouse=True)
def _sale(ledger: Redis) -> None:
    open_sale(ledger, units=10)
    sign_in(ledger, 1, 2, 3)


# The permit ---------------------------------------------------------------------------------------


def test_under_the_permit_in_force_a_claim_is_as_ever(ledger: Redis) -> None:
    ledger.set(keys.PERMIT, "run:1")
    answers = permitted(ledger, "run:1", (session(1), 11), (session(9), 12), (session(1), 13))
    assert answers == [(SOLD, "11"), (NOBODY, ""), (DUPLICATE, "11")]
    assert sold(ledger) == {"1": "11"}


@pytest.mark.parametrize("found", [None, "run:2", "", "run:11", "run"], ids=repr)
def test_under_another_nothing_is_sold_and_nothing_told(ledger: Redis, found: str | None) -> None:
    """Not even a receipt: it may be of an order that was cancelled after it came to be."""
    claim(ledger, (1, 11))
    if found is not None:
        ledger.set(keys.PERMIT, found)
    before = everything(ledger)
    pairs = ((session(1), 12), (session(2), 13), (session(9), 14))
    assert permitted(ledger, "run:1", *pairs) == [PERMIT] * 3
    assert everything(ledger) == before


def test_a_flushed_ledger_knows_nobody_and_says_that_it_is_behind(ledger: Redis) -> None:
    """And not 401, which would have every user sign in again."""
    ledger.flushall()
    assert permitted(ledger, "run:1", (session(1), 11)) == [PERMIT]
    assert everything(ledger) == {}


def test_a_permit_of_another_type_is_none(ledger: Redis) -> None:
    ledger.sadd(keys.PERMIT, "run:1")
    before = everything(ledger)
    with pytest.raises(ResponseError):
        permitted(ledger, "run:1", (session(1), 11))
    assert everything(ledger) == before


@pytest.mark.parametrize(
    ("names", "args"),
    [
        ([keys.PERMIT], ["1", LATER, "7", "1001", "run:1"]),
        ([session(1), keys.PERMIT], ["1", LATER, "", "1001", 5, 5, "run:1"]),
        ([session(1), session(2), keys.PERMIT], ["1", LATER, "", "1001", 5, 5, 5, "run:1"]),
        ([session(1)], ["1", LATER, "", "1001", 5, 5, 5, "run:1"]),
    ],
    ids=["without sessions", "one word short", "a session too many", "without its key"],
)
def test_malformed_permits_are_refused(ledger: Redis, names: list[str], args: list[Any]) -> None:
    ledger.set(keys.PERMIT, "run:1")
    before = everything(ledger)
    with pytest.raises(ResponseError, match="REFUSED"):
        run(ledger, [*claim_keys(), *names], args)
    assert everything(ledger) == before


# Books that disagree ------------------------------------------------------------------------------


def _half_a_receipt(ledger: Redis) -> None:
    ledger.hdel(keys.seckill_receipt(1), "1")
    ledger.hset(keys.seckill_receipt(1), "999", "999")


SPOILT: dict[str, Callable[[Redis], object]] = {
    "the set": lambda ledger: ledger.delete(keys.seckill_order(1)),
    "one of the set": lambda ledger: ledger.srem(keys.seckill_order(1), "1"),
    "the receipts": lambda ledger: ledger.delete(keys.seckill_receipt(1)),
    "one receipt": lambda ledger: ledger.hdel(keys.seckill_receipt(1), "1"),
    "set and receipts": lambda ledger: ledger.delete(
        keys.seckill_order(1), keys.seckill_receipt(1)
    ),
    "a unit too many": lambda ledger: ledger.incr(keys.seckill_stock(1)),
    "a unit too few": lambda ledger: ledger.decr(keys.seckill_stock(1)),
    "an older stock": lambda ledger: ledger.set(keys.seckill_stock(1), 10),
    "other terms": lambda ledger: ledger.hset(keys.seckill_sale(1), "initial", 11),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_a_sale_whose_keys_disagree_sells_nothing(
    ledger: Redis, spoil: Callable[[Redis], object]
) -> None:
    claim(ledger, (1, 11), (2, 12))
    spoil(ledger)
    before = everything(ledger)
    receipts: Any = ledger.hgetall(keys.seckill_receipt(1))
    told = [(DUPLICATE, receipts[user]) if user in receipts else BOOKS for user in ("1", "2")]
    assert claim(ledger, (1, 21), (2, 22), (3, 23)) == [*told, BOOKS], "a receipt outranks it"
    assert claim(ledger, (3, 24), deadline_ms=now_ms() - 2) == [BOOKS], "the deadline does not"
    assert everything(ledger) == before


def test_whoever_is_in_the_set_buys_no_more_even_where_all_the_counts_agree(ledger: Redis) -> None:
    claim(ledger, (1, 11), (2, 12))
    _half_a_receipt(ledger)
    assert claim(ledger, (1, 21), (2, 22), (3, 23)) == [BOOKS, (DUPLICATE, "12"), (SOLD, "23")]
    assert stock(ledger) == 7
    assert ledger.scard(keys.seckill_order(1)) == 3


def test_a_sale_without_initial_units_is_held_to_its_set_and_receipts(ledger: Redis) -> None:
    ledger.hdel(keys.seckill_sale(1), "initial")
    ledger.set(keys.seckill_stock(1), 3)
    assert claim(ledger, (1, 11)) == [(SOLD, "11")]
    ledger.delete(keys.seckill_order(1))
    assert claim(ledger, (2, 12)) == [BOOKS]


def test_sessions_are_looked_up_first(ledger: Redis) -> None:
    claim(ledger, (1, 11))
    ledger.delete(keys.seckill_order(1))
    answers = claim_by_session(ledger, (session(9), 12), (session(1), 13), (session(2), 14))
    assert answers == [(NOBODY, ""), (DUPLICATE, "11"), BOOKS]
