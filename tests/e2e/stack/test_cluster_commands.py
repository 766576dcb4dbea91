"""Commands on a ledger of six nodes: sales are changed, a lane that lost its keys is given them
back, the doctor looks at every node, and the whole of it is stopped and started again.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from redis import Redis
from rig.command_line import run_flashsale
from rig.until import until
from sqlalchemy import select

from flashsale import keys
from flashsale.keys import CLUSTER
from flashsale.stack.state import ChildState, StackState, read_state, stop_stack
from flashsale.storage.mysql import engine, transaction
from flashsale.storage.roles import Ledgers
from flashsale.storage.tables import voucher_order

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

USERS, VOUCHERS, UNITS = 20, 7, 10
WITHIN_S = 30
SETTINGS = {
    "FLASHSALE_STACK_PORT": "0",
    "FLASHSALE_STACK_REPLICAS": "1",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "16",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "32",
    "FLASHSALE_STACK_LEDGER_MEMORY_MB": "64",
    "FLASHSALE_STACK_START_TIMEOUT_S": "120",
}


class Told(NamedTuple):
    """What a buyer was answered."""

    outcome: str
    order: str


@dataclass
class Shop:
    """A stack on a cluster, its commands, and its buyers."""

    folder: Path

    def flashsale(self, *words: str, code: int = 0) -> str:
        done: subprocess.CompletedProcess[str] = run_flashsale(self.folder, *words, **SETTINGS)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    @property
    def state(self) -> StackState:
        found = read_state(self.folder / ".flashsale")
        assert found is not None
        return found

    def buy(self, user: int, voucher: int) -> Told:
        lines = (self.folder / ".flashsale" / "tokens.csv").read_text().splitlines()[1:]
        token = next(t for u, t in (line.split(",")[:2] for line in lines) if u == str(user))
        url = f"{self.state.base_url}/voucher-order/seckill/{voucher}"
        answer = httpx.post(url, headers={"authorization": token}, timeout=20)
        return Told(answer.headers.get("x-outcome", ""), str(answer.json().get("data") or ""))

    def held(self, user: int, voucher: int) -> str | None:
        """The order that the ledger has a receipt of."""
        with closing(Ledgers.at(self.state.ledger_url)) as ledgers:
            receipts = CLUSTER.of(voucher).seckill_receipt(voucher)
            return ledgers.of(voucher).hget(receipts, str(user))

    def has_row(self, order: str) -> bool:
        pool = engine(self.state.mysql_url)
        try:
            with transaction(pool) as connection:
                query = select(voucher_order.c.id).where(voucher_order.c.id == int(order))
                return connection.execute(query).first() is not None
        finally:
            pool.dispose()

    def shown(self, voucher: int) -> Any:
        return json.loads(self.flashsale("sale", "show", str(voucher), "--json"))

    def doctor(self) -> dict[tuple[str, str], Any]:
        """The findings on the ledger by subject and name."""
        done = run_flashsale(self.folder, "doctor", "--json", **SETTINGS)
        rows = [row for row in json.loads(done.stdout) if row["subject"].startswith("ledger")]
        found = {(row["subject"], row["name"]): row for row in rows}
        broken = any(row["grade"] == "fail" for row in rows)
        assert not broken or done.returncode == 7, done.stdout
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    goods = ("--vouchers", str(VOUCHERS), "--units", str(VOUCHERS * UNITS))
    try:
        shop.flashsale("serve", "--cluster", "--detach")
        shop.flashsale("seed", "--users", str(USERS), "--shops", "2", *goods)
        shop.flashsale("warm")
        yield shop
    finally:
        stop_stack(shop.folder / ".flashsale", 60)


def test_sales_of_all_lanes_are_changed_and_ended(shop: Shop) -> None:
    sales = json.loads(shop.flashsale("sale", "list", "--json"))["sales"]
    assert [(sale["voucher_id"], sale["left"]) for sale in sales] == [
        (voucher, UNITS) for voucher in range(1, VOUCHERS + 1)
    ]
    shop.flashsale("sale", "pause", "--all", "--reason", "a look at the goods")
    assert {shop.buy(1, voucher).outcome for voucher in range(1, VOUCHERS + 1)} == {"paused"}
    shop.flashsale("sale", "resume", "--all")
    shop.flashsale("sale", "restock", "3", "--add", "5")
    shop.flashsale("sale", "restock", "3", "--remove", "2")
    assert shop.buy(1, 3).outcome == "sold"
    sale = shop.shown(3)
    assert (sale["offered"], sale["held"], sale["books"]) == (UNITS + 3, 1, [])
    assert len(sale["journal"]) >= 4
    assert "the books agree" in shop.flashsale("sale", "close", "3")
    assert shop.buy(2, 3).outcome == "ended"
    shop.flashsale("sale", "open", "3")
    assert shop.buy(2, 3).outcome == "sold"


def test_a_lane_that_lost_its_sales_is_given_them_back(shop: Shop) -> None:
    lost, kept = 4, 5
    order = shop.buy(5, lost).order
    assert order
    until(lambda: shop.has_row(order), WITHIN_S)
    lane = CLUSTER.of(lost)
    with closing(Ledgers.at(shop.state.ledger_url)) as ledgers:
        client = ledgers.of(lost)
        there = [name for name in client.scan_iter(keys.SALES) if lane.has(name)]
        assert client.delete(*there, lane.stream_orders) > len(CLUSTER.lanes) / 2
    until(lambda: shop.buy(6, lost).outcome == "shed", WITHIN_S)
    assert shop.buy(6, kept).outcome == "sold"
    assert "nothing is sold" in shop.flashsale("status", code=3)
    assert "nothing was changed" in shop.flashsale("rebuild", code=3)
    assert "the sales go on" in shop.flashsale("rebuild", "--apply")
    assert until(lambda: _not_shed(shop.buy(5, lost)), WITHIN_S).outcome == "duplicate"
    assert shop.held(5, lost) == order
    assert shop.buy(6, lost).outcome == "sold"
    assert "as it ought to be" in shop.flashsale("rebuild")


def _not_shed(told: Told) -> Told | None:
    return None if told.outcome == "shed" else told


def test_the_doctor_asks_every_node_and_names_the_one_that_is_wrong(shop: Shop) -> None:
    nodes = [child for child in shop.state.children if child.kind == "redis-ledger"]
    rows = shop.doctor()
    assert {subject for subject, _ in rows} == {"ledger", *(_subject(node) for node in nodes)}
    assert not [row for row in rows.values() if row["grade"] == "fail"]
    assert rows["ledger", "lanes"]["found"] == "each has one of 3 masters, which have 3 replicas"
    assert rows["ledger", "books"]["grade"] == "ok"
    with Redis.from_url(nodes[4].url or "") as replica:
        replica.config_set("appendfsync", "everysec")
        try:
            wrong = [key for key, row in shop.doctor().items() if row["grade"] == "fail"]
        finally:
            replica.config_set("appendfsync", "always")
    assert wrong == [(_subject(nodes[4]), "appendfsync")]


def _subject(node: ChildState) -> str:
    return f"ledger 127.0.0.1:{node.port}"


def test_a_cluster_that_is_started_again_has_its_orders_and_sessions(shop: Shop) -> None:
    before = {
        voucher: until(lambda voucher=voucher: _not_shed(shop.buy(7, voucher)), WITHIN_S)
        for voucher in range(1, VOUCHERS + 1)  # a lane that was rebuilt sells once it is compared
    }
    assert {told.outcome for told in before.values()} == {"sold"}
    left = shop.shown(1)["left"]
    shop.flashsale("stop")
    shop.flashsale("serve", "--cluster", "--detach")
    for voucher in before:  # each lane sells once its books have been compared
        told = until(lambda voucher=voucher: _not_shed(shop.buy(7, voucher)), WITHIN_S)
        assert told.outcome == "duplicate"
    after = {voucher: shop.held(7, voucher) for voucher in before}
    assert after == {voucher: told.order for voucher, told in before.items()}
    assert shop.shown(1)["left"] == left
    assert shop.buy(8, 1).outcome == "sold"
    until(lambda: all(shop.has_row(told.order) for told in before.values()), WITHIN_S)
    shop.flashsale("status")
