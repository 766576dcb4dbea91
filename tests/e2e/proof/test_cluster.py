"""A sale on a ledger of six nodes, by `serve --cluster`: it holds while a lane moves under a storm,
and while a master is killed under one on tight stock.

Acknowledged once a replica has it, no order is lost, even where the replica was cut off before the
kill; and the sale goes on. Without that, what the replica had not got is lost, and `verify` names
exactly those orders that buyers were told.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.exceptions import MovedError
from rig.clustered import Clustered
from rig.command_line import run_flashsale
from rig.run_folders import told_orders
from rig.until import until

from flashsale import Stores, judge_run
from flashsale.keys import CLUSTER, Lane
from flashsale.stack.state import StackState, read_state, stop_stack
from flashsale.storage.roles import Ledgers
from flashsale.verify import finding

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEEDS, MOVED, LANES = 20, 21, len(CLUSTER.lanes)
"""A storm a seed, and one while a lane moves; each has a voucher in every lane, and so have those
who look on."""
UNITS = 80  # of a voucher: gone before the storm is over
RATE, LASTS_S = 100, 9
STORMED, LOOKERS = RATE * LASTS_S, 500
VOUCHERS = (SEEDS + 2) * LANES
WITHIN_S = 30
SETTINGS = {
    "FLASHSALE_STACK_PORT": "0",
    "FLASHSALE_STACK_REPLICAS": "2",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "16",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "32",
    "FLASHSALE_STACK_LEDGER_MEMORY_MB": "64",
    "FLASHSALE_REPLICA_NICENESS": "0",
    "FLASHSALE_STACK_START_TIMEOUT_S": "120",
}
SCENARIO = """# Do tight sales on a cluster sell each unit once while it changes under them?
schema = 1
name = "tight"
[sale]
vouchers = {lanes}
first_voucher = {first}
units = {units}
[load]
model = "rate"
stages = ["{lasts}s:{rate}"]
connections = 64
seed = {seed}
[thresholds]
"error.share" = "<= 100%"
"""


@dataclass
class Outcome:
    """What one failover came to."""

    went_on_s: float  # from the kill to the lane's next order
    told: dict[int, int]  # order → user, as the storm was told
    lost: set[int]  # of those, what no master has a receipt of
    exit_code: int
    document: dict[str, Any]

    def named(self) -> set[int]:
        """The orders that the judge says were promised and are gone."""
        (check,) = (c for c in self.document["checks"] if c["name"] == "accepted_persisted")
        weighty = (f for f in check["findings"] if f["verdict"] == "fail")
        return {int(offence["order"]) for found in weighty for offence in found["offences"]}

    def verdicts(self) -> dict[str, str]:
        return {check["name"]: check["verdict"] for check in self.document["checks"]}


@dataclass
class Sale:
    """A stack on a cluster, and a storm's way to it."""

    folder: Path
    durability: str
    nodes: Clustered
    lookers: Iterator[int]

    @property
    def state(self) -> StackState:
        found = read_state(self.folder / ".flashsale")
        assert found is not None
        return found

    def flashsale(self, *words: str) -> "subprocess.CompletedProcess[str]":
        done = run_flashsale(self.folder, *words, **SETTINGS)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    @contextmanager
    def storm(self, number: int, lasts_s: int = LASTS_S) -> Iterator[Path]:
        """A storm on six sales, one a lane; the block begins in the midst of it."""
        first = (number - 1) * LANES + 1
        told = {"rate": RATE, "lasts": lasts_s, "seed": number, "lanes": LANES}
        scenario = SCENARIO.format(first=first, units=LANES * UNITS, **told)
        (self.folder / "tight.toml").write_text(scenario)
        run = self.folder / f"run-{number}"
        words = ["storm", "tight.toml", "--quiet", "--no-calibrate", "--out", str(run)]
        with (self.folder / "storm.log").open("wb") as output:
            storm = subprocess.Popen(
                [sys.executable, "-m", "flashsale", *words],
                cwd=self.folder,
                env=os.environ | SETTINGS,
                stdout=output,
                stderr=output,
            )
            try:
                until(lambda: _results(run) > RATE, 60)
                yield run
                code = storm.wait(WITHIN_S + 90)
                told_by_it = (self.folder / "storm.log").read_text()
                assert code in (0, 6), told_by_it  # a busy machine is no fault of the sale
            finally:
                storm.kill()
                storm.wait(10)

    def judged(self, run: Path, went_on_s: float = 0.0) -> Outcome:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(finding, "EXAMPLES_MAX", STORMED)  # it would name twenty, and count
            judged = judge_run(run, Stores.of(self.state))
        told = told_orders(run)
        document = judged.judgement.to_json()
        return Outcome(went_on_s, told, set(told) - self._held(), judged.exit_code, document)

    def fail_over(self, seed: int, *, cut: bool) -> Outcome:
        """A storm in which a master dies: with `cut` a while after its replica has got the last of
        it; without waiting for replicas no worker writes that either."""
        draw = random.Random(seed)
        until(self.nodes.is_copied, WITHIN_S)
        lane = draw.choice(CLUSTER.lanes)
        master = self.nodes.node_of(lane)
        replica = self.nodes.replica_of(master)
        with self.storm(seed) as run:
            time.sleep(draw.uniform(0.2, 1.0))
            with ExitStack() as healed:
                if cut and self.durability != "replicated":
                    healed.enter_context(self._standing("worker"))
                if cut:
                    healed.enter_context(self.nodes.cut_off(master))
                    time.sleep(draw.uniform(0.3, 0.6))
                healed.enter_context(self._supervisor_standing())  # it would start it again at once
                os.kill(self._pid(f"ledger-{master + 1}"), signal.SIGKILL)
                killed_s = time.monotonic()
                until(lambda: self.nodes.node_of(lane) == replica, WITHIN_S)
            until(lambda: self._looks_on(lane), WITHIN_S)
            went_on_s = time.monotonic() - killed_s
        return self.judged(run, went_on_s)

    def _looks_on(self, lane: Lane) -> bool:
        """Somebody who is not of the storm buys of a sale in the lane that has units enough."""
        token = self._tokens[next(self.lookers)]
        voucher = VOUCHERS - (VOUCHERS - lane.number) % LANES
        url = f"{self.state.base_url}/voucher-order/seckill/{voucher}"
        answer = httpx.post(url, headers={"authorization": token}, timeout=20)
        return answer.headers.get("x-outcome") == "sold"

    @property
    def _tokens(self) -> dict[int, str]:
        lines = (self.folder / ".flashsale" / "tokens.csv").read_text().splitlines()[1:]
        return {int(user): token for user, token in (line.split(",")[:2] for line in lines)}

    def _held(self) -> set[int]:
        """The orders that the ledger has receipts of."""
        found: set[int] = set()
        with closing(Ledgers.at(self.state.ledger_url)) as ledgers:
            for lane, client in zip(CLUSTER.lanes, ledgers.clients, strict=True):
                with suppress(MovedError):  # it was elsewhere when this process looked last
                    client.get(lane.probe)
                for voucher in filter(lane.sells, range(1, VOUCHERS + 1)):
                    receipts: Any = client.hvals(lane.seckill_receipt(voucher))
                    found.update(map(int, receipts))
        return found

    def _pid(self, name: str) -> int:
        return next(child.pid for child in self.state.children if child.name == name)

    @contextmanager
    def _supervisor_standing(self) -> Iterator[None]:
        with _stopped([self.state.pid]):
            yield

    @contextmanager
    def _standing(self, kind: str) -> Iterator[None]:
        with _stopped([child.pid for child in self.state.children if child.kind == kind]):
            time.sleep(0.1)
            yield


@contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _results(run: Path) -> int:
    try:
        return (run / "attempts.jsonl").read_bytes().count(b'"kind":"result"')
    except OSError:
        return 0


@contextmanager
def _serving(folder: Path, durability: str) -> Iterator[Sale]:
    serve = ("serve", "--cluster", "--durability", durability, "--detach")
    users = ("--users", str(STORMED + LOOKERS), "--shops", "20")
    goods = ("--vouchers", str(VOUCHERS), "--units", str(VOUCHERS * UNITS))
    try:
        for words in (serve, ("seed", *users, *goods), ("warm",)):
            done = run_flashsale(folder, *words, **SETTINGS)
            assert done.returncode == 0, done.stdout + done.stderr
        state = read_state(folder / ".flashsale")
        assert state is not None
        urls = [child.url for child in state.children if child.kind == "redis-ledger"]
        nodes = Clustered([url for url in urls if url], state.ledger_url)
        yield Sale(folder, durability, nodes, iter(range(STORMED + 1, STORMED + LOOKERS + 1)))
        nodes.close()
    finally:
        stop_stack(folder / ".flashsale", 60)


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sale]:
    with _serving(tmp_path_factory.mktemp("replicated"), "replicated") as sale:
        yield sale


@pytest.fixture(scope="module")
def asynchronous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sale]:
    with _serving(tmp_path_factory.mktemp("asynchronous"), "always") as sale:
        yield sale


def _note(what: str, seed: int, came: Outcome) -> None:
    """A line of the table in docs/decisions/sharding.md, by `--log-cli-level=INFO`."""
    log.info(
        "%s, seed %d: %d acknowledged, %d lost, %d named, sold again after %.1f s",
        *(what, seed, len(came.told), len(came.lost), len(came.named()), came.went_on_s),
    )


def test_a_slot_moves_under_a_storm_and_every_promise_holds(replicated: Sale) -> None:
    lane, nodes = CLUSTER.of(3), replicated.nodes
    with replicated.storm(MOVED, lasts_s=4) as run:
        source = nodes.node_of(lane)
        nodes.move(lane, next(node for node in nodes.masters() if node != source))
    assert nodes.node_of(lane) != source
    came = replicated.judged(run)
    assert set(came.verdicts().values()) == {"pass"}, came.document
    assert came.lost == set()
    until(lambda: replicated.flashsale("status").returncode == 0, WITHIN_S)


@pytest.mark.parametrize(
    "seed",
    [
        seed if seed == 2 else pytest.param(seed, marks=pytest.mark.nightly)
        for seed in range(1, SEEDS + 1)
    ],
)
def test_what_a_replica_has_confirmed_survives_its_master(replicated: Sale, seed: int) -> None:
    cut = seed % 2 == 0
    came = replicated.fail_over(seed, cut=cut)
    _note("replicated, cut off" if cut else "replicated", seed, came)
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
    _note("always, cut off", seed, came)
    assert came.lost, "the replica was cut off"
    assert came.named() == came.lost
    assert came.exit_code == 3
    until(lambda: asynchronous.flashsale("status").returncode == 0, within_s=60)


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", ["stampede", "sellout", "mixed"])
def test_what_holds_on_one_server_holds_on_six_nodes(tmp_path: Path, scenario: str) -> None:
    more = {"FLASHSALE_STACK_CLUSTER": "true", "FLASHSALE_STACK_WORKERS": "2"}
    done = run_flashsale(tmp_path, "rehearse", scenario, **more)
    assert done.returncode == 0, done.stdout + done.stderr
