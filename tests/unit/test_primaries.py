"""Who is the primary, by what Sentinels say; and that a server which is none is left."""

from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from flashsale.errors import Unavailable
from flashsale.primaries import Followed, NoPrimary, Primary, Sentinels, check_role, primary_of
from flashsale.storage.channel import Channel
from flashsale.storage.roles import async_client, call, is_demoted, sync_client, trouble
from flashsale.store_urls import read_redis_url

NOWHERE = "redis+sentinel://127.0.0.1:1,127.0.0.1:2/sale"


def master(**changes: Any) -> dict[str, Any]:
    up = {"name": "sale", "ip": "10.0.0.1", "port": 6379, "config-epoch": 3}
    return {**up, "is_master": True, "is_sdown": False, "is_odown": False, **changes}


def test_the_primary_is_who_is_up() -> None:
    assert primary_of({"sale": master()}, "sale") == Primary("10.0.0.1", 6379, 3)
    assert primary_of([master(name="other"), master()], "sale") == Primary("10.0.0.1", 6379, 3)
    assert primary_of({"sale": master()}, "other") is None
    for down in ({"is_sdown": True}, {"is_odown": True}, {"is_master": False}):
        assert primary_of({"sale": master(**down)}, "sale") is None


INFO = "# Replication\r\nrole:{}\r\nconnected_slaves:1\r\n"


@pytest.mark.parametrize("reply", [INFO.format("master"), INFO.format("master").encode()])
def test_a_primary_is_gone_on_with(reply: object) -> None:
    check_role(reply, "10.0.0.1:6379")


@pytest.mark.parametrize(
    "reply", [INFO.format("slave"), INFO.format("slave").encode(), "", b"", None, "OK"]
)
def test_any_other_server_is_left_and_nothing_was_done(reply: object) -> None:
    with pytest.raises(NoPrimary, match=r"10\.0\.0\.1:6379 is no primary") as raised:
        check_role(reply, "10.0.0.1:6379")
    assert is_demoted(raised.value)
    assert type(trouble(raised.value)) is Unavailable


def test_nobody_is_asked_of_a_plain_url() -> None:
    with sync_client("redis://127.0.0.1:1/0") as client:
        assert Followed(client).term() is None


def test_where_no_sentinel_answers_nothing_was_done() -> None:
    with pytest.raises(NoPrimary, match="2 of 2 Sentinels do not answer"):
        Sentinels(read_redis_url(NOWHERE)).ask()
    with sync_client(NOWHERE) as client:
        assert isinstance(client, Redis)
        with pytest.raises(Unavailable, match="do not answer"):
            call(client.ping)
        with pytest.raises(NoPrimary):
            Followed(client).term()


@pytest.mark.anyio
async def test_a_loop_is_told_the_same() -> None:
    with pytest.raises(NoPrimary, match="2 of 2 Sentinels do not answer"):
        await Sentinels(read_redis_url(NOWHERE)).ask_within_loop()
    channel = Channel(NOWHERE, connections_max=1, timeout_s=1.0)
    with pytest.raises(Unavailable, match="do not answer"):
        await channel.ask("PING")
    async with async_client(NOWHERE) as client:
        with pytest.raises(RedisError, match="do not answer"):
            await client.ping()
