"""What is told only once the ledger's replicas have it: real servers, one of which stands still."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import pytest
from redis import Redis
from rig.sale import open_sale, session, sign_in
from rig.until import eventually, until

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, Script
from flashsale.model import Outcome
from flashsale.orders.stream import OrderStream
from flashsale.seckill.claims import Claims
from flashsale.settings import ClaimSettings, SessionSettings
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage.channel import Channel
from flashsale.storage.roles import Confirmation, evaluate_each, sync_client

pytestmark = pytest.mark.anyio


def on_n(command: str) -> Call:
    """A script that runs `command` on the key n."""
    text = f"#!lua\nreturn redis.call('{command}', KEYS[1])"
    sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Call(Script(command, text, sha), ("n",), ())


COUNT, READ = on_n("INCR"), on_n("GET")
SOON = Confirmation(1, 200)


@dataclass(frozen=True)
class Pair:
    """A primary and its replica, and the primary's client."""

    primary: RedisServer
    replica: RedisServer
    client: "Redis"

    @contextmanager
    def replica_stopped(self) -> Iterator[None]:
        """It stands still, and its connection stays."""
        assert self.replica.process
        pid = self.replica.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def calls(self, command: str) -> int:
        """How often the primary was asked for `command`."""
        stats: Any = self.client.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with (
        RedisServer(RedisRole.LEDGER, folder / "primary") as primary,
        RedisServer(RedisRole.LEDGER, folder / "replica") as replica,
        sync_client(primary.url) as client,
    ):
        client.config_set("repl-diskless-sync-delay", 0)
        with sync_client(replica.url) as second:
            second.replicaof(primary.port.host, primary.port.number)
        until(lambda: client.wait(1, 100) == 1)
        yield Pair(primary, replica, client)


@pytest.fixture
def pair(servers: Pair) -> Pair:
    servers.client.flushall()
    until(lambda: servers.client.wait(1, 100) == 1)
    servers.client.config_resetstat()
    return servers


@asynccontextmanager
async def channel_to(
    url: str, confirmation: Confirmation | None, timeout_s: float = 2.0
) -> AsyncIterator[Channel]:
    channel = Channel(url, connections_max=1, timeout_s=timeout_s, confirmation=confirmation)
    try:
        yield channel
    finally:
        await channel.aclose()


async def test_nobody_is_asked_where_nothing_is_to_be_confirmed(pair: Pair) -> None:
    async with channel_to(pair.primary.url, None) as channel:
        assert await channel.run([COUNT, COUNT]) == [1, 2]
    assert pair.calls("wait") == pair.calls("set") == 0


async def test_a_confirmed_reply_is_told_after_one_question(pair: Pair) -> None:
    async with channel_to(pair.primary.url, SOON) as channel:
        assert await channel.run([COUNT]) == [1]  # opening, call, and once more: it was loaded
        before = pair.calls("wait")
        assert await channel.run([COUNT, COUNT]) == [2, 3]
        assert pair.calls("wait") == before + 1
        assert channel.lost == 0


async def test_a_script_that_had_to_be_loaded_is_confirmed_after_it_ran(pair: Pair) -> None:
    async with channel_to(pair.primary.url, SOON) as channel:
        await channel.run([COUNT])
        pair.client.script_flush()
        before = pair.calls("wait")
        with pair.replica_stopped():
            (reply,) = await channel.run([COUNT])
        assert isinstance(reply, Indeterminate)
        assert pair.calls("wait") == before + 2


async def test_what_is_not_confirmed_may_be_lost_and_then_nothing_is_sent(pair: Pair) -> None:
    async with channel_to(pair.primary.url, SOON) as channel:
        assert await channel.run([COUNT]) == [1]
        with pair.replica_stopped():
            (reply,) = await channel.run([COUNT])
            assert isinstance(reply, Indeterminate)
            assert "fewer than 1 replicas had it within 200 ms (WAIT answered 0)" in str(reply)
            assert pair.client.get("n") == "2", "it was done"
            for _ in range(2):
                with pytest.raises(Unavailable, match="Redis was not asked: fewer than 1"):
                    await channel.run([COUNT])
            assert pair.client.get("n") == "2", "nothing more was"
        assert await channel.run([COUNT]) == [3]


async def test_what_others_wrote_is_confirmed_with_it(pair: Pair) -> None:
    """A claim that is told "duplicate", or "sold out", is told what another connection wrote."""
    async with channel_to(pair.primary.url, SOON) as channel:
        pair.client.set("n", 7)
        assert await channel.run([READ]) == ["7"]
        with pair.replica_stopped():
            pair.client.set("n", 8)
            (reply,) = await channel.run([READ])
        assert isinstance(reply, Indeterminate)
    assert await until_gone(pair.client), "the mark that was written for it stays nowhere"


async def until_gone(client: Redis) -> bool:
    return bool(await eventually(lambda: not client.exists(keys.PROBE)))


async def test_more_replicas_than_there_are_confirm_nothing(pair: Pair) -> None:
    async with channel_to(pair.primary.url, Confirmation(2, 100)) as channel:
        with pytest.raises(Unavailable, match="fewer than 2 replicas"):
            await channel.run([COUNT])
    assert pair.client.get("n") is None


async def test_their_disks_are_asked_where_the_server_can(pair: Pair) -> None:
    server: Any = pair.client.info("server")
    recent = tuple(map(int, str(server["redis_version"]).split(".")[:2])) >= (7, 2)
    asked = Confirmation(1, 3000, on_disk=True)  # a replica tells of its disk once a second
    async with channel_to(pair.primary.url, asked, timeout_s=10.0) as channel:
        if recent:
            assert await channel.run([COUNT]) == [1]
        else:
            with pytest.raises(Unavailable, match="no replica was asked"):
                await channel.run([COUNT])
            assert pair.client.get("n") is None


async def test_a_claim_that_is_not_confirmed_is_settled_by_a_replay_that_is(pair: Pair) -> None:
    sign_in(pair.client, 1, 2)
    open_sale(pair.client, 1)
    settings = ClaimSettings(timeout_ms=800, confirm_replicas=1, confirm_timeout_ms=200)
    claims = Claims(pair.primary.url, settings, SessionSettings())
    try:
        await claims.clock.sync()
        first = await claims.claim(1, session(1))
        with pair.replica_stopped():
            second = asyncio.ensure_future(claims.claim(1, session(2)))
            receipts = keys.seckill_receipt(1)
            await eventually(lambda: pair.client.hlen(receipts) == 2)
            await asyncio.sleep(0.3)
            assert not second.done(), "it is in the ledger, and nobody was told"
        answer = await second
        assert first is not None
        assert answer is not None
        assert (first.outcome, answer.outcome) == (Outcome.SOLD, Outcome.SOLD)
        assert claims.settlement.replays > 0
    finally:
        await claims.drain()
        await claims.aclose()


async def test_a_claim_that_nobody_confirms_is_unknown_and_never_sold(pair: Pair) -> None:
    sign_in(pair.client, 1, 2)
    open_sale(pair.client, 1)
    settings = ClaimSettings(timeout_ms=300, confirm_replicas=1, confirm_timeout_ms=100)
    claims = Claims(pair.primary.url, settings, SessionSettings())
    try:
        await claims.clock.sync()
        await claims.claim(1, session(1))
        with pair.replica_stopped():
            unknown = await claims.claim(1, session(2))
            shed = await claims.claim(1, session(2))
        assert unknown is not None
        assert shed is not None
        assert (unknown.outcome, shed.outcome) == (Outcome.UNKNOWN, Outcome.SHED)
        assert unknown.order_id
    finally:
        await claims.drain()
        await claims.aclose()


def test_a_worker_makes_rows_of_what_the_replicas_have(pair: Pair) -> None:
    stream = OrderStream(pair.client, "c1", SOON)
    stream.ensure_group()
    pair.client.xadd(keys.STREAM_ORDERS, {"userId": 1, "voucherId": 1, "id": 5, "ms": 1})
    assert len(stream.fresh(10, 10)) == 1
    assert stream.is_confirmed()
    with pair.replica_stopped():
        pair.client.xadd(keys.STREAM_ORDERS, {"userId": 2, "voucherId": 1, "id": 6, "ms": 1})
        assert len(stream.fresh(10, 10)) == 1
        assert not stream.is_confirmed()
    assert stream.is_confirmed()
    assert OrderStream(pair.client, "c1").is_confirmed(), "nobody is asked"


async def test_scripts_that_leave_together_are_confirmed_or_open(pair: Pair) -> None:
    assert evaluate_each(pair.client, [COUNT, COUNT], SOON) == [1, 2]
    with pair.replica_stopped():
        found = evaluate_each(pair.client, [COUNT, COUNT], SOON)
    assert [type(each) for each in found] == [Indeterminate] * 2
    assert "fewer than 1 replicas had it" in str(found[0])
    assert pair.client.get("n") == "4", "done, and open"
