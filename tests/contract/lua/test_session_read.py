"""session_read.lua: who is behind a token, and reads that stay reads."""

from typing import cast

import pytest
from redis import Redis
from rig.sale import now_ms

from flashsale import keys
from flashsale.lua.scripts import script

READ = script("session_read")
FULL_MS, REFRESH_MS, LONGEST_MS = 36_000 * 60_000, 60_000, 129_600 * 60_000


def read(ledger: Redis, *tokens: str) -> list[str]:
    names = [keys.login_token(token) for token in tokens]
    sliding_ms = (str(FULL_MS), str(REFRESH_MS), str(LONGEST_MS))
    return cast("list[str]", ledger.eval(READ.text, len(names), *names, *sliding_ms))


def sign_in(
    ledger: Redis, token: str, user: str, left_ms: int = FULL_MS, ends_ms: int | None = None
) -> str:
    name = keys.login_token(token)
    ledger.hset(name, mapping={"id": user, "nickName": "n", "icon": ""})
    if ends_ms is not None:
        ledger.hset(name, "end", now_ms() + ends_ms)
    ledger.pexpire(name, left_ms)
    return name


def test_answers_in_order_known_and_unknown(ledger: Redis) -> None:
    sign_in(ledger, "a", "9223372036854775807")
    sign_in(ledger, "b", "2")
    assert read(ledger, "b", "nobody", "a", "b") == ["2", "", "9223372036854775807", "2"]
    assert read(ledger) == []


def test_an_expired_session_is_none(ledger: Redis) -> None:
    ledger.pexpire(sign_in(ledger, "a", "1"), 0)
    assert read(ledger, "a") == [""]
    assert not ledger.exists(keys.login_token("a")), "and reading does not bring it back"


@pytest.mark.parametrize("kind", ["string", "list", "a hash without an id"])
def test_what_is_no_session_spoils_only_itself(ledger: Redis, kind: str) -> None:
    name = keys.login_token("bad")
    match kind:
        case "string":
            ledger.set(name, "1")
        case "list":
            ledger.rpush(name, "1")
        case _:
            ledger.hset(name, "nickName", "n")
    sign_in(ledger, "good", "2")
    assert read(ledger, "bad", "good") == ["", "2"]
    assert ledger.pttl(name) == -1, "what is no session is not kept alive"


def test_a_session_in_use_slides(ledger: Redis) -> None:
    name = sign_in(ledger, "a", "1", left_ms=FULL_MS - REFRESH_MS - 1)
    read(ledger, "a")
    assert FULL_MS - 1000 < cast(int, ledger.pttl(name)) <= FULL_MS


def test_it_slides_at_most_once_an_interval(ledger: Redis) -> None:
    left_ms = FULL_MS - REFRESH_MS + 20_000
    name = sign_in(ledger, "a", "1", left_ms=left_ms)
    for _ in range(3):
        read(ledger, "a")
    assert cast(int, ledger.pttl(name)) <= left_ms


def test_a_hundred_reads_write_once(ledger: Redis) -> None:
    """What a storm costs the append-only file: one write an interval, however many reads."""
    sign_in(ledger, "a", "1", left_ms=FULL_MS - 2 * REFRESH_MS)
    for _ in range(100):
        read(ledger, "a")
    calls = cast("dict[str, dict[str, int]]", ledger.info("commandstats"))
    assert calls["cmdstat_pexpire"]["calls"] == 2, "sign_in's own, and one"


def test_reading_works_when_memory_is_spent(ledger: Redis) -> None:
    sign_in(ledger, "a", "1", left_ms=1000)
    ledger.config_set("maxmemory", 1)
    try:
        assert read(ledger, "a") == ["1"]
    finally:
        ledger.config_set("maxmemory", 0)


# Its end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends_ms", [-1, 0])
def test_past_its_end_a_session_is_none_whatever_its_expiry_says(
    ledger: Redis, ends_ms: int
) -> None:
    name = sign_in(ledger, "a", "1", ends_ms=ends_ms)
    ledger.persist(name)
    assert read(ledger, "a") == [""]
    assert ledger.pttl(name) == -1, "and reading does not keep it"


def test_it_slides_to_its_end_and_no_further(ledger: Redis) -> None:
    name = sign_in(ledger, "a", "1", left_ms=1_000, ends_ms=FULL_MS // 2)
    assert read(ledger, "a") == ["1"]
    assert FULL_MS // 2 - 2_000 < cast(int, ledger.pttl(name)) <= FULL_MS // 2


def test_near_its_end_reads_stay_reads(ledger: Redis) -> None:
    """Its expiry is where it can be, far from a whole lifetime: nothing is to be pushed out."""
    sign_in(ledger, "a", "1", left_ms=FULL_MS // 2, ends_ms=FULL_MS // 2)
    for _ in range(20):
        assert read(ledger, "a") == ["1"]
    calls = cast("dict[str, dict[str, int]]", ledger.info("commandstats"))
    assert calls["cmdstat_pexpire"]["calls"] == 1, "sign_in's own"
    assert calls["cmdstat_hset"]["calls"] == 2


def test_a_session_without_an_end_is_given_one(ledger: Redis) -> None:
    name = sign_in(ledger, "a", "1", left_ms=1_000)
    read(ledger, "a")
    ends_ms = int(cast(str, ledger.hget(name, "end")))
    assert abs(ends_ms - now_ms() - LONGEST_MS) < 5_000
    read(ledger, "a")
    assert int(cast(str, ledger.hget(name, "end"))) == ends_ms, "once"
