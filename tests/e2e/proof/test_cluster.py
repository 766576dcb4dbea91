"""A sale on a ledger of six nodes, by `serve --cluster`: it holds while a lane moves under a storm,
and while a master is killed under one on tight stock.

Acknowledged once a replica has it, no order is lost, even where the replica was cut off before the
kill; and the sale goes on. Without that, what the replica had not got is lost, and `verify` names
exactly those orders that buyers were told.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import MovedError
from rig.clustered import Clustered
from rig.command_line import run_flashsale
from rig.failing_over import RATE, SEEDS, WITHIN_S, FailingSale, Outcome, seeds_by_night, standing
from rig.until import until

from flashsale.keys import CLUSTER, Lane
from flashsale.storage.roles import Ledgers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MOVED, LANES = SEEDS + 1, len(CLUSTER.lanes)
"""A storm a seed, and one while a lane moves; each has a voucher in every lane, and so have those
who look on."""
UNITS = 80  # of a voucher: gone before the storm is over
VOUCHERS = (SEEDS + 2) * LANES


@dataclass
class Sale(FailingSale):
    """A stack on a cluster, and a storm's way to it."""

    durability: str = ""
    nodes: Clustered = field(init=False)

    def on_lanes(self, number: int) -> dict[str, int]:
        """Six sales, one a lane, of a storm's own."""
        first = (number - 1) * LANES + 1
        return {"vouchers": LANES, "first": first, "units": LANES * UNITS}

    @contextmanager
    def in_midst(self, number: int, **more: int) -> Iterator[Path]:
        """A storm on six sales; the block begins in the midst of it."""
        with self.storm(number, self.on_lanes(number), **more) as run:
            until(lambda: _results(run) > RATE, 60)
            yield run

    def fail_over(self, seed: int, *, cut: bool) -> Outcome:
        """A storm in which a master dies: with `cut` a while after its replica has got the last of
        it; without waiting for replicas no worker writes that either."""
        draw = random.Random(seed)
        until(self.nodes.is_copied, WITHIN_S)
        lane = draw.choice(CLUSTER.lanes)
        master = self.nodes.node_of(lane)
        replica = self.nodes.replica_of(master)
        with self.in_midst(seed) as run:
            time.sleep(draw.uniform(0.2, 1.0))
            with ExitStack() as healed:
                if cut and self.durability != "replicated":
                    healed.enter_context(standing(self.pids("worker")))
                    time.sleep(0.1)
                if cut:
                    healed.enter_context(self.nodes.cut_off(master))
                    time.sleep(draw.uniform(0.3, 0.6))
                healed.enter_context(standing([self.state.pid]))  # who would start it again at once
                os.kill(self._pid(f"ledger-{master + 1}"), signal.SIGKILL)
                killed_s = time.monotonic()
                until(lambda: self.nodes.node_of(lane) == replica, WITHIN_S)
            until(lambda: self.looks_on(_last_of(lane)), WITHIN_S)
            went_on_s = time.monotonic() - killed_s
        return self.judged(run, self.lost, went_on_s)

    def lost(self, told: dict[int, int]) -> set[int]:
        """Those orders that no master has a receipt of."""
        held: set[int] = set()
        with closing(Ledgers.at(self.state.ledger_url)) as ledgers:
            for lane, client in zip(CLUSTER.lanes, ledgers.clients, strict=True):
                with suppress(MovedError):  # it was elsewhere when this process looked last
                    client.get(lane.probe)
                for voucher in filter(lane.sells, range(1, VOUCHERS + 1)):
                    receipts: Any = client.hvals(lane.seckill_receipt(voucher))
                    held.update(map(int, receipts))
        return set(told) - held

    def _pid(self, name: str) -> int:
        return next(child.pid for child in self.state.children if child.name == name)


def _last_of(lane: Lane) -> int:
    return VOUCHERS - (VOUCHERS - lane.number) % LANES


def _results(run: Path) -> int:
    try:
        return (run / "attempts.jsonl").read_bytes().count(b'"kind":"result"')
    except OSError:
        return 0


@contextmanager
def _serving(folder: Path, durability: str) -> Iterator[Sale]:
    sale = Sale(folder, durability=durability)
    words = ("--cluster", "--durability", durability)
    with sale.serving(*words, vouchers=VOUCHERS, units=UNITS):
        urls = [child.url for child in sale.state.children if child.kind == "redis-ledger"]
        sale.nodes = Clustered([url for url in urls if url], sale.state.ledger_url)
        with closing(sale.nodes):
            yield sale


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sale]:
    with _serving(tmp_path_factory.mktemp("replicated"), "replicated") as sale:
        yield sale


@pytest.fixture(scope="module")
def asynchronous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sale]:
    with _serving(tmp_path_factory.mktemp("asynchronous"), "always") as sale:
        yield sale


def test_a_slot_moves_under_a_storm_and_every_promise_holds(replicated: Sale) -> None:
    lane, nodes = CLUSTER.of(3), replicated.nodes
    with replicated.in_midst(MOVED, lasts_s=4) as run:
        source = nodes.node_of(lane)
        nodes.move(lane, next(node for node in nodes.masters() if node != source))
    assert nodes.node_of(lane) != source
    came = replicated.judged(run, replicated.lost)
    assert set(came.verdicts().values()) == {"pass"}, came.document
    assert came.lost == set()
    until(lambda: replicated.flashsale("status").returncode == 0, WITHIN_S)


@pytest.mark.parametrize("seed", seeds_by_night(2))
def test_what_a_replica_has_confirmed_survives_its_master(replicated: Sale, seed: int) -> None:
    cut = seed % 2 == 0
    came = replicated.fail_over(seed, cut=cut)
    came.note("replicated, cut off" if cut else "replicated", seed)
    assert came.lost == set()
    assert set(came.verdicts().values()) == {"pass"}, came.document
    assert came.exit_code == 0, came.document
    assert len(came.told) > 100
    until(lambda: replicated.flashsale("status").returncode == 0, within_s=60)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_what_it_has_not_is_lost_and_the_judge_names_exactly_that(
    asynchronous: Sale, seed: int
) -> None:
    came = asynchronous.fail_over(seed, cut=True)
    came.note("always, cut off", seed)
    assert came.lost, "the replica was cut off"
    assert came.named() == came.lost
    assert came.exit_code == 3
    until(lambda: asynchronous.flashsale("status").returncode == 0, within_s=60)


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", ["stampede", "sellout", "mixed"])
def test_what_holds_on_one_server_holds_on_six_nodes(tmp_path: Path, scenario: str) -> None:
    done = run_flashsale(tmp_path, "rehearse", scenario, "--cluster", FLASHSALE_STACK_WORKERS="2")
    assert done.returncode == 0, done.stdout + done.stderr
