"""The one way to call a synchronous client: replies, and trouble as our two kinds."""

import pytest
from redis import Redis

from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, script
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import (
    NoGroup,
    Rejected,
    call,
    call_all,
    call_each,
    evaluate,
    evaluate_each,
    sync_client,
)

TAKE = script("lock_take")


def take(name: str, owner: str = "c1") -> Call:
    return Call(TAKE, (name,), (owner, 1, 5_000))


def test_a_script_that_redis_lost_is_sent_whole(ledger: Redis) -> None:
    assert evaluate(ledger, take("a")) == [1]
    ledger.script_flush()
    assert evaluate(ledger, take("a", "c2")) == [0]


def test_a_refusal_before_the_first_write_is_unavailable(ledger: Redis) -> None:
    ledger.lpush("a", 1)
    with pytest.raises((Unavailable, Indeterminate)):
        evaluate(ledger, take("a"))


def test_scripts_that_leave_together_are_in_trouble_each_by_itself(ledger: Redis) -> None:
    ledger.lpush("list", 1)
    first, wrong, last = evaluate_each(ledger, [take("a"), take("list"), take("b")])
    assert (first, last) == ([1], [1])
    assert isinstance(wrong, (Unavailable, Indeterminate))


def test_the_first_trouble_of_a_pipeline_is_raised_as_what_it_is(ledger: Redis) -> None:
    pipeline = ledger.pipeline(transaction=False)
    pipeline.incr("n")
    pipeline.xreadgroup("g", "c", {"stream": ">"})
    pipeline.incr("n")
    with pytest.raises(NoGroup, match="NOGROUP"):
        call_all(pipeline)
    assert call(ledger.get, "n") == "2", "a pipeline is no transaction"


def test_each_command_of_a_pipeline_may_be_refused_by_itself(ledger: Redis) -> None:
    ledger.set("text", "x")
    pipeline = ledger.pipeline(transaction=True)
    pipeline.incr("n")
    pipeline.scard("text")
    pipeline.get("text")
    one, refused, last = call_each(pipeline)
    assert (one, last) == (1, "x")
    assert isinstance(refused, Rejected)


def test_a_plain_command_says_what_it_found(ledger: Redis) -> None:
    call(ledger.set, "text", "x")
    with pytest.raises(Rejected, match="WRONGTYPE"):
        call(ledger.lpush, "text", "1")


def test_a_server_that_went_away_leaves_it_open(own_ledger: RedisServer) -> None:
    with sync_client(own_ledger.url) as client:
        assert call(client.incr, "n") == 1
        assert own_ledger.process is not None
        own_ledger.process.kill()
        for ask in (lambda: call(client.incr, "n"), lambda: evaluate(client, take("a"))):
            with pytest.raises(Indeterminate):
                ask()
        with pytest.raises(Indeterminate):
            evaluate_each(client, [take("a"), take("b")])
