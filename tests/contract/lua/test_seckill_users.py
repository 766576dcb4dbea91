"""seckill.lua by user under a permit: the form for a cluster, where sessions are in other slots."""

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import HOUR_MS, everything, now_ms, open_sale, permit, run, sold, stock

from flashsale import keys
from flashsale.keys import WHOLE
from flashsale.seckill.batch import BY_USERS, Batch, make_batch_of_users

SOLD, SOLD_OUT, DUPLICATE, TOO_LATE, BEHIND = 0, 1, 2, 7, 9


def batch_of(ledger: Redis, *claims: tuple[int, int, str]) -> Batch:
    """For (user, order id, digest) each."""
    return make_batch_of_users(
        1,
        [str(user) for user, *_ in claims],
        [str(order) for _, order, _ in claims],
        now_ms() + HOUR_MS,
        WHOLE,
        [digest for *_, digest in claims],
        str(ledger.get(keys.PERMIT) or "none"),
    )


def claim(ledger: Redis, *claims: tuple[int, int, str]) -> list[tuple[int, str]]:
    made = batch_of(ledger, *claims)
    reply = run(ledger, made.call.keys, made.call.args)
    return list(zip(reply[::2], reply[1::2], strict=True))


def test_sold_sold_out_duplicate_and_a_replay(ledger: Redis) -> None:
    open_sale(ledger, units=2)
    permit(ledger)
    first = ((7, 1001, ""), (8, 1002, ""), (7, 1003, ""), (9, 1004, ""))
    told = [(SOLD, "1001"), (SOLD, "1002"), (DUPLICATE, "1001"), (SOLD_OUT, "")]
    assert claim(ledger, *first) == told
    assert sold(ledger) == {"7": "1001", "8": "1002"}
    told[0], told[1] = (DUPLICATE, "1001"), (DUPLICATE, "1002")
    assert claim(ledger, *first) == told
    assert stock(ledger) == 0


def test_a_digest_wins_again(ledger: Redis) -> None:
    open_sale(ledger)
    permit(ledger)
    mine, other = "a" * 32, "b" * 32
    assert claim(ledger, (7, 1, mine), (8, 2, "")) == [(SOLD, "1"), (SOLD, "2")]
    again = claim(ledger, (7, 3, mine), (7, 4, other), (8, 5, mine), (7, 6, ""))
    assert again == [(SOLD, "1"), (DUPLICATE, "1"), (DUPLICATE, "2"), (DUPLICATE, "1")]
    assert ledger.hgetall(keys.seckill_idempotency(1)) == {"7": f"{mine} 1"}
    assert sold(ledger) == {"7": "1", "8": "2"}


def test_without_the_permit_in_force_nothing_is_sold(ledger: Redis) -> None:
    open_sale(ledger)
    before = everything(ledger)
    assert claim(ledger, (7, 1, ""), (8, 2, "a" * 32)) == [(BEHIND, "permit")] * 2
    permit(ledger)
    made = batch_of(ledger, (7, 1, ""))
    ledger.set(keys.PERMIT, "another:permit")
    assert run(ledger, made.call.keys, made.call.args) == [BEHIND, "permit"]
    renewed = made.under("another:permit")
    assert renewed.call.args[-1] == BY_USERS
    assert run(ledger, renewed.call.keys, renewed.call.args) == [TOO_LATE, ""]
    ledger.delete(keys.PERMIT)
    assert everything(ledger) == before


@pytest.mark.parametrize("digest", ["", "a" * 32])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_call_of_another_form_is_refused(ledger: Redis, digest: str, change: int) -> None:
    open_sale(ledger)
    permit(ledger)
    before = everything(ledger)
    call = batch_of(ledger, (7, 1, digest), (8, 2, "")).call
    names, words = list(call.keys), list(call.args)
    short = words[:3] + words[4:] if change < 0 else [*words[:4], "9", *words[4:]]
    for some, args in ((names, short), ([*names[:-1], "a", "b", names[-1]], words)):
        with pytest.raises(ResponseError, match="REFUSED"):
            run(ledger, some, args)
    assert everything(ledger) == before
