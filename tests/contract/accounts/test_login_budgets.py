"""Signing in on real stores: codes that work once, budgets, and nothing told of who is known."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.accounts.login import Login, Wait
from flashsale.errors import Unavailable
from flashsale.settings import LoginSettings, SessionSettings
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import Database, engine

pytestmark = pytest.mark.anyio

KNOWN, UNKNOWN, HOME = "13800000001", "13800000002", "203.0.113.7"


@dataclass
class Post:
    """A sender that keeps what it was given."""

    sent: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, phone: str, code: str) -> None:
        self.sent.append((phone, code))

    def code(self, phone: str) -> str:
        return next(code for to, code in reversed(self.sent) if to == phone)


@asynccontextmanager
async def login_on(
    ledger_url: str, mysql_url: str, sender: Any = None, **settings: Any
) -> AsyncIterator[Login]:
    database = Database(engine(mysql_url), threads_max=4)
    channel = Channel(ledger_url, connections_max=4, timeout_s=2.0)
    try:
        yield Login(database, channel, LoginSettings(**settings), SessionSettings(), sender)
    finally:
        await channel.aclose()
        database.close()


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06}"


async def test_a_code_works_once_and_makes_a_user_of_a_stranger(
    ledger_url: str, mysql_url: str, pool: Engine
) -> None:
    post = Post()
    async with login_on(ledger_url, mysql_url, post) as login:
        assert await login.send_code(UNKNOWN, HOME) is None
        code = post.code(UNKNOWN)
        assert len(code) == 6
        assert code.isdigit()
        token = await login.sign_in(UNKNOWN, code, HOME)
        assert isinstance(token, str)
        user = await login.user(token)
        assert await login.sign_in(UNKNOWN, code, HOME) is None, "the code is spent"
        await login.send_code(UNKNOWN, HOME)
        again = await login.sign_in(UNKNOWN, post.code(UNKNOWN), HOME)
        assert isinstance(again, str)
        assert await login.user(again) == user, "the same user"
        assert user is not None
        await login.sign_out(token, int(str(user["id"])))
        assert await login.user(token) is None
        assert await login.user(again) is not None, "one session ends, not all"
    with pool.connect() as connection:
        rows = connection.execute(text("SELECT id, phone FROM tb_user")).all()
    assert user is not None
    assert [tuple(row) for row in rows] == [(user["id"], UNKNOWN)]


async def test_five_wrong_codes_void_the_right_one(ledger_url: str, mysql_url: str) -> None:
    post = Post()
    async with login_on(ledger_url, mysql_url, post) as login:
        await login.send_code(KNOWN, HOME)
        code = post.code(KNOWN)
        for _ in range(4):
            assert await login.sign_in(KNOWN, wrong(code), HOME) is None
        await login.send_code(UNKNOWN, HOME)
        assert await login.sign_in(KNOWN, post.code(UNKNOWN), HOME) is None, "the fifth"
        assert await login.sign_in(KNOWN, code, HOME) is None


async def test_a_new_code_voids_the_old_one_and_ends_by_itself(
    ledger_url: str, mysql_url: str, ledger: Redis
) -> None:
    post = Post()
    async with login_on(ledger_url, mysql_url, post) as login:
        await login.send_code(KNOWN, HOME)
        old = post.code(KNOWN)
        await login.send_code(KNOWN, HOME)
        assert 110 < ledger.ttl(keys.login_code(KNOWN)) <= 120
        if old != post.code(KNOWN):
            assert await login.sign_in(KNOWN, old, HOME) is None
        assert await login.sign_in(KNOWN, post.code(KNOWN), HOME) is not None


async def test_a_phones_budget(ledger_url: str, mysql_url: str, ledger: Redis) -> None:
    post = Post()
    async with login_on(ledger_url, mysql_url, post, phone_codes_max=2) as login:
        addresses = ("203.0.113.1", "203.0.113.2", "203.0.113.3")
        answers = [await login.send_code(KNOWN, address) for address in addresses]
        assert answers[:2] == [None, None]
        assert isinstance(answers[2], Wait)
        assert 590 < answers[2].seconds <= 600
        assert len(post.sent) == 2
        assert ledger.hget(keys.login_code(KNOWN), "code") == post.code(KNOWN), "it still works"
        assert await login.send_code(UNKNOWN, HOME) is None, "another phone is not touched"


async def test_an_addresss_budget(ledger_url: str, mysql_url: str) -> None:
    async with login_on(ledger_url, mysql_url, Post(), address_codes_max=3) as login:
        phones = [f"1380000{n:04}" for n in range(5)]
        answers = [await login.send_code(phone, HOME) for phone in phones]
        assert [isinstance(answer, Wait) for answer in answers] == [False] * 3 + [True] * 2
        assert await login.send_code(phones[4], "203.0.113.8") is None
        inside = [f"2001:db8:1:2::{n}" for n in range(1, 6)]
        answers = [await login.send_code(p, a) for p, a in zip(phones, inside, strict=True)]
        assert isinstance(answers[4], Wait), "a /64 is one subscriber"


async def test_an_address_cannot_try_codes_for_ever(ledger_url: str, mysql_url: str) -> None:
    post = Post()
    async with login_on(ledger_url, mysql_url, post, address_tries_max=3) as login:
        await login.send_code(KNOWN, HOME)
        for _ in range(3):
            assert await login.sign_in(UNKNOWN, "000000", HOME) is None
        assert isinstance(await login.sign_in(KNOWN, post.code(KNOWN), HOME), Wait)
        assert isinstance(await login.sign_in(KNOWN, post.code(KNOWN), "203.0.113.9"), str)


async def test_known_and_unknown_phones_cost_the_same_calls(
    ledger_url: str, mysql_url: str, pool: Engine, ledger: Redis
) -> None:
    """Time is made of calls to the stores, so these are counted: no clock is asked."""
    with pool.begin() as connection:
        connection.execute(text(f"INSERT INTO tb_user (phone) VALUES ('{KNOWN}')"))

    def queries() -> int:
        with pool.connect() as connection:
            statement = text("SHOW GLOBAL STATUS LIKE 'Com_select'")
            return int(connection.execute(statement).one()[1])

    async with login_on(ledger_url, mysql_url, Post()) as login:
        await login.send_code("13800000009", HOME)  # scripts are loaded
        await login.sign_in("13800000009", "", HOME)
        seen = []
        for phone in (KNOWN, UNKNOWN):
            before, selects = ledger.info("stats")["total_commands_processed"], queries()
            answers = (await login.send_code(phone, HOME), await login.sign_in(phone, "no", HOME))
            after = ledger.info("stats")["total_commands_processed"]
            seen.append((answers, after - before, queries() - selects))
    assert seen[0] == seen[1]
    assert seen[0][0] == (None, None)


async def test_two_at_once_become_one_user(ledger_url: str, mysql_url: str, pool: Engine) -> None:
    async with login_on(ledger_url, mysql_url) as login:
        found = await asyncio.gather(*(login._find_or_create(UNKNOWN) for _ in range(8)))
    assert len(set(found)) == 1
    with pool.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM tb_user")).scalar() == 1


async def test_a_sender_that_fails_is_told(ledger_url: str, mysql_url: str) -> None:
    async def broken(phone: str, code: str) -> None:
        raise Unavailable("the code could not be sent")

    async with login_on(ledger_url, mysql_url, broken) as login:
        with pytest.raises(Unavailable):
            await login.send_code(KNOWN, HOME)
