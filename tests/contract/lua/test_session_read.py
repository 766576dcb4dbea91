"""session_read.lua: who is behind a token, and reads that stay reads."""

from typing import cast

import pytest
from redis import Redis

from flashsale import keys
from flashsale.lua.scripts import script

READ = script("session_read")
FULL_MS, REFRESH_MS = 36_000 * 60_000, 60_000


def read(ledger: Redis, *tokens: str, refresh_ms: int = REFRESH_MS) -> list[str]:
    names = [keys.login_token(token) for token in tokens]
    return cast(
        "list[str]", ledger.eval(READ.text, len(names), *names, str(FULL_MS), str(refresh_ms))
    )


def sign_in(ledger: Redis, token: str, user: str, left_ms: int = FULL_MS) -> str:
    name = keys.login_token(token)
    ledger.hset(name, mapping={"id": user, "nickName": "n", "icon": ""})
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
