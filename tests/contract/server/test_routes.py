"""The routes of a replica, asked directly, on real stores: the table of the design, section 3."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import structlog
from redis import Redis
from rig.asgi import Reply, ask
from rig.child import free_port
from rig.relay import Relay
from rig.rows import add_order, add_sale
from rig.sale import open_sale, sign_in, sold, stock
from rig.trips import passed, unnamed
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.errors import FlashsaleError
from flashsale.model import ID_MAX, Outcome
from flashsale.orders.lookup import KnownSales, OrderLookup
from flashsale.seckill.claims import Claims
from flashsale.server import replica as replica_module
from flashsale.server.replica import Replica
from flashsale.settings import ClaimSettings, ReplicaSettings, SessionSettings, StoreSettings
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import sync_client

pytestmark = pytest.mark.anyio

NOWHERE_MYSQL = "mysql+pymysql://u:p@127.0.0.1:1/flashsale"
BAD_IDS = [
    *("0", "-1", "1.0", "+1", "1e3", "0x1", "abc", "", " 1", "1 ", "١"),
    str(ID_MAX + 1),
    "9" * 40,
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class Shop:
    """A replica's application, and users who are signed in by their number."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica

    async def claim(self, voucher_id: int | str, user: int | str | None, **more: object) -> Reply:
        return await self.ask("POST", f"/voucher-order/seckill/{voucher_id}", user, **more)

    async def own(self, voucher_id: int | str, user: int | str | None) -> Reply:
        return await self.ask("GET", f"/voucher-order/seckill/{voucher_id}", user)

    async def order(self, order_id: int | str, user: int | str | None) -> Reply:
        return await self.ask("GET", f"/voucher-order/{order_id}", user)

    async def ask(self, method: str, path: str, user: int | str | None, **more: object) -> Reply:
        headers = {} if user is None else {"authorization": f"token-{user}"}
        headers |= more.pop("headers", {})  # type: ignore[call-overload]
        reply = await ask(self.replica.app, method, path, headers, **more)  # type: ignore[arg-type]
        told = reply.body.decode().lower()
        for word in ("traceback", "seckill:", "stream.", "login:", "select ", "tb_", "redis"):
            assert word not in told, "an answer tells nothing of what is behind it"
        return reply


@asynccontextmanager
async def shop_on(ledger_url: str, cache_url: str, mysql_url: str) -> AsyncIterator[Shop]:
    stores = StoreSettings(ledger_url=ledger_url, cache_url=cache_url, mysql_url=mysql_url)
    replica = Replica("r1", 1, stores, ReplicaSettings.load())
    try:
        await replica._sync_clock()
        yield Shop(replica)
        await replica._claims.drain()
    finally:
        await replica._close()


@pytest.fixture
async def shop(
    ledger_url: str, cache_url: str, mysql_url: str, ledger: Redis, pool: Engine
) -> AsyncIterator[Shop]:
    """Users 1 … 5 and ID_MAX are signed in; sale 1 has 10 units."""
    sign_in(ledger, 1, 2, 3, 4, 5, ID_MAX)
    open_sale(ledger)
    add_sale(pool)
    async with shop_on(ledger_url, cache_url, mysql_url) as shop:
        yield shop


# Claims -------------------------------------------------------------------------------------------


async def test_sold(shop: Shop, ledger: Redis) -> None:
    reply = await shop.claim(1, 1)
    order_id = sold(ledger)["1"]
    assert reply.status == 200
    assert reply.body == b'{"success":true,"data":' + order_id.encode() + b"}"
    assert reply.headers["x-outcome"] == "sold"
    assert reply.headers["x-order-id"] == order_id
    assert reply.headers["content-type"] == "application/json"


async def test_a_user_has_a_budget_of_claims_whatever_the_session(
    ledger_url: str, cache_url: str, mysql_url: str, ledger: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is refused before the script runs: certainly not done, and it says for how long."""
    monkeypatch.setenv("FLASHSALE_CLAIM_USER_CLAIMS_MAX", "6")
    monkeypatch.setenv("FLASHSALE_CLAIM_USER_WINDOW_S", "60")
    sign_in(ledger, 1, 2)
    ledger.hset(keys.login_token("token-her phone"), "id", "1")
    open_sale(ledger)
    async with shop_on(ledger_url, cache_url, mysql_url) as shop:
        replies = [await shop.claim(1, who) for _ in range(4) for who in (1, "her phone")]
        assert [reply.status for reply in replies] == [200] * 6 + [429] * 2
        calls = ledger.info("commandstats")
        refused = await shop.claim(1, 1)
        assert ledger.info("commandstats")["cmdstat_evalsha"] == calls["cmdstat_evalsha"]  # type: ignore[index]
        assert refused.headers["x-outcome"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.body.startswith(b'{"success":false,"errorMsg":"Too many')
        assert (await shop.claim(1, 2)).headers["x-outcome"] == "sold", "another user"
        assert (await shop.own(1, 1)).status == 200, "asking is no claim"
        assert shop.replica._claims.outcomes[Outcome.RATE_LIMITED] == 3
    assert stock(ledger) == 8


async def test_signing_out_everywhere(shop: Shop, ledger: Redis) -> None:
    other = keys.login_token("token-her phone")
    ledger.hset(other, "id", "1")
    ledger.zadd(keys.login_sessions(1), {other: 2**52})
    reply = await shop.ask("POST", "/user/logout/everywhere", 1)
    assert (reply.status, reply.body) == (200, b'{"success":true}')
    for who in (1, "her phone"):
        assert (await shop.claim(1, who)).status == 401
    assert (await shop.claim(1, 2)).status == 200
    assert (await shop.ask("POST", "/user/logout/everywhere", None)).status == 401


async def test_the_trip_of_a_claim_names_every_file_that_it_passes(shop: Shop) -> None:
    await shop.claim(1, 1)
    with passed() as files:
        await shop.claim(1, 2)
    assert not unnamed("request", files)


async def test_sold_to_the_largest_user(shop: Shop, ledger: Redis) -> None:
    reply = await shop.claim(1, ID_MAX)
    assert sold(ledger) == {str(ID_MAX): reply.headers["x-order-id"]}


async def test_duplicate_names_the_order_held(shop: Shop) -> None:
    first = await shop.claim(1, 1)
    again = await shop.claim(1, 1)
    assert again.status == 200
    assert again.json == {"success": False, "errorMsg": "Duplicate orders cannot be placed"}
    assert again.headers["x-outcome"] == "duplicate"
    assert again.headers["x-order-id"] == first.headers["x-order-id"]


@pytest.mark.parametrize(
    ("field", "value", "message", "outcome"),
    [
        ("stock", "0", "Insufficient inventory", "sold_out"),
        ("begin", str(2**52), "Sale has not started", "not_open"),
        ("end", "1", "Sale has ended", "ended"),
        ("state", "closed", "Sale has ended", "ended"),
        ("state", "paused", "Sale is paused", "paused"),
    ],
)
async def test_rejections(
    shop: Shop, ledger: Redis, field: str, value: str, message: str, outcome: str
) -> None:
    if field == "stock":
        ledger.set(keys.seckill_stock(1), value)
    else:
        ledger.hset(keys.seckill_sale(1), field, value)
    reply = await shop.claim(1, 1)
    assert (reply.status, reply.json) == (200, {"success": False, "errorMsg": message})
    assert reply.headers["x-outcome"] == outcome
    assert "x-order-id" not in reply.headers


async def test_an_unknown_voucher(shop: Shop) -> None:
    reply = await shop.claim(404, 1)
    assert (reply.status, reply.json["success"]) == (404, False)


async def test_a_voucher_whose_sale_is_not_loaded(shop: Shop, pool: Engine) -> None:
    add_sale(pool, 2)
    reply = await shop.claim(2, 1)
    assert (reply.status, reply.json["errorMsg"]) == (503, "Busy, try again")
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.headers["x-outcome"] == "not_loaded"


async def test_shed(shop: Shop, ledger: Redis) -> None:
    ledger.delete(keys.seckill_receipt(1))
    ledger.rpush(keys.seckill_receipt(1), "not a hash")
    reply = await shop.claim(1, 1)
    assert (reply.status, reply.json["errorMsg"]) == (503, "Busy, try again")
    assert reply.headers["x-outcome"] == "shed"
    assert int(reply.headers["retry-after"]) >= 1
    assert stock(ledger) == 10


async def test_unknown_names_its_id(
    ledger_url: str, cache_url: str, mysql_url: str, ledger: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim executed, its answer and every replay are lost; the receipt bears the id told."""
    monkeypatch.setenv("FLASHSALE_CLAIM_TIMEOUT_MS", "300")
    sign_in(ledger, 1, 2)
    open_sale(ledger)
    async with Relay(ledger_url) as relay, shop_on(ledger_url, cache_url, mysql_url) as shop:
        behind = Claims(relay.url, ClaimSettings.load(), SessionSettings.load())
        monkeypatch.setattr(shop.replica._claims, "claim", behind.claim)
        await shop.claim(1, 1)
        relay.cut_replies_after(0, for_good=True)
        reply = await shop.claim(1, 2)
        await behind.drain()
        await behind.aclose()
        assert (await shop.own(1, 2)).json["data"]["orderId"] == reply.headers["x-order-id"]
    assert (reply.status, reply.json["errorMsg"]) == (503, "Outcome unknown, ask for your order")
    assert reply.headers["x-outcome"] == "unknown"
    assert reply.headers["x-order-id"] == sold(ledger)["2"]
    assert int(reply.headers["retry-after"]) >= 1, "the status is final after the deadline"


async def test_a_body_does_not_matter_but_its_bounds_do(shop: Shop) -> None:
    small = await shop.claim(1, 1, headers={"content-length": "3"}, body=b"abc")
    assert small.headers["x-outcome"] == "sold"
    large = await shop.claim(1, 2, headers={"content-length": "100000"}, body=b"")
    assert large.status == 413
    grown = [b"x" * 40_000] * 2
    assert (
        await shop.claim(1, 2, headers={"transfer-encoding": "chunked"}, body=grown)
    ).status == 413


async def test_smuggling_is_refused_before_anything_is_sold(shop: Shop, ledger: Redis) -> None:
    headers = {"content-length": "3", "transfer-encoding": "chunked"}
    assert (await shop.claim(1, 1, headers=headers, body=b"abc")).status == 400
    assert sold(ledger) == {}


async def test_ids_are_strict(shop: Shop, ledger: Redis) -> None:
    for number in BAD_IDS:
        for reply in (
            await shop.claim(number, 1),
            await shop.own(number, 1),
            await shop.order(number, 1),
        ):
            assert (reply.status, reply.json["success"]) == (400, False), number
    assert sold(ledger) == {}


async def test_without_a_session_everything_is_401_and_empty(shop: Shop, ledger: Redis) -> None:
    for user in (None, "stranger", "x" * 200, "1\x00"):
        for reply in (
            await shop.claim(1, user),
            await shop.own(1, user),
            await shop.order(1, user),
        ):
            assert (reply.status, reply.body) == (401, b""), user
    assert sold(ledger) == {}


async def test_methods_and_paths(shop: Shop) -> None:
    assert (await shop.ask("DELETE", "/voucher-order/seckill/1", 1)).status == 405
    assert (await shop.ask("POST", "/voucher-order/1", 1)).status == 405
    assert (await shop.ask("GET", "/voucher-order", 1)).status == 404
    assert (await shop.ask("GET", "/voucher-order/seckill/1/2", 1)).status == 404
    big = await shop.ask("POST", "/voucher-order/seckill/1", 1, headers={"x": "y" * 20_000})
    assert big.status == 431


# Status -------------------------------------------------------------------------------------------


async def test_an_order_from_receipt_to_row(shop: Shop, pool: Engine) -> None:
    assert (await shop.own(1, 1)).json["data"] == {"state": "none"}
    order_id = (await shop.claim(1, 1)).headers["x-order-id"]
    queued = (await shop.own(1, 1)).json["data"]
    assert (queued["state"], queued["orderId"]) == ("receipt", order_id)
    assert (await shop.order(order_id, 1)).json["data"]["state"] == "QUEUED"
    add_order(pool, order_id=int(order_id), user_id=1)
    row = (await shop.own(1, 1)).json["data"]
    assert (row["state"], row["orderId"], row["status"]) == ("row", order_id, 1)
    confirmed = (await shop.order(order_id, 1)).json["data"]
    assert (confirmed["state"], confirmed["status"]) == ("CONFIRMED", 1)


async def test_an_order_that_was_set_aside_has_failed(shop: Shop, ledger: Redis) -> None:
    order_id = (await shop.claim(1, 1)).headers["x-order-id"]
    ledger.hset(keys.DEAD_ORDERS, order_id, "no stock")
    assert (await shop.order(order_id, 1)).json["data"]["state"] == "FAILED"
    own = (await shop.own(1, 1)).json["data"]
    assert (own["state"], own["orderState"]) == ("receipt", "FAILED")


async def test_another_users_order_is_404(shop: Shop, pool: Engine) -> None:
    order_id = (await shop.claim(1, 1)).headers["x-order-id"]
    add_order(pool, order_id=77, user_id=1, voucher_id=9)
    for number in (order_id, "77", "123456"):
        assert (await shop.order(number, 2)).status == 404
    assert (await shop.own(1, 2)).json["data"] == {"state": "none"}
    assert (await shop.order(int(order_id) + 1, 1)).status == 404, "nor is any id one's own"


async def test_a_cancelled_order_beside_a_live_one(shop: Shop, pool: Engine) -> None:
    add_order(pool, order_id=50, user_id=1, status=4)
    assert (await shop.own(1, 1)).json["data"]["status"] == 4
    add_order(pool, order_id=51, user_id=1, status=2)
    live = (await shop.own(1, 1)).json["data"]
    assert (live["orderId"], live["status"]) == ("51", 2)
    assert (await shop.order(50, 1)).json["data"]["status"] == 4


async def test_a_new_claim_after_a_cancelled_order_is_told_first(shop: Shop, pool: Engine) -> None:
    add_order(pool, order_id=50, user_id=1, status=4)
    order_id = (await shop.claim(1, 1)).headers["x-order-id"]
    assert (await shop.own(1, 1)).json["data"]["orderId"] == order_id


async def test_ids_beyond_what_javascript_counts_are_text(shop: Shop, pool: Engine) -> None:
    add_order(pool, order_id=ID_MAX, user_id=1, voucher_id=3)
    assert (await shop.order(ID_MAX, 1)).json["data"]["orderId"] == str(ID_MAX)


# Stores away --------------------------------------------------------------------------------------


async def test_without_a_ledger_everything_is_503_and_nothing_401(
    own_ledger: RedisServer, cache_url: str, mysql_url: str
) -> None:
    with sync_client(own_ledger.url) as client:
        sign_in(client, 1)
        open_sale(client)
    async with shop_on(own_ledger.url, cache_url, mysql_url) as shop:
        await shop.claim(1, 1)
        assert own_ledger.process is not None
        own_ledger.process.kill()
        for user in (1, "stranger"):
            for reply in (
                await shop.claim(1, user),
                await shop.own(1, user),
                await shop.order(1, user),
                await shop.ask("GET", "/readyz", None),
            ):
                assert reply.status == 503
                assert int(reply.headers["retry-after"]) >= 1
        assert (await shop.ask("GET", "/healthz", None)).status == 200
        assert (await shop.claim(1, None)).status == 401, "no token: no question to ask"
        claim = await shop.claim(1, 1)
        assert claim.headers["x-outcome"] == "shed", "nothing was sent: certainly not done"


async def test_without_mysql_the_sale_goes_on(
    ledger_url: str, cache_url: str, ledger: Redis
) -> None:
    sign_in(ledger, 1)
    open_sale(ledger)
    async with shop_on(ledger_url, cache_url, NOWHERE_MYSQL) as shop:
        assert (await shop.claim(1, 1)).headers["x-outcome"] == "sold"
        assert (await shop.own(1, 1)).status == 503, "not `none`: that would be final"
        assert (await shop.order(1, 1)).status == 503
        assert (await shop.ask("GET", "/readyz", None)).status == 503
        not_loaded = await shop.claim(2, 1)
        assert (not_loaded.status, not_loaded.headers["x-outcome"]) == (503, "not_loaded")


async def test_readiness_and_health(shop: Shop) -> None:
    assert (await shop.ask("GET", "/readyz", None)).status == 200
    assert (await shop.ask("GET", "/healthz", None)).json == {"success": True}


async def test_metrics(shop: Shop) -> None:
    await shop.claim(1, 1)
    await shop.claim(1, 1)
    await shop.ask("GET", "/nowhere", 1)
    reply = await ask(shop.replica.app, "GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    told = reply.body.decode()
    route = 'method="POST",route="/voucher-order/seckill/{voucherId}"'
    for line in (
        'flashsale_claims_total{outcome="sold"} 1.0',
        'flashsale_claims_total{outcome="duplicate"} 1.0',
        f'flashsale_http_requests_total{{{route},status="200"}} 2.0',
        'flashsale_http_requests_total{method="any",route="unknown",status="404"} 1.0',
        f"flashsale_http_request_duration_seconds_count{{{route}}} 2.0",
        f'flashsale_http_request_duration_seconds_bucket{{le="+Inf",{route}}} 2.0',
        'flashsale_gate_batch_items_count{gate="claim"} 2.0',
        'flashsale_gate_batch_items_sum{gate="claim"} 2.0',
        'flashsale_gate_call_duration_seconds_count{gate="claim"} 2.0',
        'flashsale_redis_connections{channel="claim",state="in_use"} 0.0',
        'flashsale_redis_connections{channel="claim",state="idle"} 1.0',
        'flashsale_mysql_pool_connections_max{pool="replica"} 50.0',
        'flashsale_locks_acquired_total{locks="task"} 0.0',
        "flashsale_event_loop_lag_seconds_count 0.0",
    ):
        assert line in told, line


async def test_every_series_of_claims_is_there_before_the_first(shop: Shop) -> None:
    """A rate over a series that begins at 1 does not see the first claim."""
    told = (await ask(shop.replica.app, "GET", "/metrics")).body.decode()
    server_says = set(Outcome) - {
        Outcome.RATE_LIMITED,
        Outcome.REFUSED,
        Outcome.UNSENT,
        Outcome.INDETERMINATE,
    }
    for outcome in server_says:
        assert f'flashsale_claims_total{{outcome="{outcome}"}} 0.0' in told
    route = 'method="POST",route="/voucher-order/seckill/{voucherId}"'
    assert f'flashsale_http_requests_total{{{route},status="503"}} 0.0' in told


async def test_nothing_that_a_client_sends_makes_a_series(shop: Shop) -> None:
    def series(body: bytes) -> set[str]:
        lines = (line for line in body.decode().splitlines() if not line.startswith("#"))
        return {line.rpartition(" ")[0] for line in lines}

    await shop.ask("GET", "/nowhere", 1)
    await shop.claim(1, 1)
    before = series((await ask(shop.replica.app, "GET", "/metrics")).body)
    for n in range(50):
        await shop.ask("GET", f"/{n}/<script>", n)
        await shop.ask("GET", f'/shop"}}{n}/\n', n)
        await shop.ask(f"METHOD{n}", "/nowhere", 1)
        await shop.claim(10_000 + n, 1)
    after = series((await ask(shop.replica.app, "GET", "/metrics")).body)
    grown = {each for each in after - before if "python_" not in each and "process_" not in each}
    assert all('status="' in each for each in grown), "a status is the server's own"
    assert len(grown) < 5


async def test_a_rush_of_2000(shop: Shop, ledger: Redis) -> None:
    """One voucher, ten units, every user twice: ten are sold, and their second try knows."""
    sign_in(ledger, *range(1, 1001))
    users = [*range(1, 1001)] * 2
    replies = await asyncio.gather(*(shop.claim(1, user) for user in users))
    outcomes = [reply.headers["x-outcome"] for reply in replies]
    assert outcomes.count("sold") == 10
    assert outcomes.count("duplicate") == 10
    assert outcomes.count("sold_out") == 1980
    receipts = sold(ledger)
    for user, reply in zip(users, replies, strict=True):
        assert reply.headers.get("x-order-id") == receipts.get(str(user))


# Signing in ---------------------------------------------------------------------------------------


async def test_signing_in_and_out(shop: Shop, ledger: Redis, pool: Engine) -> None:
    phone = "13800000001"
    assert (await ask(shop.replica.app, "POST", "/user/code", query=f"phone={phone}")).status == 200
    code = ledger.hget(keys.login_code(phone), "code")
    form = f'{{"phone":"{phone}","code":"{code}"}}'.encode()
    headers = {"content-type": "application/json", "content-length": str(len(form))}
    login = await ask(shop.replica.app, "POST", "/user/login", headers, body=form)
    token = login.json["data"]
    with pool.connect() as connection:
        user = connection.execute(
            text("SELECT id FROM tb_user WHERE phone = " + phone)
        ).scalar_one()
    mine = {"authorization": token}
    me = await ask(shop.replica.app, "GET", "/user/me", mine)
    assert me.json["data"]["id"] == user
    again = await ask(shop.replica.app, "POST", "/user/login", headers, body=form)
    assert again.json["success"] is False, "a code works once"
    assert (await ask(shop.replica.app, "POST", "/user/logout", mine)).status == 200
    assert (await ask(shop.replica.app, "GET", "/user/me", mine)).status == 401


async def test_a_code_stands_few_wrong_tries(shop: Shop, ledger: Redis) -> None:
    phone = "13800000002"
    await ask(shop.replica.app, "POST", "/user/code", query=f"phone={phone}")
    code = ledger.hget(keys.login_code(phone), "code")
    wrong = f"{(int(str(code)) + 1) % 10**6:06}"
    headers = {"content-type": "application/json", "content-length": "50"}
    for given in [wrong] * 5 + [str(code)]:
        form = f'{{"phone":"{phone}","code":"{given}"}}'.encode()
        reply = await ask(shop.replica.app, "POST", "/user/login", headers, body=form)
        assert reply.json["success"] is False
    assert not ledger.exists(keys.login_code(phone))


async def test_what_is_no_phone(shop: Shop, ledger: Redis) -> None:
    for phone in ("", "1", "23800000001", "1380000000x", "١٣٨٠٠٠٠٠٠٠١", "1" * 12):
        reply = await ask(shop.replica.app, "POST", "/user/code", query=f"phone={phone}")
        assert reply.status == 400, phone
    assert not list(ledger.scan_iter(keys.login_code("*")))


async def test_a_sale_that_is_not_there_is_looked_for_once_a_moment(
    shop: Shop, pool: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    original = OrderLookup.voucher_exists

    async def counted(self: OrderLookup, voucher_id: int) -> bool:
        nonlocal looks
        looks += 1
        return await original(self, voucher_id)

    monkeypatch.setattr(OrderLookup, "voucher_exists", counted)
    replies = await asyncio.gather(*(shop.claim(404, 1) for _ in range(20)))
    replies += [await shop.claim(404, 1) for _ in range(20)]
    assert {reply.status for reply in replies} == {404}
    assert looks == 1
    replies = await asyncio.gather(*(shop.claim(number, 1) for number in range(500, 540)))
    assert {reply.status for reply in replies} <= {404, 503}
    assert looks <= 5, "many ids at once leave MySQL to others"


async def test_what_is_known_of_a_sale_is_forgotten_in_time_and_bounded() -> None:
    class Orders:
        found = False
        looks = 0

        async def voucher_exists(self, voucher_id: int) -> bool:
            self.looks += 1
            return self.found

    orders = Orders()
    known = KnownSales(orders, moment_s=0.05, most=3)  # type: ignore[arg-type]
    assert [await known.knows(number) for number in range(10)] == [False] * 10
    assert (orders.looks, len(known._known), known._looks) == (10, 3, {})
    orders.found = True
    await asyncio.sleep(0.06)
    assert await known.knows(9)


async def test_an_order_in_the_queue_is_to_be_tried_again(shop: Shop, ledger: Redis) -> None:
    open_sale(ledger)
    order_id = (await shop.claim(1, 1)).json["data"]
    for change in ("pay", "cancel"):
        reply = await shop.ask("POST", f"/voucher-order/{order_id}/{change}", 1)
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.json["success"] is False


async def test_head_is_get_without_its_body(shop: Shop, ledger: Redis) -> None:
    open_sale(ledger)
    for path in ("/healthz", "/voucher-order/seckill/1", "/voucher-order/seckill/0", "/shop/1"):
        got, head = await shop.ask("GET", path, 1), await shop.ask("HEAD", path, 1)
        assert (head.status, head.body) == (got.status, b"")
        assert head.headers["content-length"] == str(len(got.body))
    assert (await shop.ask("HEAD", "/user/login", 1)).status == 405
    assert (await shop.ask("POST", "/healthz", None)).headers["allow"] == "GET, HEAD"


async def test_what_is_one_users_alone_is_kept_by_no_cache(shop: Shop, ledger: Redis) -> None:
    open_sale(ledger)
    for path in ("/user/me", "/voucher-order/seckill/1", "/voucher-order/77", "/user/sign/count"):
        reply = await shop.ask("GET", path, 1)
        assert reply.headers["cache-control"] == "no-store", path
        assert reply.headers["x-content-type-options"] == "nosniff"


async def test_a_background_task_that_ended_is_told_and_ends_the_process() -> None:
    async def lasts() -> None:
        await asyncio.sleep(60)

    async def breaks() -> None:
        raise OverflowError("too long")

    async def returns() -> None:
        return

    loop = asyncio.get_running_loop()
    lasting = loop.create_task(lasts())
    assert replica_module._ended_duty([lasting]) == ""
    for duty, why in ((breaks, "too long"), (returns, "it returned")):
        task = loop.create_task(duty())
        await asyncio.wait({task})
        told = replica_module._ended_duty([lasting, task])
        assert duty.__name__ in told
        assert why in told
    lasting.cancel()


async def test_a_replica_whose_task_ends_stops_serving(
    ledger_url: str, cache_url: str, mysql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(self: Claims) -> None:
        await asyncio.sleep(0.2)
        raise OverflowError("too long")

    monkeypatch.setattr(Claims, "keep_time", breaks)
    monkeypatch.setattr(replica_module, "_calm_collector", lambda: None)
    monkeypatch.setattr(replica_module, "_give_way", lambda _: None)
    stores = StoreSettings(ledger_url=ledger_url, cache_url=cache_url, mysql_url=mysql_url)
    with free_port() as port:
        replica = Replica("r1", port, stores, ReplicaSettings.load(drain_timeout_s=1))
        with pytest.raises(FlashsaleError, match=r"breaks ended by itself: .*too long"):
            await asyncio.wait_for(replica.run(), 20)


async def test_orders_do_not_wait_behind_pages_and_searches_leave_room_for_pages(
    shop: Shop, ledger: Redis, pool: Engine
) -> None:
    """Every page of shops hangs in MySQL: an order's row is read and paid all the same, and so is
    a page of another table, since searches may hold but a few slots."""
    add_order(pool, order_id=77, user_id=1)
    with pool.connect() as holding:
        holding.execute(text("LOCK TABLES tb_shop WRITE"))
        searches = [
            asyncio.ensure_future(shop.ask("GET", f"/shop/of/name?name=n{number}", None))
            for number in range(40)
        ]
        await asyncio.sleep(0.3)
        assert sum(search.done() for search in searches) >= 30, "refused, and at once"
        async with asyncio.timeout(2):
            assert (await shop.ask("GET", "/blog/1", None)).status == 404
        pages = [
            asyncio.ensure_future(shop.ask("GET", f"/shop/{number}", None))
            for number in range(1, 40)
        ]
        await asyncio.sleep(0.3)
        async with asyncio.timeout(2):
            assert (await shop.own(1, 1)).json["data"]["state"] == "row"
            assert (await shop.ask("POST", "/voucher-order/77/pay", 1)).status == 200
            assert (await shop.claim(404, 2)).status == 404
        assert not any(page.done() for page in pages[:10])
        holding.execute(text("UNLOCK TABLES"))
    replies = await asyncio.gather(*searches, *pages)
    assert {reply.status for reply in replies} <= {200, 404, 503}
