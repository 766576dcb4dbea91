"""Signing in by phone code, on real stores."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis import Redis
from sqlalchemy import Connection, Engine, text

from flashsale import keys
from flashsale.accounts import login as login_module
from flashsale.accounts.login import Login
from flashsale.errors import Indeterminate, Unavailable
from flashsale.settings import LoginSettings, SessionSettings
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import Database, engine

pytestmark = pytest.mark.anyio
PHONE = "13800000001"


class Phones:
    """What was sent to whom."""

    def __init__(self) -> None:
        self.codes: dict[str, str] = {}

    async def __call__(self, phone: str, code: str) -> None:
        self.codes[phone] = code


@pytest.fixture
def phones() -> Phones:
    return Phones()


@pytest.fixture
async def login(ledger_url: str, mysql_url: str, phones: Phones) -> AsyncIterator[Login]:
    channel = Channel(ledger_url, connections_max=4, timeout_s=2.0)
    database = Database(engine(mysql_url), threads_max=4)
    yield Login(database, channel, LoginSettings(), SessionSettings(), phones)
    await channel.aclose()
    database.close()


def users(pool: Engine) -> list[Any]:
    with pool.connect() as connection:
        return list(connection.execute(text("SELECT id, phone FROM tb_user")).all())


async def test_a_new_phone_becomes_a_user_and_a_session(
    login: Login, phones: Phones, ledger: Redis, pool: Engine
) -> None:
    await login.send_code(PHONE)
    token = await login.sign_in(PHONE, phones.codes[PHONE])
    assert token
    ((user_id, phone),) = users(pool)
    assert phone == PHONE
    session: dict[str, str] = ledger.hgetall(keys.login_token(token))  # type: ignore[assignment]
    assert session["id"] == str(user_id)
    assert cast(int, ledger.ttl(keys.login_token(token))) > 35_999 * 60
    user = await login.user(token)
    assert user is not None
    assert user["id"] == user_id


async def test_a_known_phone_stays_the_user_it_is(
    login: Login, phones: Phones, pool: Engine
) -> None:
    tokens = set()
    for _ in range(2):
        await login.send_code(PHONE)
        tokens.add(await login.sign_in(PHONE, phones.codes[PHONE]))
    assert len(users(pool)) == 1
    assert len(tokens) == 2, "every session has a token of its own"


async def test_a_user_created_by_another_meanwhile_is_that_user(
    login: Login, phones: Phones, pool: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same phone signs in on two replicas: this one looked before the other inserted."""
    with pool.begin() as connection:
        connection.execute(text(f"INSERT INTO tb_user (phone) VALUES ('{PHONE}')"))
    really_find, looks = login_module._find, []

    def find(connection: Connection, phone: str) -> Any:
        looks.append(phone)
        return None if len(looks) == 1 else really_find(connection, phone)

    monkeypatch.setattr(login_module, "_find", find)
    await login.send_code(PHONE)
    assert await login.sign_in(PHONE, phones.codes[PHONE])
    assert len(looks) == 2
    assert len(users(pool)) == 1


async def test_a_wrong_code_opens_nothing(
    login: Login, phones: Phones, ledger: Redis, pool: Engine
) -> None:
    assert await login.sign_in(PHONE, "") is None
    await login.send_code(PHONE)
    assert await login.sign_in(PHONE, "wrong") is None
    assert await login.sign_in("13800000002", phones.codes[PHONE]) is None
    assert users(pool) == []
    assert not list(ledger.scan_iter(keys.login_token("*")))


async def test_a_second_code_voids_the_first(login: Login, phones: Phones) -> None:
    await login.send_code(PHONE)
    first = phones.codes[PHONE]
    while phones.codes[PHONE] == first:
        await login.send_code(PHONE)
    assert await login.sign_in(PHONE, first) is None


async def test_codes_are_six_digits_and_die(login: Login, phones: Phones, ledger: Redis) -> None:
    await login.send_code(PHONE)
    assert len(phones.codes[PHONE]) == 6
    assert phones.codes[PHONE].isdigit()
    assert 0 < cast(int, ledger.ttl(keys.login_code(PHONE))) <= 120


async def test_signing_out_ends_the_session(login: Login, phones: Phones, ledger: Redis) -> None:
    await login.send_code(PHONE)
    token = await login.sign_in(PHONE, phones.codes[PHONE])
    assert token
    user = await login.user(token)
    assert user
    user_id = cast(int, user["id"])
    assert ledger.zcard(keys.login_sessions(user_id)) == 1
    await login.sign_out(token, user_id)
    assert await login.user(token) is None
    assert not ledger.exists(keys.login_sessions(user_id))


async def signed_in(login: Login, phones: Phones, phone: str, times: int) -> tuple[int, list[str]]:
    """A user and that many sessions of hers."""
    tokens = []
    for _ in range(times):
        await login.send_code(phone)
        token = await login.sign_in(phone, phones.codes[phone])
        assert isinstance(token, str)
        tokens.append(token)
    user = await login.user(tokens[-1])
    assert user
    return cast(int, user["id"]), tokens


async def test_signing_out_everywhere_ends_every_session_of_one_user(
    login: Login, phones: Phones, ledger: Redis
) -> None:
    user_id, hers = await signed_in(login, phones, PHONE, 3)
    _, (his,) = await signed_in(login, phones, "13800000009", 1)
    before = keys.login_token("from before sessions were noted")
    ledger.hset(before, "id", user_id)
    await login.sign_out_everywhere("from before sessions were noted", user_id)
    assert [await login.user(token) for token in hers] == [None] * 3
    assert not ledger.exists(before, keys.login_sessions(user_id))
    assert await login.user(his)


async def test_a_user_has_so_many_sessions_and_the_oldest_ends(
    mysql_url: str, ledger_url: str, phones: Phones, ledger: Redis
) -> None:
    channel = Channel(ledger_url, connections_max=4, timeout_s=2.0)
    database = Database(engine(mysql_url), threads_max=2)
    settings = SessionSettings(per_user_max=2, longest_minutes=90)
    login = Login(database, channel, LoginSettings(), settings, phones)
    user_id, tokens = await signed_in(login, phones, PHONE, 4)
    alive = [await login.user(token) is not None for token in tokens]
    assert alive == [False, False, True, True]
    held: Any = ledger.zrange(keys.login_sessions(user_id), 0, -1)
    assert set(held) == {keys.login_token(token) for token in tokens[2:]}
    left_ms: Any = ledger.pttl(keys.login_token(tokens[3]))
    assert left_ms <= 90 * 60_000, "no session outlives its longest life"
    await channel.aclose()
    database.close()


async def test_sessions_that_have_ended_are_forgotten(
    login: Login, phones: Phones, ledger: Redis
) -> None:
    user_id, (first,) = await signed_in(login, phones, PHONE, 1)
    ledger.zadd(keys.login_sessions(user_id), {keys.login_token(first): 1})
    _, (second,) = await signed_in(login, phones, PHONE, 1)
    held: Any = ledger.zrange(keys.login_sessions(user_id), 0, -1)
    assert held == [keys.login_token(second)]


async def test_a_ledger_that_is_away_is_said(mysql_url: str) -> None:
    nowhere = Channel("redis://127.0.0.1:1/0", connections_max=1, timeout_s=0.5)
    database = Database(engine(mysql_url), threads_max=1)
    login = Login(database, nowhere, LoginSettings(), SessionSettings())
    for call in (login.send_code(PHONE), login.sign_in(PHONE, "1"), login.user("t")):
        with pytest.raises((Unavailable, Indeterminate)):
            await call
    database.close()
