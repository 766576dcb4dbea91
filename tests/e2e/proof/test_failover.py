"""The ledger's primary is killed in mid-storm on tight stock, and its replica takes over.

Acknowledged once a replica has it, no order is lost, even where the replica was cut off before the
kill; and the sale goes on. Without that, what the replica had not got is lost, and `verify` names
exactly those orders: what the dead primary's file holds, the replica did not, and buyers were told.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from rig.failing_over import SEEDS, WITHIN_S, FailingSale, Outcome, seeds_by_night, standing
from rig.until import until

from flashsale import keys
from flashsale.primaries import NoPrimary, Primary, Sentinels
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.stack.state import ChildState
from flashsale.storage.roles import sync_client
from flashsale.store_urls import read_redis_url

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROBE, UNITS = SEEDS + 1, 500  # a voucher a storm, and one for who looks on


class Sale(FailingSale):
    """A stack whose ledger has a replica and Sentinels."""

    def primary(self) -> Primary | None:
        try:
            return Sentinels(read_redis_url(self.state.ledger_url)).ask()
        except NoPrimary:
            return None

    def pair(self) -> tuple[ChildState, ChildState]:
        """The primary, and the replica that has all of it."""
        found = until(self.primary, WITHIN_S)
        nodes = [child for child in self.state.children if child.kind == "redis-ledger"]
        primary = next(node for node in nodes if node.port == found.port)
        (replica,) = (node for node in nodes if node is not primary)
        with sync_client(primary.url or "") as client:
            until(lambda: client.wait(1, 100) == 1, WITHIN_S)
        return primary, replica

    def sold(self, client: Redis, voucher: int) -> dict[int, int]:
        """Order → user, by the receipts of one server."""
        receipts: Any = client.hgetall(keys.seckill_receipt(voucher))
        return {int(order): int(user) for user, order in receipts.items()}

    def fail_over(self, seed: int, *, cut: bool) -> Outcome:
        """A storm in which the primary dies: with `cut` a while after its replica has got the last
        of it, which no worker writes either."""
        draw = random.Random(seed)
        primary, replica = self.pair()
        sale = {"vouchers": 1, "first": seed, "units": UNITS}
        with self.storm(seed, sale) as run, sync_client(replica.url or "") as second:
            until(lambda: len(self.sold(second, seed)) > 20, 60)
            time.sleep(draw.uniform(0.2, 1.0))
            with ExitStack() as healed:
                if cut:
                    healed.enter_context(standing(self.pids("worker")))
                    time.sleep(0.1)
                    second.replicaof("127.0.0.1", "1")
                    time.sleep(draw.uniform(0.3, 0.6))
                healed.enter_context(standing([self.state.pid]))  # who would start it again at once
                os.kill(primary.pid, signal.SIGKILL)
                killed_s = time.monotonic()
                held = self.sold(second, seed)
                until(lambda: (p := self.primary()) and p.port == replica.port, WITHIN_S)
                in_file = self._in_file(primary.name, seed) if cut else {}
            until(lambda: self.looks_on(PROBE), WITHIN_S)
            went_on_s = time.monotonic() - killed_s
        return self.judged(run, lambda told: (in_file.keys() - held) & told.keys(), went_on_s)

    def _in_file(self, name: str, voucher: int) -> dict[int, int]:
        """What the dead server had written to its disk: all that it had acknowledged."""
        copy = self.folder / "dead"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder / ".flashsale" / name, copy)
        with RedisServer(RedisRole.LEDGER, copy) as server, sync_client(server.url) as client:
            return self.sold(client, voucher)


@contextmanager
def _serving(folder: Path, durability: str) -> Iterator[Sale]:
    sale = Sale(folder)
    words = ("--ha", "--durability", durability)
    with sale.serving(*words, vouchers=PROBE, units=UNITS):
        yield sale


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sale]:
    with _serving(tmp_path_factory.mktemp("replicated"), "replicated") as sale:
        yield sale


@pytest.fixture(scope="module")
def asynchronous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sale]:
    with _serving(tmp_path_factory.mktemp("asynchronous"), "always") as sale:
        yield sale


def test_status_and_doctor_know_its_parts(replicated: Sale) -> None:
    status = replicated.flashsale("status")
    assert status.returncode == 0, status.stdout
    for name in ("ledger", "ledger-2", "sentinel-1", "sentinel-2", "sentinel-3"):
        assert name in status.stdout
    doctor = replicated.flashsale("doctor", "--durability", "replicated", "--json")
    rows = {row["name"]: row for row in orjson.loads(doctor.stdout) if row["subject"] == "ledger"}
    assert {row["grade"] for row in rows.values()} == {"ok"}, doctor.stdout
    assert rows["Sentinels"]["found"] == "3 of 3 answer"
    assert rows["failover"]["found"] == "loses nothing acknowledged"


@pytest.mark.parametrize("seed", seeds_by_night(2))
def test_what_a_replica_has_confirmed_is_not_lost(replicated: Sale, seed: int) -> None:
    came = replicated.fail_over(seed, cut=seed % 2 == 0)
    came.note("replicated, cut off" if seed % 2 == 0 else "replicated", seed)
    assert came.lost == set()
    assert came.named() == set()
    assert set(came.verdicts().values()).isdisjoint({"fail"})
    assert came.exit_code == 0, came.document
    assert len(came.told) > 20


@pytest.mark.parametrize("seed", seeds_by_night(1))
def test_what_it_has_not_is_lost_and_the_judge_names_exactly_that(
    asynchronous: Sale, seed: int
) -> None:
    came = asynchronous.fail_over(seed, cut=True)
    came.note("always, cut off", seed)
    assert came.lost, "the replica was cut off"
    assert came.named() == came.lost
    assert came.exit_code == 3
