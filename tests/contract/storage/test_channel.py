"""The channel on a real Redis: replies in order, errors as values, every loss accounted for."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rig.relay import Relay
from rig.until import eventually

from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, Script
from flashsale.stack.process import CommandLine
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage.channel import Channel, Lost, Plain
from flashsale.storage.roles import sync_client

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both loops: what a dead connection looks like is theirs to say."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def channel_to(
    url: str, *, connections_max: int = 1, timeout_s: float = 2.0
) -> AsyncIterator[Channel]:
    channel = Channel(url, connections_max=connections_max, timeout_s=timeout_s)
    try:
        yield channel
    finally:
        await channel.aclose()


def lua(text: str) -> Script:
    return Script("a test's", text, sha1(text.encode(), usedforsecurity=False).hexdigest())


APPEND = lua("#!lua\nredis.call('RPUSH', KEYS[1], ARGV[1]) return ARGV[1]")
FAIL = lua("#!lua\nreturn redis.error_reply('REFUSED as told')")
BREAK = lua("#!lua\nredis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[1])")


def appends(*texts: str) -> list[Call]:
    return [Call(APPEND, ("log",), (text,)) for text in texts]


async def test_replies_come_in_order_and_scripts_load_themselves(
    ledger_url: str, ledger: Redis
) -> None:
    async with channel_to(ledger_url) as channel:
        assert await channel.run(appends("a", "b", "c")) == ["a", "b", "c"]
        assert ledger.lrange("log", 0, -1) == ["a", "b", "c"]
        ledger.script_flush()
        assert await channel.run(appends("d", "e")) == ["d", "e"]
        assert ledger.lrange("log", 0, -1) == ["a", "b", "c", "d", "e"]


async def test_no_calls_no_replies(ledger_url: str) -> None:
    async with channel_to(ledger_url) as channel:
        assert await channel.run([]) == []


async def test_errors_are_values_of_their_call_alone(ledger_url: str, ledger: Redis) -> None:
    async with channel_to(ledger_url) as channel:
        refused = Call(FAIL, (), ())
        broken = Call(BREAK, ("log",), ("x",))
        replies = await channel.run([*appends("a"), refused, broken, *appends("b")])
    assert (replies[0], replies[3]) == ("a", "b")
    assert isinstance(replies[1], Unavailable)
    assert isinstance(replies[2], Indeterminate), "it wrote before it failed"
    assert ledger.lrange("log", 0, -1) == ["a", "x", "b"]


async def test_large_numbers_and_text_are_exact(ledger_url: str) -> None:
    echo = lua("#!lua\nreturn ARGV")
    async with channel_to(ledger_url) as channel:
        words = (2**63 - 1, "9007199254740993", "naïve ☃", "", " ")
        assert await channel.run([Call(echo, (), words)]) == [[str(word) for word in words]]


async def test_asking_plainly(ledger_url: str) -> None:
    async with channel_to(ledger_url) as channel:
        assert await channel.ask("INCRBY", "n", 5) == 5
        assert await channel.ask_all([("SET", "k", "v"), ("GET", "k"), ("GET", "no")]) == [
            "OK",
            "v",
            None,
        ]
        with pytest.raises(Indeterminate):
            await channel.ask("INCR", "k")
        assert await channel.ask("PING") == "PONG", "an error reply does not spoil the connection"


@pytest.mark.parametrize("answered", [0, 1, 2, 3])
async def test_a_lost_connection_keeps_what_was_answered(
    ledger_url: str, ledger: Redis, answered: int
) -> None:
    """The server executed all; the replies that came before the cut count, the rest is unknown."""
    async with Relay(ledger_url) as relay, channel_to(relay.url) as channel:
        await channel.run(appends("first"))
        relay.cut_replies_after(answered * len("$1\r\nx\r\n"))
        replies = await channel.run(appends("a", "b", "c"))
        assert replies[:answered] == ["a", "b", "c"][:answered]
        assert all(isinstance(reply, Indeterminate) for reply in replies[answered:])
        assert len(replies) == 3
        assert ledger.lrange("log", 0, -1) == ["first", "a", "b", "c"], "no retry"
        await _until_closed(channel)
        assert await channel.run(appends("d")) == ["d"], "and the channel heals"


async def test_a_reply_torn_in_its_middle_is_unknown(ledger_url: str) -> None:
    async with Relay(ledger_url) as relay, channel_to(relay.url) as channel:
        await channel.run(appends("first"))
        relay.cut_replies_after(len("$1\r\nx\r\n$1"))
        first, second = await channel.run(appends("a", "b"))
        assert first == "a"
        assert isinstance(second, Indeterminate)


async def test_a_slow_server_is_unknown_after_the_timeout(ledger_url: str, ledger: Redis) -> None:
    async with Relay(ledger_url) as relay, channel_to(relay.url, timeout_s=0.3) as channel:
        await channel.run(appends("first"))
        relay.hold()
        (reply,) = await channel.run(appends("late"))
        assert isinstance(reply, Indeterminate)
        relay.release()
        replies = await channel.run(appends("next"))
        assert replies == ["next"], "the late answer is not taken for this one's"


async def test_refused_connections_are_unavailable() -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with channel_to(f"redis://127.0.0.1:{nobody.getsockname()[1]}/0") as channel:
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await channel.run(appends("a"))
            with pytest.raises(Unavailable):
                await channel.ask("PING")


async def test_a_server_that_hangs_up_at_once_is_not_a_failure_to_answer(ledger_url: str) -> None:
    """Connected, then cut: whatever it is called, nothing was executed and the channel heals."""
    async with Relay(ledger_url) as relay, channel_to(relay.url) as channel:
        relay.refuse = True
        try:
            replies = await channel.run(appends("a"))
            assert isinstance(replies[0], Indeterminate)
        except Unavailable:
            pass
        relay.refuse = False
        assert await channel.run(appends("b")) == ["b"]


async def test_an_idle_connection_the_server_closed_heals_unseen(
    ledger_url: str, ledger: Redis
) -> None:
    async with channel_to(ledger_url) as channel:
        await channel.run(appends("a"))
        ledger.client_kill_filter(_type="normal", skipme=True)
        await _until_closed(channel)
        assert await channel.run(appends("b")) == ["b"]


async def test_a_restarted_server_is_found_again(own_ledger: RedisServer) -> None:
    async with channel_to(own_ledger.url) as channel:
        assert await channel.run(appends("a")) == ["a"]
        assert own_ledger.process is not None
        own_ledger.process.kill()
        await _until_closed(channel)
        with pytest.raises(Unavailable):
            await channel.run(appends("b"))
        own_ledger.launch()
        own_ledger.await_ready()
        assert await channel.run(appends("c")) == ["c"]


async def test_a_cancelled_call_leaves_no_stale_answer(ledger_url: str) -> None:
    """Its answer would be read as the next call's."""
    async with Relay(ledger_url) as relay, channel_to(relay.url) as channel:
        await channel.run(appends("first"))
        relay.hold()
        call = asyncio.ensure_future(channel.run(appends("gone")))
        await relay.held.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        relay.release()
        assert await channel.run(appends("next")) == ["next"]


async def test_a_place_is_the_next_ones_who_waits_and_has_not_gone(
    ledger_url: str, ledger: Redis
) -> None:
    """One caller is cancelled while it waits, another when its place has come already."""
    async with channel_to(ledger_url) as channel:
        ledger.execute_command("CLIENT", "PAUSE", 300, "WRITE")
        calls = [asyncio.ensure_future(channel.run(appends(str(n)))) for n in range(5)]
        await eventually(lambda: len(channel._queue) == 4)
        calls[1].cancel()
        await eventually(calls[1].done)
        channel._release()  # as if another conversation had ended
        calls[2].cancel()  # which has not heard of it
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(n) if it == [str(n)] else type(it).__name__ for n, it in enumerate(found)] == [
            *("0", "CancelledError", "CancelledError", "3", "4")
        ]
        log = ledger.lrange("log", 0, -1)  # "0" may come last: it brings the script first
        assert sorted(log) == ["0", "3", "4"]
        assert log.index("3") < log.index("4")
        assert (channel._free, len(channel._queue)) == (2, 0), "with the one that was added"


async def test_who_finds_no_connection_in_time_asked_nothing(
    ledger_url: str, ledger: Redis
) -> None:
    async with channel_to(ledger_url, timeout_s=1.0) as channel:
        ledger.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
        holding = asyncio.ensure_future(channel.run(appends("1")))
        await eventually(lambda: channel.in_use == 1)
        channel._timeout_s = 0.1
        with pytest.raises(Unavailable, match="no connection came free in time"):
            await channel.run(appends("2"))
        (lost,) = await holding
        assert isinstance(lost, Lost)
        assert (channel.in_use, channel.lost, channel.unreachable) == (0, 1, 1)
        ledger.execute_command("CLIENT", "UNPAUSE")
        channel._timeout_s = 2.0
        assert await channel.run(appends("3")) == ["3"]


async def test_a_caller_cancelled_while_connecting_takes_no_place(ledger_url: str) -> None:
    async with Relay(ledger_url) as relay, channel_to(relay.url) as channel:
        relay.hold()
        call = asyncio.ensure_future(channel.run(appends("gone")))
        await relay.held.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        relay.release()
        assert await asyncio.wait_for(channel.run(appends("next")), 2) == ["next"]


@asynccontextmanager
async def fake_redis() -> AsyncIterator[tuple[str, list[Any]]]:
    """A server that says OK to each command; `DELAY s` lets it wait, `TWICE` makes it say so twice.

    Brings its URL and its connections.
    """
    connections: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        while head := await reader.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            if words[0] == b"DELAY":
                await asyncio.sleep(float(words[1]))
            writer.write(b"+OK\r\n" * (2 if words[0] == b"TWICE" else 1))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", connections
        await asyncio.gather(*connections, return_exceptions=True)


async def test_each_call_has_the_whole_time_out() -> None:
    """Those who come one after the other share a timer, which fires in the middle of the second."""
    async with fake_redis() as (url, connections), channel_to(url, timeout_s=0.4) as channel:
        for _ in range(2):
            assert await channel.ask("DELAY", "0.25") == "OK"
        began_s = asyncio.get_running_loop().time()
        (reply,) = await channel.run([Plain(("DELAY", "0.6"))])
        assert isinstance(reply, Lost)
        assert asyncio.get_running_loop().time() - began_s > 0.35
        assert len(connections) == 1


async def test_a_reply_that_nobody_asked_for_ends_the_connection() -> None:
    """It would be read as the next call's."""
    async with fake_redis() as (url, connections), channel_to(url) as channel:
        assert await channel.ask_all([("TWICE",), ("TWICE",)]) == ["OK", "OK"]
        assert await channel.ask("PING") == "OK"
        assert len(connections) == 2


async def test_callers_share_the_connections_there_are(ledger_url: str, ledger: Redis) -> None:
    async with Relay(ledger_url) as relay, channel_to(relay.url, connections_max=2) as channel:
        replies = await asyncio.gather(*(channel.run(appends(str(n))) for n in range(20)))
        assert [reply for (reply,) in replies] == [str(n) for n in range(20)]
        assert relay.connections == 2


async def test_a_script_that_cannot_be_loaded_certainly_did_not_run(
    ledger_url: str, ledger: Redis
) -> None:
    async with channel_to(ledger_url) as channel:
        wrong = Script("wrong", "#!lua\nthis is no lua", "0" * 40)
        replies = await channel.run([*appends("a"), Call(wrong, (), ()), *appends("b")])
    assert isinstance(replies[1], Unavailable)
    assert (replies[0], replies[2]) == ("a", "b")


@pytest.fixture
def starved(own_ledger: RedisServer) -> Iterator[tuple[RedisServer, Redis]]:
    with sync_client(own_ledger.url) as client:
        yield own_ledger, client
        client.config_set("save", "")  # one that cannot save does not stop either


def _oom(client: Redis) -> None:
    client.config_set("maxmemory", 1)


def _readonly(client: Redis) -> None:
    client.replicaof("127.0.0.1", 1)


def _misconf(client: Redis) -> None:
    """A snapshot that cannot be put in its place: as with a full disk, writes are refused."""
    client.config_set("appendonly", "no")
    client.config_set("save", "3600 1")
    Path(client.config_get("dir")["dir"], "dump.rdb").mkdir()
    client.bgsave()
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        pass
    assert client.info("persistence")["rdb_last_bgsave_status"] == "err"


def _noreplicas(client: Redis) -> None:
    client.config_set("min-replicas-to-write", 1)


@pytest.mark.parametrize("starve", [_oom, _readonly, _misconf, _noreplicas])
async def test_refused_by_the_server_is_unavailable_and_wrote_nothing(
    starved: tuple[RedisServer, Redis], starve: Any
) -> None:
    server, client = starved
    async with channel_to(server.url) as channel:
        await channel.run(appends("a"))
        starve(client)
        (reply,) = await channel.run(appends("b"))
        assert type(reply) is Unavailable, reply
        assert client.lrange("log", 0, -1) == ["a"]


class SlowLoader(RedisServer):
    """A ledger that takes its time to read its data, and answers meanwhile."""

    def prepare(self) -> CommandLine:
        command = super().prepare()
        return replace(command, arguments=[*command.arguments, "--key-load-delay", "60"])


async def test_a_loading_server_is_unavailable(tmp_path: Path) -> None:
    """A restart with data: alive, and not ready yet."""
    with SlowLoader(RedisRole.LEDGER, tmp_path) as server, sync_client(server.url) as client:
        client.eval("for i = 1, 15000 do redis.call('SET', 'k' .. i, i) end", 0)
        assert server.process is not None
        server.process.kill()
        server.launch()
        seen = ""
        async with channel_to(server.url) as channel:
            while "loading" not in seen:
                with pytest.raises(Unavailable) as refused:
                    await _value_raised(channel.run(appends("a")))
                seen = str(refused.value)
        server.process.kill()


async def _value_raised(calls: Awaitable[list[Any]]) -> None:
    (reply,) = await calls
    if isinstance(reply, Exception):
        raise reply


async def _until_closed(channel: Channel) -> None:
    """Until this end has noticed that the server closed: what an idle connection lives to see."""
    (wire,) = channel._idle
    await eventually(lambda: not wire.is_open)
