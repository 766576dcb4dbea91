"""A store that fails over behind one address: its old primary lives on and takes no writes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis
from rig.asgi import ask
from rig.relay import Relay
from rig.sale import open_sale, sign_in
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.accounts.sessions import Sessions
from flashsale.errors import Indeterminate, Unavailable, UnreachableError
from flashsale.locks.batch import BatchLocks
from flashsale.lua.scripts import Call, script
from flashsale.model import Outcome
from flashsale.seckill.claims import Claims
from flashsale.seeding.stores import opened
from flashsale.server.replica import Replica
from flashsale.settings import (
    ClaimSettings,
    ReplicaSettings,
    SessionSettings,
    StoreSettings,
)
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage import mysql, roles, tables
from flashsale.storage.channel import Channel
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import call, sync_client

pytestmark = pytest.mark.anyio
NOBODY = ("127.0.0.1", 1)


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[RedisServer]:
    """The one that is promoted; `own_ledger` is the one that is demoted."""
    with RedisServer(RedisRole.LEDGER, tmp_path / "promoted") as server:
        yield server


def demote(url: str) -> None:
    """What a failover leaves of a primary: a replica, its connections as they were."""
    with sync_client(url) as redis:
        redis.replicaof(*NOBODY)


@asynccontextmanager
async def channel_to(url: str) -> AsyncIterator[Channel]:
    channel = Channel(url, connections_max=2, timeout_s=2.0)
    try:
        yield channel
    finally:
        await channel.aclose()


async def test_a_channel_leaves_a_demoted_server_at_once(
    own_ledger: RedisServer, primary: RedisServer
) -> None:
    async with Relay(own_ledger.url) as relay, channel_to(relay.url) as channel:
        await channel.ask("SET", "k", "old")
        await asyncio.gather(channel.ask("PING"), channel.ask("PING"))  # two connections
        demote(own_ledger.url)
        relay.lead_to(primary.url)
        with pytest.raises(Unavailable, match="read only"):
            await channel.ask("SET", "k", "lost")
        assert await asyncio.gather(channel.ask("SET", "k", "new"), channel.ask("GET", "k"))
        with sync_client(primary.url) as redis:
            assert redis.get("k") == "new"


async def test_a_script_on_a_demoted_server_was_certainly_not_done(
    own_ledger: RedisServer, primary: RedisServer
) -> None:
    async with Relay(own_ledger.url) as relay:
        settings, sessions = ClaimSettings.load(), SessionSettings.load()
        for server in (own_ledger, primary):
            with sync_client(server.url) as redis:
                open_sale(redis)
                sign_in(redis, 1, 2, 3)
        claims = Claims(relay.url, settings, sessions)
        try:
            await claims.clock.sync()
            first = await claims.claim(1, keys.login_token("token-1"))
            demote(own_ledger.url)
            relay.lead_to(primary.url)
            shed = await claims.claim(1, keys.login_token("token-2"))
            again = await claims.claim(1, keys.login_token("token-2"))
            side = await claims.clock.sync()
        finally:
            await claims.drain()
            await claims.aclose()
        assert (first and first.outcome, shed and shed.outcome) == (Outcome.SOLD, Outcome.SHED)
        assert again is not None
        assert again.outcome is Outcome.SOLD
        assert side is None


async def test_a_password_that_was_set_meanwhile_is_certainly_not_done(
    own_ledger: RedisServer,
) -> None:
    async with channel_to(own_ledger.url) as channel:
        with Redis.from_url(own_ledger.url) as admin:
            admin.ping()
            await channel.ask("PING")
            admin.config_set("requirepass", "secret")
            admin.execute_command("AUTH", "secret")
            await channel.aclose()  # those that were let in stay in; new ones are not
            with pytest.raises(Unavailable, match="Authentication required"):
                await channel.ask("SET", "k", "v")
            admin.config_set("requirepass", "")
        assert await channel.ask("SET", "k", "v") == "OK"


async def test_connections_that_only_read_are_made_anew_in_time(
    own_ledger: RedisServer, primary: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flashsale.storage.channel.RECYCLE_S", 0.0)
    with sync_client(primary.url) as redis:
        sign_in(redis, 7)
    async with Relay(own_ledger.url) as relay:
        sessions = Sessions(relay.url, SessionSettings.load())
        try:
            assert await sessions.user_of("token-7") is None
            demote(own_ledger.url)
            relay.lead_to(primary.url)
            assert await sessions.user_of("token-7") == 7
        finally:
            await sessions.aclose()


@pytest.mark.parametrize("how", ["plain", "script", "pipeline", "locks"])
async def test_a_blocking_client_leaves_a_demoted_server_at_once(
    own_ledger: RedisServer, primary: RedisServer, how: str
) -> None:
    def run(client: Redis) -> object:
        if how == "plain":
            return call(client.set, "k", "v")
        if how == "locks":
            return BatchLocks(client, "w", lease_ms=1000, renew_ms=100).take(["k"], 1)
        script_call = Call(script("budget_take"), ("k",), (1000, 5))
        if how == "script":
            return roles.evaluate(client, script_call)
        replies = roles.evaluate_each(client, [script_call, script_call])
        for reply in replies:
            if isinstance(reply, (Unavailable, Indeterminate)):
                raise reply
        return replies

    async with Relay(own_ledger.url) as relay:
        with sync_client(relay.url) as client:
            await asyncio.to_thread(run, client)
            demote(own_ledger.url)
            relay.lead_to(primary.url)
            with pytest.raises(Unavailable):
                await asyncio.to_thread(run, client)
            assert await asyncio.to_thread(run, client) is not None


async def test_a_blocking_client_is_made_anew_in_time(
    own_ledger: RedisServer, primary: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "RECYCLE_S", 0.0)
    with sync_client(primary.url) as redis:
        redis.set("k", "new")
    async with Relay(own_ledger.url) as relay:
        with sync_client(relay.url) as client:
            assert await asyncio.to_thread(client.get, "k") is None
            demote(own_ledger.url)
            relay.lead_to(primary.url)
            assert await asyncio.to_thread(client.get, "k") == "new"


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDBServer]:
    """A MariaDB of these tests' own, with an admin who may demote it."""
    directory = tmp_path_factory.mktemp("failing")
    server = MariaDBServer(directory, buffer_pool_mb=64, redo_log_mb=16)
    server._init += (
        "CREATE OR REPLACE USER 'admin'@'{host}' IDENTIFIED BY 'a';\n"
        "GRANT ALL ON *.* TO 'admin'@'{host}';\n"
        "REVOKE READ_ONLY ADMIN ON *.* FROM '{user}'@'{host}';\n"
    )
    with server:
        yield server


@pytest.fixture
def admin(failing: MariaDBServer) -> Iterator[Engine]:
    scheme, _, rest = failing.url.partition("://")
    admin = mysql.engine(f"{scheme}://admin:a@{rest.partition('@')[2]}")
    tables.create_all(admin)
    yield admin
    read_only(admin, on=False)
    admin.dispose()


def read_only(admin: Engine, *, on: bool) -> None:
    with admin.begin() as connection:
        connection.execute(text(f"SET GLOBAL read_only = {int(on)}"))


def test_a_read_only_mysql_ends_every_connection(failing: MariaDBServer, admin: Engine) -> None:
    ours = mysql.engine(failing.url)
    write = text("INSERT INTO tb_shop_type (name) VALUES ('x')")

    def connection_id() -> int:
        with transaction(ours) as connection:
            return int(connection.execute(text("SELECT CONNECTION_ID()")).scalar_one())

    before = connection_id()
    assert connection_id() == before, "it is pooled"
    read_only(admin, on=True)
    with pytest.raises(Unavailable, match="takes no writes"), transaction(ours) as connection:
        connection.execute(write)
    assert connection_id() != before
    with pytest.raises(Unavailable, match="takes no writes"):
        mysql.check_writable(ours)
    read_only(admin, on=False)
    mysql.check_writable(ours)
    with transaction(ours) as connection:
        connection.execute(write)
    ours.dispose()


def test_whatever_says_that_a_server_takes_no_writes_says_that_nothing_was_done(
    failing: MariaDBServer, admin: Engine
) -> None:
    ours = mysql.engine(failing.url)
    mysql.check_writable(ours)
    assert ours.pool._recycle == 300  # type: ignore[attr-defined]
    for code in (1290, 1836, 1792, 1047):
        with (
            pytest.raises(Unavailable, match="takes no writes"),
            transaction(ours) as connection,
        ):
            connection.execute(text(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}"))
    ours.dispose()


@pytest.mark.parametrize("store", ["ledger", "mysql"])
async def test_readiness_and_seeding_ask_for_a_store_that_can_be_written_to(
    own_ledger: RedisServer, cache_url: str, failing: MariaDBServer, admin: Engine, store: str
) -> None:
    urls = StoreSettings(ledger_url=own_ledger.url, cache_url=cache_url, mysql_url=failing.url)
    replica = Replica("r1", 1, urls, ReplicaSettings.load())
    try:
        assert (await ask(replica.app, "GET", "/readyz", {})).status == 200
        with opened(urls):
            pass
        if store == "ledger":
            demote(own_ledger.url)
        else:
            read_only(admin, on=True)
        assert (await ask(replica.app, "GET", "/readyz", {})).status == 503
        with pytest.raises(UnreachableError), opened(urls):
            pass
        if store == "ledger":
            with sync_client(own_ledger.url) as redis:
                redis.replicaof("NO", "ONE")
        else:
            read_only(admin, on=False)
        assert (await ask(replica.app, "GET", "/readyz", {})).status == 200
    finally:
        await replica._close()
