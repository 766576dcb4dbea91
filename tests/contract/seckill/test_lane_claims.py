"""Claims on a ledger of several lanes: the session in one, the sale in another, a worker for each,
a lane that moves while it sells, and one whose replica confirms nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rig.clustered import Clustered, clustered
from rig.until import eventually
from sqlalchemy import Engine, text

from flashsale.accounts.sessions import Owner, Sessions, creation, draw_token
from flashsale.keys import CLUSTER
from flashsale.model import Outcome
from flashsale.orders.lifecycle import Return, return_call
from flashsale.orders.process import make_watch, make_worker
from flashsale.orders.worker import Counts
from flashsale.seckill.batch import Claimed, digest_of
from flashsale.seckill.lane_claims import LaneClaims
from flashsale.seckill.sale import SaleTerms, load_sale
from flashsale.settings import ClaimSettings, SessionSettings, StoreSettings, WorkerSettings
from flashsale.storage.roles import Ledgers, evaluate

pytestmark = pytest.mark.anyio

VOUCHERS, UNITS, USERS = range(1, 8), 5, range(1, 41)
TOLD = (Outcome.SOLD, Outcome.DUPLICATE, Outcome.SOLD_OUT)


class Shop:
    """Seven sales over six lanes, and users with sessions."""

    def __init__(self, cluster: Clustered, pool: Engine) -> None:
        self.cluster = cluster
        self.pool = pool
        self.ledgers = Ledgers.at(cluster.url)
        with pool.begin() as connection:
            for voucher in VOUCHERS:
                connection.execute(
                    text(
                        "INSERT INTO tb_seckill_voucher (voucher_id, initial_stock, stock, "
                        "begin_time, end_time) VALUES (:v, :n, :n, '2020-01-01', '2040-01-01')"
                    ),
                    {"v": voucher, "n": UNITS},
                )
        for voucher in VOUCHERS:
            terms = SaleTerms(voucher, UNITS, UNITS, 1_577_836_800_000, 2_208_988_800_000, 0)
            assert load_sale(self.ledgers, terms)
        self.sessions: dict[int, str] = {}
        for user in USERS:
            token = draw_token(CLUSTER, user)
            call = creation([token], [Owner(user, "n", "")], SessionSettings(), CLUSTER)
            evaluate(self.ledgers.clients[CLUSTER.of_user(user).number], call)
            self.sessions[user] = call.keys[0]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LaneClaims]:
        """Claims as a replica of this environment makes them."""
        settings, asked = SessionSettings(), ClaimSettings.load()
        sessions = Sessions(self.cluster.url, settings)
        claims = LaneClaims(self.cluster.url, asked, settings, sessions, self.pool)
        try:
            await claims.sync_clocks()
            yield claims
            await claims.drain()
        finally:
            await claims.aclose()
            await sessions.aclose()

    def held(self) -> dict[int, dict[str, str]]:
        """The receipts by voucher, after checking that each sale's records agree."""
        found = {}
        for voucher in VOUCHERS:
            client, lane = self.ledgers.of(voucher), CLUSTER.of(voucher)
            receipts = client.hgetall(lane.seckill_receipt(voucher))
            assert client.smembers(lane.seckill_order(voucher)) == set(receipts)
            left = client.get(lane.seckill_stock(voucher))
            assert int(left or -1) == UNITS - len(receipts)
            found[voucher] = receipts
        return found

    def work(self, cache_url: str) -> Counts:
        """What a worker of each lane does with what there is."""
        url = self.pool.url.render_as_string(hide_password=False)
        stores = StoreSettings(ledger_url=self.cluster.url, cache_url=cache_url, mysql_url=url)
        settings, total = WorkerSettings(block_ms=1, linger_ms=0), Counts()
        for lane in CLUSTER.lanes:
            worker = make_worker("c1", stores, settings, lane)
            make_watch(stores, settings, lane).run_once()
            total += worker.run_once()
            total += worker.run_once()
            worker.pool.dispose()
        return total


@pytest.fixture
def shop(cluster: Clustered, pool: Engine) -> Shop:
    return Shop(cluster, pool)


async def buy(claims: LaneClaims, shop: Shop, voucher: int, user: int) -> Claimed:
    answer = await claims.claim(voucher, shop.sessions[user])
    assert answer is not None
    return answer


async def test_each_sale_sells_what_it_has_and_each_order_becomes_a_row(
    shop: Shop, cache_url: str
) -> None:
    async with shop.open() as claims:
        asked = [(voucher, user) for voucher in VOUCHERS for user in USERS]
        answers = await asyncio.gather(*(buy(claims, shop, *one) for one in asked))
        assert await claims.claim(1, CLUSTER.lanes[0].login_token("nobody")) is None
        assert await claims.claim(1, "of-no-lane") is None
        assert claims.outcomes == {Outcome.SOLD: 35, Outcome.SOLD_OUT: 245}
    told = {
        (voucher, str(user)): answer.order_id
        for (voucher, user), answer in zip(asked, answers, strict=True)
        if answer.outcome is Outcome.SOLD
    }
    assert len(set(told.values())) == len(told) == UNITS * len(VOUCHERS), "an id is given once"
    held = {(v, user): order for v, some in shop.held().items() for user, order in some.items()}
    assert held == told
    assert shop.work(cache_url).written == 35
    with shop.pool.begin() as connection:
        rows = connection.execute(text("SELECT voucher_id, user_id, id FROM tb_voucher_order"))
        assert {(v, str(user)): str(order) for v, user, order in rows} == told
        marks = set(connection.execute(text("SELECT stream FROM tb_stream_position")).scalars())
    for lane in CLUSTER.lanes:
        assert {lane.stream_orders, lane.epoch, lane.permit} <= marks
    assert shop.work(cache_url) == Counts()


async def test_who_won_is_told_so_again_and_can_give_it_back(shop: Shop) -> None:
    digest = digest_of("mine") or ""
    async with shop.open() as claims:
        first = await claims.claim(3, shop.sessions[7], digest)
        again = await claims.claim(3, shop.sessions[7], digest)
        other = await buy(claims, shop, 3, 7)
        assert first is not None
        assert first.outcome is Outcome.SOLD
        assert again == first
        assert other == Claimed(Outcome.DUPLICATE, first.order_id)
        client = shop.ledgers.of(3)
        assert evaluate(client, return_call(Return(int(first.order_id), 7, 3), CLUSTER)) == 1
        assert (await buy(claims, shop, 3, 7)).outcome is Outcome.SOLD


async def test_a_lane_that_moves_goes_on_selling_under_a_permit_of_its_new_master(
    shop: Shop, cache_url: str
) -> None:
    """A permit names the server: what came with the keys is not in force at the other end, so the
    books are compared first. Claims on their way are told the truth or shed, none is lost."""
    lane = CLUSTER.of(2)
    async with shop.open() as claims:
        assert (await buy(claims, shop, 2, 1)).outcome is Outcome.SOLD
        old = shop.ledgers.of(2).get(lane.permit)
        shop.cluster.move(lane, (shop.cluster.node_of(lane) + 1) % 3)
        answers = await asyncio.gather(*(buy(claims, shop, 2, user) for user in range(2, 10)))
        assert {answer.outcome for answer in answers} <= {Outcome.SOLD, Outcome.SHED}

        async def is_sold() -> bool:
            return (await buy(claims, shop, 2, 10)).outcome is not Outcome.SHED

        await eventually(is_sold)
        later = await asyncio.gather(*(buy(claims, shop, 2, user) for user in range(10, 20)))
    shop.ledgers = Ledgers.at(shop.cluster.url)  # the connections of before are told MOVED
    sold = [answer.order_id for answer in (*answers, *later) if answer.order_id]
    assert {answer.outcome for answer in later} <= set(TOLD)
    assert len(shop.held()[2]) == UNITS
    assert set(sold) <= set(shop.held()[2].values())
    new = shop.ledgers.of(2).get(lane.permit)
    assert new is not None
    assert new != old
    assert shop.work(cache_url).written == UNITS


@pytest.mark.slow
async def test_what_no_replica_confirms_is_unknown_and_no_row_and_other_lanes_sell(
    tmp_path: Path, pool: Engine, cache_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane's replicas are asked for that lane alone, by whoever sells and by whoever writes."""
    asked = {"REPLICAS": "1", "TIMEOUT_MS": "200"}
    for name, value in asked.items():
        monkeypatch.setenv(f"FLASHSALE_CLAIM_CONFIRM_{name}", value)
    monkeypatch.setenv("FLASHSALE_CLAIM_TIMEOUT_MS", "600")
    with clustered(tmp_path, masters=2, replicas=2) as cluster:
        shop = Shop(cluster, pool)
        lane, other = (cluster.lane_at(node) for node in cluster.masters())
        here, there = (one.number + len(CLUSTER.lanes) * (not one.number) for one in (lane, other))
        async with shop.open() as claims:
            for voucher in (here, there):
                assert (await buy(claims, shop, voucher, 1)).outcome is Outcome.SOLD
            assert shop.work(cache_url).written == 2
            with cluster.replica_stopped(lane):
                unknown = await buy(claims, shop, here, 2)
                refused = await buy(claims, shop, here, 3)
                sold = await buy(claims, shop, there, 2)
                assert unknown.outcome is Outcome.UNKNOWN
                assert unknown.order_id in shop.held()[here].values(), "its master has it"
                assert refused.outcome is Outcome.SHED
                assert sold.outcome is Outcome.SOLD
                held_up = shop.work(cache_url)
                assert (held_up.written, held_up.failures > 0) == (1, True)
            assert shop.work(cache_url).written == 1

            async def sells_on() -> bool:
                return (await buy(claims, shop, here, 4)).outcome in TOLD

            await eventually(sells_on)
