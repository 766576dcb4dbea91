"""A sale on tight stock whose ledger fails over in mid-storm: the stack, the storm, who looks on,
and what the judge says of it.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashsale import Stores, judge_run
from flashsale.stack.state import StackState, read_state, stop_stack
from flashsale.verify import finding
from rig.command_line import run_flashsale
from rig.run_folders import told_orders

log = logging.getLogger(__name__)

SEEDS = 20
RATE, LASTS_S = 100, 9
STORMED, LOOKERS = RATE * LASTS_S, 500
WITHIN_S = 30
"""Ten seconds are promised, on a machine that has cores for it; here others may have them."""
SETTINGS = {
    "FLASHSALE_STACK_PORT": "0",
    "FLASHSALE_STACK_REPLICAS": "2",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "16",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "32",
    "FLASHSALE_STACK_LEDGER_MEMORY_MB": "64",
    "FLASHSALE_REPLICA_NICENESS": "0",
    "FLASHSALE_STACK_START_TIMEOUT_S": "120",
}
_SCENARIO = """# Is an order that was acknowledged lost when the ledger fails over?
schema = 1
name = "failover"
[sale]
vouchers = {vouchers}
first_voucher = {first}
units = {units}
[load]
model = "rate"
stages = ["{lasts_s}s:{rate}"]
connections = 64
seed = {seed}
[thresholds]
"error.share" = "<= 100%"
"""


def seeds_by_night(in_each_proof: int) -> list[Any]:
    """The seeds: one in each proof, the others by night."""
    return [
        seed if seed == in_each_proof else pytest.param(seed, marks=pytest.mark.nightly)
        for seed in range(1, SEEDS + 1)
    ]


@dataclass
class Outcome:
    """What one failover came to."""

    went_on_s: float  # from the kill to the next order
    told: dict[int, int]  # order → user, as the storm was told
    lost: set[int]  # of those, what the ledger has no more
    exit_code: int
    document: dict[str, Any]

    def named(self) -> set[int]:
        """The orders that the judge says were promised and are gone."""
        (check,) = (c for c in self.document["checks"] if c["name"] == "accepted_persisted")
        weighty = (f for f in check["findings"] if f["verdict"] == "fail")
        return {int(offence["order"]) for found in weighty for offence in found["offences"]}

    def verdicts(self) -> dict[str, str]:
        return {check["name"]: check["verdict"] for check in self.document["checks"]}

    def note(self, what: str, seed: int) -> None:
        """A line of the table in docs/decisions, by `--log-cli-level=INFO`."""
        log.info(
            "%s, seed %d: %d acknowledged, %d lost, %d named, sold again after %.1f s",
            *(what, seed, len(self.told), len(self.lost), len(self.named()), self.went_on_s),
        )


@dataclass
class FailingSale:
    """A stack whose ledger can fail over, and a storm's way to it."""

    folder: Path
    lookers: Iterator[int] = field(
        default_factory=lambda: iter(range(STORMED + 1, STORMED + LOOKERS + 1))
    )

    @contextmanager
    def serving(self, *serve: str, vouchers: int, units: int) -> Iterator[None]:
        """Serve it so, with `units` of each voucher, seeded and warmed."""
        users = ("--users", str(STORMED + LOOKERS), "--shops", "20")
        goods = ("--vouchers", str(vouchers), "--units", str(vouchers * units))
        try:
            for words in (("serve", *serve, "--detach"), ("seed", *users, *goods), ("warm",)):
                done = self.flashsale(*words)
                assert done.returncode == 0, done.stdout + done.stderr
            yield
        finally:
            stop_stack(self.folder / ".flashsale", 60)

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
    def storm(self, seed: int, sale: Mapping[str, int], lasts_s: int = LASTS_S) -> Iterator[Path]:
        """A storm on the `first` of so many `vouchers` with `units`; under way in the block, and
        after it at its end."""
        scenario = _SCENARIO.format(**sale, rate=RATE, lasts_s=lasts_s, seed=seed)
        (self.folder / "failover.toml").write_text(scenario)
        run = self.folder / f"run-{seed}"
        words = ["storm", "failover.toml", "--quiet", "--no-calibrate", "--out", str(run)]
        with (self.folder / "storm.log").open("wb") as output:
            storm = subprocess.Popen(
                [sys.executable, "-m", "flashsale", *words],
                cwd=self.folder,
                env=os.environ | SETTINGS,
                stdout=output,
                stderr=output,
            )
            try:
                yield run
                storm.wait(WITHIN_S + 90)
            finally:
                storm.kill()
                storm.wait(10)
        assert (run / "summary.json").exists(), (self.folder / "storm.log").read_text()

    def judged(
        self, run: Path, lost: Callable[[dict[int, int]], set[int]], went_on_s: float = 0.0
    ) -> Outcome:
        """What the judge says of a run; `lost` are those of the orders that were told of which the
        ledger has no more."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(finding, "EXAMPLES_MAX", STORMED)  # it would name twenty, and count
            judged = judge_run(run, Stores.of(self.state))
        told = told_orders(run)
        document = judged.judgement.to_json()
        return Outcome(went_on_s, told, lost(told), judged.exit_code, document)

    def looks_on(self, voucher: int) -> bool:
        """Whether somebody who is not of the storm can buy of a sale that has units enough."""
        token = self._tokens[next(self.lookers)]
        url = f"{self.state.base_url}/voucher-order/seckill/{voucher}"
        answer = httpx.post(url, headers={"authorization": token}, timeout=20)
        return answer.headers.get("x-outcome") == "sold"

    def pids(self, kind: str) -> list[int]:
        return [child.pid for child in self.state.children if child.kind == kind]

    @property
    def _tokens(self) -> dict[int, str]:
        lines = (self.folder / ".flashsale" / "tokens.csv").read_text().splitlines()[1:]
        return {int(user): token for user, token in (line.split(",")[:2] for line in lines)}


@contextmanager
def standing(pids: list[int]) -> Iterator[None]:
    """These processes stand still for the time of the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
