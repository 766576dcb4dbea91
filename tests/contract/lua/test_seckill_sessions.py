"""seckill.lua by session: the user of a pair is who is behind its session, or nobody."""

from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from rig.sale import (
    HOUR_MS,
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
from flashsale.lua.scripts import NO_SESSION
from flashsale.model import ID_MAX

SOLD, SOLD_OUT, DUPLICATE, NOT_LOADED, PAUSED, LATE = 0, 1, 2, 5, 6, 7
REFRESH_MS = 60_000
SLIDING_MS = (HOUR_MS, REFRESH_MS, 24 * HOUR_MS)
NOBODY = keys.login_token("nobody")


def test_sold_to_who_is_behind_the_session(ledger: Redis) -> None:
    open_sale(ledger, units=3)
    sign_in(ledger, 7, ID_MAX)
    assert claim_by_session(ledger, (session(7), 1001), (session(ID_MAX), 1002)) == [
        (SOLD, "1001"),
        (SOLD, "1002"),
    ]
    assert sold(ledger) == {"7": "1001", str(ID_MAX): "1002"}
    assert stock(ledger) == 1


def test_nobody_takes_nothing_and_stands_in_nobodys_way(ledger: Redis) -> None:
    open_sale(ledger, units=2)
    sign_in(ledger, 7, 8)
    pairs = ((NOBODY, 1), (session(7), 1001), (NOBODY, 2), (session(8), 1002), (NOBODY, 3))
    assert [code for code, _ in claim_by_session(ledger, *pairs)] == [8, SOLD, 8, SOLD, 8]
    assert sold(ledger) == {"7": "1001", "8": "1002"}


@pytest.mark.parametrize("terms", [None, {}, {"state": "paused"}, {"units": 0}], ids=str)
def test_nobody_learns_nothing_of_the_sale(ledger: Redis, terms: dict[str, Any] | None) -> None:
    if terms is not None:
        open_sale(ledger, **terms)
    before = everything(ledger)
    for deadline_ms in (now_ms() + HOUR_MS, now_ms() - 2):
        pairs = ((NOBODY, 1), (NOBODY, 2))
        answers = claim_by_session(ledger, *pairs, deadline_ms=deadline_ms)
        assert answers == [(NO_SESSION, ""), (NO_SESSION, "")]
    assert everything(ledger) == before


def test_one_user_with_two_sessions_buys_once(ledger: Redis) -> None:
    open_sale(ledger)
    sign_in(ledger, 7)
    phone = keys.login_token("her phone")
    ledger.hset(phone, "id", "7")
    assert claim_by_session(ledger, (session(7), 1001), (phone, 1002), (session(7), 1003)) == [
        (SOLD, "1001"),
        (DUPLICATE, "1001"),
        (DUPLICATE, "1001"),
    ]
    assert claim_by_session(ledger, (phone, 1004)) == [(DUPLICATE, "1001")]
    assert claim(ledger, (7, 1005)) == [(DUPLICATE, "1001")], "the same user by id"
    assert stock(ledger) == 9


@pytest.mark.parametrize(
    "user_id",
    ["", "0", "-1", "+1", "01", "1.0", "1e3", " 1", "1 ", "abc", str(ID_MAX + 1), "9" * 20],
    ids=repr,
)
def test_a_session_of_no_user_is_none(ledger: Redis, user_id: str) -> None:
    open_sale(ledger)
    ledger.hset(session(7), "id", user_id)
    before = everything(ledger)
    assert claim_by_session(ledger, (session(7), 1001)) == [(NO_SESSION, "")]
    assert everything(ledger) == before


@pytest.mark.parametrize("kind", ["string", "list", "a hash without an id"])
def test_what_is_no_session_spoils_only_itself(ledger: Redis, kind: str) -> None:
    open_sale(ledger)
    sign_in(ledger, 8)
    match kind:
        case "string":
            ledger.set(session(7), "7")
        case "list":
            ledger.rpush(session(7), "7")
        case _:
            ledger.hset(session(7), "nickName", "n")
    answers = claim_by_session(ledger, (session(7), 1001), (session(8), 1002))
    assert answers == [(NO_SESSION, ""), (SOLD, "1002")]
    assert ledger.pttl(session(7)) == -1, "what is no session is not kept alive"


def test_a_replay_after_signing_out_says_nobody_and_changes_nothing(ledger: Redis) -> None:
    """Not `past the deadline`: the lost call may have sold."""
    open_sale(ledger)
    sign_in(ledger, 7)
    claim_by_session(ledger, (session(7), 1001))
    ledger.delete(session(7))
    before = everything(ledger)
    assert claim_by_session(ledger, (session(7), 1001)) == [(NO_SESSION, "")]
    assert claim_by_session(ledger, (session(7), 1001), deadline_ms=now_ms() - 2) == [
        (NO_SESSION, "")
    ]
    assert everything(ledger) == before


# Sliding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [{}, {"units": 0}, {"state": "paused"}], ids=str)
def test_a_session_in_use_slides_whatever_the_answer(ledger: Redis, terms: dict[str, Any]) -> None:
    open_sale(ledger, **terms)
    sign_in(ledger, 7)
    ledger.pexpire(session(7), HOUR_MS - REFRESH_MS - 1)
    claim_by_session(ledger, (session(7), 1001), sliding_ms=SLIDING_MS)
    assert HOUR_MS - 1000 < ledger.pttl(session(7)) <= HOUR_MS  # type: ignore[operator]


def test_it_slides_at_most_once_an_interval(ledger: Redis) -> None:
    open_sale(ledger)
    sign_in(ledger, 7)
    left_ms = HOUR_MS - REFRESH_MS + 20_000
    ledger.pexpire(session(7), left_ms)
    claim_by_session(ledger, (session(7), 1001), sliding_ms=SLIDING_MS)
    assert ledger.pttl(session(7)) <= left_ms  # type: ignore[operator]


@pytest.mark.parametrize(("ends_ms", "code"), [(-1, NO_SESSION), (0, NO_SESSION), (HOUR_MS, 0)])
def test_past_its_end_a_session_buys_nothing(ledger: Redis, ends_ms: int, code: int) -> None:
    open_sale(ledger)
    sign_in(ledger, 7)
    ledger.hset(session(7), "end", now_ms() + ends_ms)
    assert claim_by_session(ledger, (session(7), 1001))[0][0] == code


def test_a_claim_pushes_a_session_to_its_end_and_no_further(ledger: Redis) -> None:
    open_sale(ledger)
    sign_in(ledger, 7, 8)
    for user, ends_ms in ((7, HOUR_MS // 2), (8, 9 * HOUR_MS)):
        ledger.hset(session(user), "end", now_ms() + ends_ms)
        ledger.pexpire(session(user), 10_000)
    claim_by_session(ledger, (session(7), 1001), (session(8), 1002), sliding_ms=SLIDING_MS)
    left: list[Any] = [ledger.pttl(session(user)) for user in (7, 8)]
    assert HOUR_MS // 2 - 2_000 < left[0] <= HOUR_MS // 2
    assert HOUR_MS - 2_000 < left[1] <= HOUR_MS


def test_a_claim_gives_a_session_an_end(ledger: Redis) -> None:
    open_sale(ledger)
    sign_in(ledger, 7)
    ledger.hdel(session(7), "end")
    ledger.pexpire(session(7), 10_000)
    claim_by_session(ledger, (session(7), 1001), sliding_ms=SLIDING_MS)
    ends_ms: Any = ledger.hget(session(7), "end")
    assert abs(int(ends_ms) - now_ms() - SLIDING_MS[2]) < 5_000


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sessions", "after"),
    [
        (1, ["60000", "1000"]),  # two pairs, one session
        (3, ["60000", "1000"]),
        (2, []),
        (2, ["60000"]),
        (2, ["soon", "1000"]),
        (2, ["60000", ""]),
        (2, ["60000.5", "1000"]),
        (2, ["nan", "1000"]),
        (2, ["-1", "1000"]),
        (2, ["9" * 20, "1000"]),  # PEXPIRE would refuse it, after the sale was written
    ],
    ids=str,
)
def test_malformed_calls_are_refused(ledger: Redis, sessions: int, after: list[str]) -> None:
    open_sale(ledger)
    sign_in(ledger, 1, 2, 3)
    before = everything(ledger)
    names = [*claim_keys(), *(session(user) for user in range(1, sessions + 1))]
    args = ["1", str(2**52), "", "1001", "", "1002", *after]
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        run(ledger, names, args)
    assert everything(ledger) == before


def test_a_stream_that_takes_no_more_entries_pushes_no_session_out(ledger: Redis) -> None:
    """REFUSED means: before the first write."""
    open_sale(ledger)
    sign_in(ledger, 7)
    ledger.persist(session(7))
    ledger.xadd(keys.STREAM_ORDERS, {"x": "1"}, id=f"{2**64 - 1}-{2**64 - 1}")
    before = everything(ledger)
    with pytest.raises(ResponseError, match=r"^REFUSED"):
        claim_by_session(ledger, (session(7), 1001))
    assert everything(ledger) == before


def test_a_largest_batch_goes_through(ledger: Redis) -> None:
    """`ClaimSettings.batch_max`'s own limit, a key each; Lua's stack must bear it."""
    open_sale(ledger, units=5000)
    sign_in(ledger, *range(1, 2001))
    pairs = [(session(user), 10_000 + user) for user in range(1, 2001)]
    assert {code for code, _ in claim_by_session(ledger, *pairs)} == {SOLD}
    assert len(sold(ledger)) == 2000
