"""Claims on a real Redis: who is told `sold` has an order, who is told `shed` has none."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rig.relay import Relay
from rig.sale import everything, open_sale, session, sign_in, sold, stock
from rig.until import eventually

from flashsale import keys
from flashsale.lua.scripts import script
from flashsale.model import Outcome
from flashsale.seckill.batch import SHED, Claimed
from flashsale.seckill.claims import Claims
from flashsale.seckill.ids import Instant
from flashsale.settings import ClaimSettings, SessionSettings
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import sync_client

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def claims_on(url: str, **settings: Any) -> AsyncIterator[Claims]:
    claims = Claims(url, ClaimSettings(**settings), SessionSettings())
    try:
        await claims.clock.sync()
        yield claims
        await claims.drain()
    finally:
        await claims.aclose()


def for_sale(ledger: Redis, voucher_id: int = 1, **terms: Any) -> None:
    """A sale that runs, unless told otherwise, and users 1 … 120, who are signed in."""
    sign_in(ledger, *range(1, 121))
    open_sale(ledger, voucher_id, **terms)


async def buy(claims: Claims, voucher_id: int, user: int) -> Claimed:
    answer = await claims.claim(voucher_id, session(user))
    assert answer is not None, "who is signed in is told"
    return answer


async def rush(claims: Claims, users: range | list[int], voucher_id: int = 1) -> list[Claimed]:
    return await asyncio.gather(*(buy(claims, voucher_id, user) for user in users))


def evalshas(ledger: Redis) -> int:
    stats: Any = ledger.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


# What Redis answered ----------------------------------------------------------------------------


async def test_sold_sold_out_and_duplicate(ledger_url: str, ledger: Redis) -> None:
    for_sale(ledger, units=3)
    async with claims_on(ledger_url) as claims:
        answers = await rush(claims, [1, 2, 1, 3, 4])
        again = await buy(claims, 1, 2)
    outcomes = [answer.outcome for answer in answers]
    assert outcomes == [
        Outcome.SOLD,
        Outcome.SOLD,
        Outcome.DUPLICATE,
        Outcome.SOLD,
        Outcome.SOLD_OUT,
    ]
    assert answers[2].order_id == answers[0].order_id
    assert again == Claimed(Outcome.DUPLICATE, answers[1].order_id)
    assert sold(ledger) == {str(user): answers[n].order_id for n, user in ((0, 1), (1, 2), (3, 3))}
    assert dict(claims.outcomes) == {
        Outcome.SOLD: 3,
        Outcome.DUPLICATE: 2,
        Outcome.SOLD_OUT: 1,
    }


@pytest.mark.parametrize(
    ("terms", "outcome"),
    [
        ({"state": "paused"}, Outcome.PAUSED),
        ({"state": "closed"}, Outcome.ENDED),
        ({"begins_in_ms": 10_000}, Outcome.NOT_OPEN),
        (None, Outcome.NOT_LOADED),
    ],
    ids=str,
)
async def test_refusals(
    ledger_url: str, ledger: Redis, terms: dict[str, Any] | None, outcome: Outcome
) -> None:
    sign_in(ledger, 7)
    if terms is not None:
        open_sale(ledger, **terms)
    async with claims_on(ledger_url) as claims:
        assert await buy(claims, 1, 7) == Claimed(outcome)


async def test_nobody_buys_nothing_and_is_not_counted(ledger_url: str, ledger: Redis) -> None:
    """A claim without a session travels with those that have one, and leaves no trace."""
    for_sale(ledger, units=2)
    async with claims_on(ledger_url) as claims:
        claiming = [claims.claim(1, session(user)) for user in (1, 404, 2, 405)]
        answers = await asyncio.gather(*claiming)
        assert claims.gate.calls == 1
        assert [answer and answer.outcome for answer in answers] == [
            Outcome.SOLD,
            None,
            Outcome.SOLD,
            None,
        ]
        assert dict(claims.outcomes) == {Outcome.SOLD: 2}
    assert set(sold(ledger)) == {"1", "2"}


async def test_one_call_a_voucher(ledger_url: str, ledger: Redis) -> None:
    for voucher_id in (1, 2, 3):
        for_sale(ledger, voucher_id, units=100)
    async with claims_on(ledger_url) as claims:
        before = evalshas(ledger)
        answers = await asyncio.gather(*(buy(claims, 1 + n % 3, n + 1) for n in range(90)))
        assert {answer.outcome for answer in answers} == {Outcome.SOLD}
        assert claims.gate.calls == 1
        healed = 3  # the script is not there yet: NOSCRIPT, then the same call again
        assert evalshas(ledger) - before == 3 + healed
    for voucher_id in (1, 2, 3):
        mine = {str(n + 1): a.order_id for n, a in enumerate(answers) if 1 + n % 3 == voucher_id}
        assert sold(ledger, voucher_id) == mine
    assert len({answer.order_id for answer in answers}) == 90


async def test_a_batch_has_its_bound(ledger_url: str, ledger: Redis) -> None:
    for_sale(ledger, units=100)
    async with claims_on(ledger_url, batch_max=8) as claims:
        await rush(claims, range(1, 41))
        assert (claims.gate.calls, claims.gate.items) == (5, 40)


async def test_two_replicas_share_a_sale(ledger_url: str, ledger: Redis) -> None:
    for_sale(ledger, units=50)
    async with claims_on(ledger_url) as one, claims_on(ledger_url) as two:
        answers = await asyncio.gather(rush(one, range(1, 61)), rush(two, range(31, 91)))
    bought = [a.order_id for part in answers for a in part if a.outcome is Outcome.SOLD]
    assert len(bought) == len(set(bought)) == 50
    assert sorted(sold(ledger).values()) == sorted(bought)
    assert stock(ledger) == 0


# Refused before execution: certainly not done -----------------------------------------------------


async def test_a_claim_that_waited_too_long_is_shed(ledger_url: str, ledger: Redis) -> None:
    for_sale(ledger)
    async with Relay(ledger_url) as relay, claims_on(relay.url, queue_timeout_ms=300) as claims:
        await buy(claims, 1, 1)
        relay.hold()
        first = asyncio.ensure_future(buy(claims, 1, 2))
        await relay.held.wait()
        second = asyncio.ensure_future(buy(claims, 1, 3))
        await asyncio.sleep(0.35)  # the second grows old in the queue
        relay.release()
        assert (await first).outcome is Outcome.SOLD
        assert await second == SHED
    assert set(sold(ledger)) == {"1", "2"}


async def test_a_full_queue_sheds(ledger_url: str, ledger: Redis) -> None:
    for_sale(ledger)
    async with Relay(ledger_url) as relay, claims_on(relay.url, queue_max=2) as claims:
        await buy(claims, 1, 1)
        relay.hold()
        first = asyncio.ensure_future(buy(claims, 1, 2))
        await relay.held.wait()
        waiting = [asyncio.ensure_future(buy(claims, 1, user)) for user in (3, 4)]
        await asyncio.sleep(0)
        assert await buy(claims, 1, 5) == SHED
        relay.release()
        answers = await asyncio.gather(first, *waiting)
        assert {answer.outcome for answer in answers} == {Outcome.SOLD}
    assert set(sold(ledger)) == {"1", "2", "3", "4"}


async def test_a_flushed_script_heals(ledger_url: str, ledger: Redis) -> None:
    for_sale(ledger)
    async with claims_on(ledger_url) as claims:
        await buy(claims, 1, 1)
        ledger.script_flush()
        answers = await rush(claims, [2, 3])
    assert {answer.outcome for answer in answers} == {Outcome.SOLD}
    assert set(sold(ledger)) == {"1", "2", "3"}


def _oom(client: Redis) -> None:
    client.config_set("maxmemory", 1)


def _readonly(client: Redis) -> None:
    client.replicaof("127.0.0.1", 1)


def _misconf(client: Redis) -> None:
    client.config_set("appendonly", "no")
    client.config_set("save", "3600 1")
    Path(client.config_get("dir")["dir"], "dump.rdb").mkdir()
    client.bgsave()
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        pass


def _wrong_type(client: Redis) -> None:
    client.delete(keys.seckill_receipt(1))
    client.set(keys.seckill_receipt(1), "x")


def _wrong_stock(client: Redis) -> None:
    client.set(keys.seckill_stock(1), "1e2")


@pytest.mark.parametrize("starve", [_oom, _readonly, _misconf, _wrong_type, _wrong_stock])
@pytest.mark.parametrize("has_ids", [True, False], ids=["ids leased", "ids to be leased"])
async def test_what_redis_refuses_is_shed_and_not_done(
    own_ledger: RedisServer, starve: Callable[[Redis], None], has_ids: bool
) -> None:
    with sync_client(own_ledger.url) as client:
        for_sale(client)
        for_sale(client, 2)
        client.script_load(script("seckill").text)
        async with claims_on(own_ledger.url, id_block=1 if not has_ids else 4096) as claims:
            await buy(claims, 2, 1)
            starve(client)
            before = everything(client)
            assert await rush(claims, [1, 2]) == [SHED, SHED]
            after = {
                name: value
                for name, value in everything(client).items()
                if not name.startswith("icr:")
            }
            assert after == {n: v for n, v in before.items() if not n.startswith("icr:")}
            assert claims.settlement.replays == 0
        client.config_set("save", "")


async def test_without_a_redis_everything_is_shed(own_ledger: RedisServer) -> None:
    assert own_ledger.process is not None
    async with claims_on(own_ledger.url) as claims:
        own_ledger.process.kill()
        await _until_gone(claims)
        assert await rush(claims, [1, 2]) == [SHED, SHED]


async def test_ids_that_cannot_be_leased_shed(ledger_url: str, ledger: Redis) -> None:
    for_sale(ledger)
    async with claims_on(ledger_url) as claims:
        day = Instant(int(claims.clock.now_s())).day
        ledger.set(keys.order_counter(day), "not a number")
        assert await buy(claims, 1, 1) == SHED
        ledger.set(keys.order_counter(day), 2**32 - 1)
        assert await buy(claims, 1, 1) == SHED
    assert sold(ledger) == {}


# Answers that were lost ---------------------------------------------------------------------------


async def test_an_answer_lost_after_execution_is_sold_with_the_same_id(
    ledger_url: str, ledger: Redis
) -> None:
    for_sale(ledger)
    async with Relay(ledger_url) as relay, claims_on(relay.url) as claims:
        await buy(claims, 1, 1)
        relay.cut_replies_after(0)
        answer = await buy(claims, 1, 2)
        assert relay.cuts == 1
        assert answer == Claimed(Outcome.SOLD, sold(ledger)["2"])
    assert stock(ledger) == 8
    assert len(ledger.xrange(keys.STREAM_ORDERS)) == 2


@pytest.mark.parametrize("passing", [0, 3, 30, 60])
async def test_a_whole_batch_is_settled_wherever_its_answer_was_torn(
    ledger_url: str, ledger: Redis, passing: int
) -> None:
    """One user twice, one who has an order already, and stock for two more."""
    for_sale(ledger, units=3)
    async with Relay(ledger_url) as relay, claims_on(relay.url, timeout_ms=300) as claims:
        held = await buy(claims, 1, 1)
        relay.cut_replies_after(passing)
        answers = await rush(claims, [1, 2, 3, 2, 4])
    receipts = sold(ledger)
    assert answers[0] == Claimed(Outcome.DUPLICATE, held.order_id)
    assert answers[1] == Claimed(Outcome.SOLD, receipts["2"])
    assert answers[2] == Claimed(Outcome.SOLD, receipts["3"])
    assert answers[3] == Claimed(Outcome.DUPLICATE, receipts["2"])
    # Sold out is not final before the deadline, for the lost call might still sell; then it is 7.
    assert answers[4] == SHED
    assert stock(ledger) == 0


async def test_vouchers_of_one_call_are_settled_each_by_itself(
    ledger_url: str, ledger: Redis
) -> None:
    for_sale(ledger, 1)
    for_sale(ledger, 2)
    async with Relay(ledger_url) as relay, claims_on(relay.url) as claims:
        await asyncio.gather(buy(claims, 1, 1), buy(claims, 2, 1))
        relay.cut_replies_after(len("*2\r\n:0\r\n$18\r\n000000000000000000\r\n"))
        answers = await asyncio.gather(buy(claims, 1, 2), buy(claims, 2, 2))
        assert claims.settlement.replays == 1, "the first was answered"
    assert answers == [
        Claimed(Outcome.SOLD, sold(ledger, 1)["2"]),
        Claimed(Outcome.SOLD, sold(ledger, 2)["2"]),
    ]


async def test_a_command_that_never_arrived_is_sold_by_its_replay(
    ledger_url: str, ledger: Redis
) -> None:
    for_sale(ledger)
    async with Relay(ledger_url) as relay, claims_on(relay.url) as claims:
        await buy(claims, 1, 1)
        relay.hold(new=False)
        claiming = asyncio.ensure_future(buy(claims, 1, 2))
        await relay.held.wait()
        relay.drop_all()
        answer = await claiming
    assert answer == Claimed(Outcome.SOLD, sold(ledger)["2"])


async def test_a_torn_command_that_arrives_after_the_deadline_sells_nothing(
    ledger_url: str, ledger: Redis
) -> None:
    """The replay overtakes it: `shed` was said, and stays true."""
    for_sale(ledger)
    async with Relay(ledger_url) as relay, claims_on(relay.url, timeout_ms=300) as claims:
        await buy(claims, 1, 1)
        relay.hold(new=False)
        assert await buy(claims, 1, 2) == SHED
        calls = evalshas(ledger)
        relay.release()
        await eventually(lambda: evalshas(ledger) > calls)
        assert set(sold(ledger)) == {"1"}
        assert (await buy(claims, 1, 2)).outcome is Outcome.SOLD


async def test_unknown_comes_at_the_end_and_names_the_id(ledger_url: str, ledger: Redis) -> None:
    for_sale(ledger)
    async with Relay(ledger_url) as relay, claims_on(relay.url, timeout_ms=200) as claims:
        await buy(claims, 1, 1)
        relay.hold()
        answer = await buy(claims, 1, 2)
        assert answer.outcome is Outcome.UNKNOWN
        assert int(answer.order_id) > 0
        relay.release()
    receipts = sold(ledger)
    assert receipts.get("2") in (None, answer.order_id), "if it is there, it has that id"


async def test_an_unknown_that_did_sell_has_the_id_that_was_named(
    ledger_url: str, ledger: Redis
) -> None:
    for_sale(ledger)
    async with Relay(ledger_url) as relay, claims_on(relay.url, timeout_ms=200) as claims:
        await buy(claims, 1, 1)
        relay.cut_replies_after(0, for_good=True)
        answer = await buy(claims, 1, 2)
    assert answer == Claimed(Outcome.UNKNOWN, sold(ledger)["2"])


async def test_who_signed_out_while_the_answer_was_lost_is_told_that_it_is_unknown(
    ledger_url: str, ledger: Redis
) -> None:
    """Whose receipt to look for is not known any more: 401 would hide a sale."""
    for_sale(ledger)
    async with Relay(ledger_url) as relay, claims_on(relay.url, timeout_ms=500) as claims:
        await buy(claims, 1, 1)
        relay.cut_replies_after(0, for_good=True)
        claiming = asyncio.ensure_future(buy(claims, 1, 2))
        await eventually(lambda: claims.settlement.replays == 1)  # in vain; then the deadline
        ledger.delete(session(2))
        relay.lose_no_more()
        assert await claiming == Claimed(Outcome.UNKNOWN, sold(ledger)["2"])
        assert claims.settlement.replays == 3


@pytest.mark.parametrize("how", ["CLIENT PAUSE", "SIGSTOP"])
async def test_a_redis_that_stalls_past_the_deadline(own_ledger: RedisServer, how: str) -> None:
    """It wakes before the replays are spent: the truth is told, whichever it is."""
    assert own_ledger.process is not None
    with sync_client(own_ledger.url) as client:
        for_sale(client)
        async with claims_on(own_ledger.url, timeout_ms=300) as claims:
            await buy(claims, 1, 1)
            loop = asyncio.get_running_loop()
            if how == "SIGSTOP":
                os.kill(own_ledger.process.pid, signal.SIGSTOP)
                loop.call_later(0.45, os.kill, own_ledger.process.pid, signal.SIGCONT)
            else:
                client.client_pause(450)
            answers = await rush(claims, range(2, 7))
            receipts = sold(client)
            for user, answer in zip(range(2, 7), answers, strict=True):
                assert answer in (SHED, Claimed(Outcome.SOLD, receipts.get(str(user), "")))
                assert (answer == SHED) == (str(user) not in receipts)


async def test_a_redis_killed_under_a_call_and_restarted_from_its_log(
    own_ledger: RedisServer,
) -> None:
    """The order was on disk before it was answered: the replay finds its receipt."""
    assert own_ledger.process is not None
    with sync_client(own_ledger.url) as client:
        for_sale(client)
    async with Relay(own_ledger.url) as relay, claims_on(relay.url, timeout_ms=1000) as claims:
        await buy(claims, 1, 1)
        relay.cut_replies_after(0)
        claiming = asyncio.ensure_future(buy(claims, 1, 2))
        await eventually(lambda: relay.cuts)
        own_ledger.process.kill()
        own_ledger.launch()
        answer = await claiming
        await asyncio.to_thread(own_ledger.await_ready)
        with sync_client(own_ledger.url) as client:
            assert answer.outcome in (Outcome.SOLD, Outcome.UNKNOWN)
            assert sold(client)["2"] == answer.order_id
            assert stock(client) == 8


async def test_a_caller_who_left_takes_nobody_along(ledger_url: str, ledger: Redis) -> None:
    for_sale(ledger)
    async with Relay(ledger_url) as relay, claims_on(relay.url) as claims:
        await buy(claims, 1, 1)
        relay.hold()
        gone, stays = (asyncio.ensure_future(buy(claims, 1, user)) for user in (2, 3))
        await relay.held.wait()
        gone.cancel()
        relay.release()
        assert (await stays).outcome is Outcome.SOLD
    assert set(sold(ledger)) == {"1", "2", "3"}, "who left may have bought: it was sent"


@pytest.mark.parametrize("seed", range(6))
async def test_chaos(ledger_url: str, ledger: Redis, seed: int) -> None:
    """Connections cut at any byte, commands held and let go, the clock a little wrong: every
    answer that was given is true."""
    chance = random.Random(seed)
    for_sale(ledger, units=60)
    users = [chance.randint(1, 120) for _ in range(200)]
    async with (
        Relay(ledger_url) as relay,
        claims_on(relay.url, timeout_ms=80, batch_max=16, calls_max=2) as claims,
    ):
        done = asyncio.Event()
        claims.clock._offset_s += chance.choice([-0.05, 0.0, 0.05])

        async def spoil() -> None:
            while not done.is_set():
                match chance.randrange(5):
                    case 0:
                        relay.cut_replies_after(chance.randint(0, 200))
                    case 1:
                        relay.hold(new=chance.random() < 0.5)
                    case 2:
                        relay.drop_all()
                    case _:
                        relay.release()
                await asyncio.sleep(chance.random() * 0.02)
            relay.release()

        async def arrive(user: int) -> Claimed:
            await asyncio.sleep(chance.random() * 0.3)
            return await buy(claims, 1, user)

        spoiling = asyncio.ensure_future(spoil())
        answers = await asyncio.gather(*(arrive(user) for user in users))
        done.set()
        await spoiling
        await claims.drain()
    async with claims_on(ledger_url) as fresh:
        await buy(fresh, 2, 1)  # what was held back has arrived before this
    receipts = sold(ledger)
    assert stock(ledger) + len(receipts) == 60
    claimed = {str(user) for user in users}
    assert set(receipts) <= claimed
    told = {o: [u for u, a in zip(users, answers, strict=True) if a.outcome is o] for o in Outcome}
    for user, answer in zip(users, answers, strict=True):
        if answer.outcome in (Outcome.SOLD, Outcome.DUPLICATE):
            assert receipts[str(user)] == answer.order_id
    assert len(told[Outcome.SOLD]) == len(set(told[Outcome.SOLD])), "sold to a user once"
    maybe = {str(user) for user in told[Outcome.SOLD] + told[Outcome.UNKNOWN]}
    assert set(receipts) <= maybe, "an order nobody was told of: shed or sold out was a lie"


# The clock ----------------------------------------------------------------------------------------


async def test_the_clock_is_kept_through_an_outage(ledger_url: str, ledger: Redis) -> None:
    async with Relay(ledger_url) as relay, claims_on(relay.url, clock_interval_s=0.005) as claims:
        keeping = asyncio.ensure_future(claims.keep_time())

        def readings() -> int:
            stats: Any = ledger.info("commandstats")
            return int(stats["cmdstat_time"]["calls"])

        seen = readings()
        await eventually(lambda: readings() > seen)
        relay.refuse = True
        relay.drop_all()
        refused = relay.connections
        await eventually(lambda: relay.connections > refused)
        relay.refuse = False
        seen = readings()
        await eventually(lambda: readings() > seen)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping


async def test_a_clock_that_is_wrong_here_does_not_matter(
    ledger_url: str, ledger: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines are set and judged on Redis' clock."""
    import flashsale.seckill.ids as clock

    for_sale(ledger)
    real = clock.time.time
    monkeypatch.setattr(clock.time, "time", lambda: real() - 86_400)
    async with claims_on(ledger_url) as claims:
        assert (await buy(claims, 1, 1)).outcome is Outcome.SOLD


async def _until_gone(claims: Claims) -> None:
    for channel in (claims._channel, claims._side):
        for wire in channel._idle:
            await eventually(lambda wire=wire: not wire.is_open)
