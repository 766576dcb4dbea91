"""Session look-ups: who is behind a token, and that trouble is never taken for `nobody`."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis
from rig.relay import Relay
from rig.until import eventually

from flashsale import keys
from flashsale.accounts.sessions import TOKEN_LENGTH_MAX, Sessions
from flashsale.errors import Unavailable
from flashsale.model import ID_MAX
from flashsale.settings import SessionSettings
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import sync_client

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def sessions_on(url: str, **settings: Any) -> AsyncIterator[Sessions]:
    sessions = Sessions(url, SessionSettings(**settings))
    try:
        yield sessions
    finally:
        await sessions.aclose()


def sign_in(ledger: Redis, token: str, user: int | str) -> None:
    ledger.hset(keys.login_token(token), mapping={"id": user, "nickName": "", "icon": ""})
    ledger.pexpire(keys.login_token(token), 1000)


async def test_users_by_token(ledger_url: str, ledger: Redis) -> None:
    sign_in(ledger, "a", 1)
    sign_in(ledger, "b", ID_MAX)
    async with sessions_on(ledger_url) as sessions:
        asked = ["a", "nobody", "b", "a"]
        assert await asyncio.gather(*map(sessions.user_of, asked)) == [1, None, ID_MAX, 1]
        assert sessions.gate.calls == 1, "look-ups leave together"


@pytest.mark.parametrize("user", ["", "0", "-1", "abc", "1.5", str(ID_MAX + 1), " 1"])
async def test_a_session_without_a_valid_id_is_none(
    ledger_url: str, ledger: Redis, user: str
) -> None:
    sign_in(ledger, "a", user)
    async with sessions_on(ledger_url) as sessions:
        assert await sessions.user_of("a") is None


@pytest.mark.parametrize("token", ["", "x" * (TOKEN_LENGTH_MAX + 1)], ids=["empty", "long"])
async def test_tokens_that_cannot_be_cost_no_call(ledger_url: str, token: str) -> None:
    async with sessions_on(ledger_url) as sessions:
        assert await sessions.user_of(token) is None
        assert sessions.gate.calls == 0


@pytest.mark.parametrize("token", ["*", "a:b", "{x}", "é\xff\x00", "'; DROP", "x" * 128])
async def test_strange_tokens_are_just_unknown(ledger_url: str, ledger: Redis, token: str) -> None:
    sign_in(ledger, "a", 1)
    async with sessions_on(ledger_url) as sessions:
        assert await sessions.user_of(token) is None
        sign_in(ledger, token, 2)
        assert await sessions.user_of(token) == 2


async def test_a_session_in_use_is_kept_alive(ledger_url: str, ledger: Redis) -> None:
    sign_in(ledger, "a", 1)
    async with sessions_on(ledger_url) as sessions:
        await sessions.user_of("a")
    left_ms: Any = ledger.pttl(keys.login_token("a"))
    assert left_ms > 35_999 * 60_000, "36,000 minutes, as the design says"


async def test_sessions_are_kept_alive_together_and_none_beyond_its_end(
    ledger_url: str, ledger: Redis
) -> None:
    hour_ms, now_ms = 3_600_000, int(time.time() * 1000)
    ends = {"long": now_ms + 900 * hour_ms, "ends": now_ms + hour_ms, "ended": now_ms - 1}
    for user, (token, end_ms) in enumerate(ends.items(), 1):
        sign_in(ledger, token, user)
        ledger.hset(keys.login_token(token), "end", end_ms)
    ledger.set(keys.login_token("text"), "no session")
    async with sessions_on(ledger_url) as sessions:
        found = await asyncio.gather(*map(sessions.user_of, [*ends, "text"]))
        assert found == [1, 2, None, None]
        await eventually(lambda: ledger.pttl(keys.login_token("ends")) > 1000)
        at_ms = [int(ledger.pexpiretime(keys.login_token(token))) for token in ends]
        assert at_ms[0] == pytest.approx(now_ms + 600 * hour_ms, abs=60_000)
        assert at_ms[1] == ends["ends"]
        assert at_ms[2] <= now_ms + 60_000, "as it was"
        assert await sessions.user_of("ends") == 2
        assert not sessions._renewals, "once a while"


async def test_what_is_not_renewed_yet_when_all_ends_asks_nobody_afterwards(
    ledger_url: str, ledger: Redis
) -> None:
    sign_in(ledger, "a", 1)
    ledger.hset(keys.login_token("a"), "end", int(time.time() * 1000) + 3_600_000)
    async with sessions_on(ledger_url) as sessions:
        assert await sessions.user_of("a") == 1
        assert sessions._renewals
    await asyncio.sleep(0.15)
    assert sessions.channels[0].idle == 0


async def test_a_redis_that_is_away_is_not_nobody(own_ledger: RedisServer) -> None:
    with sync_client(own_ledger.url) as client:
        sign_in(client, "a", 1)
    async with sessions_on(own_ledger.url) as sessions:
        assert await sessions.user_of("a") == 1
        assert own_ledger.process is not None
        own_ledger.process.kill()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await sessions.user_of("a")
        own_ledger.launch()
        own_ledger.await_ready()
        assert await sessions.user_of("a") == 1


async def test_a_lost_answer_is_not_nobody(ledger_url: str, ledger: Redis) -> None:
    sign_in(ledger, "a", 1)
    async with Relay(ledger_url) as relay, sessions_on(relay.url) as sessions:
        assert await sessions.user_of("a") == 1
        relay.cut_replies_after(0)
        with pytest.raises(Unavailable):
            await sessions.user_of("a")
        assert await sessions.user_of("a") == 1


async def test_a_slow_answer_is_not_nobody(ledger_url: str, ledger: Redis) -> None:
    sign_in(ledger, "a", 1)
    async with Relay(ledger_url) as relay, sessions_on(relay.url, timeout_ms=50) as sessions:
        relay.hold()
        with pytest.raises(Unavailable):
            await sessions.user_of("a")


async def test_a_full_queue_is_not_nobody(ledger_url: str, ledger: Redis) -> None:
    sign_in(ledger, "a", 1)
    async with Relay(ledger_url) as relay, sessions_on(relay.url, queue_max=1) as sessions:
        relay.hold()
        first = asyncio.ensure_future(sessions.user_of("a"))
        await relay.held.wait()
        second = asyncio.ensure_future(sessions.user_of("a"))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await sessions.user_of("a")
        relay.release()
        assert await asyncio.gather(first, second) == [1, 1]
