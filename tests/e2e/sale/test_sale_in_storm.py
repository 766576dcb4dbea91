"""A sale that is paused, restocked in both directions and closed under a storm, then judged."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flashsale.seckill.control import SaleControl, read_units
from flashsale.stack.state import read_state, stop_stack
from flashsale.storage.mysql import engine
from flashsale.storage.roles import sync_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FLASHSALE = (sys.executable, "-m", "flashsale")
SMALL = {
    "FLASHSALE_STACK_PORT": "0",
    "FLASHSALE_STACK_REPLICAS": "2",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "16",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "32",
}
SCENARIO = """# Does a sale that is changed while it runs keep its promises?
schema = 1
name = "changed"
[sale]
units = 700
[load]
model = "rate"
stages = ["10s:64"]
connections = 32
"""


class Stack:
    """A small stack, and the command line at work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"

    def words(self, *words: str) -> list[str]:
        return [*FLASHSALE, *words, "--state-dir", str(self.state_dir)]

    def run(self, *words: str, codes: Sequence[int] = (0,)) -> str:
        done = subprocess.run(
            self.words(*words),
            cwd=self.folder,
            env=os.environ | SMALL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode in codes, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def sale(self) -> Any:
        return json.loads(self.run("sale", "show", "1", "--json"))

    def verdict(self) -> str:
        """The sale's; a busy machine may have made the run itself invalid (6)."""
        judged = json.loads(self.run("verify", "run", "--json", codes=(0, 6)))
        return str(judged["verdict"])

    @contextmanager
    def control(self) -> Iterator[tuple[SaleControl, Redis]]:
        """What the commands work with, without the time that a command takes to start."""
        state = read_state(self.state_dir)
        assert state is not None
        pool = engine(state.mysql_url)
        with sync_client(state.ledger_url) as ledger:
            yield SaleControl(pool, ledger, "ann"), ledger
        pool.dispose()


def held(ledger: Redis) -> int:
    return read_units(ledger, [1])[0].held


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Two replicas, a worker, and 700 units of one voucher on sale."""
    stack = Stack(tmp_path)
    (tmp_path / "changed.toml").write_text(SCENARIO)
    try:
        stack.run("serve", "--detach")
        stack.run("seed", "--users", "640", "--vouchers", "1", "--units", "700", "--shops", "1")
        stack.run("warm")
        yield stack
    finally:
        stop_stack(stack.state_dir)


def test_promises_are_kept(stack: Stack) -> None:
    storm = subprocess.Popen(
        stack.words("storm", "changed.toml", "--quiet", "--no-calibrate", "--out", "run"),
        cwd=stack.folder,
        env=os.environ | SMALL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with stack.control() as (control, ledger):
            until = time.monotonic() + 60
            while not held(ledger):
                assert time.monotonic() < until
                time.sleep(0.05)
            control.restock(1, 200, "more came")
            time.sleep(1)
            control.pause(1)
            then = held(ledger)
            time.sleep(2)
            assert held(ledger) == then, "on every replica at once"
            control.restock(1, -100)
            control.resume(1)
        storm.wait(90)
    finally:
        storm.kill()
        storm.communicate()
    summary = json.loads((stack.folder / "run/summary.json").read_text())
    outcomes = summary["load"]["outcomes"]
    assert outcomes["paused"] > 0
    assert sum(outcomes.values()) == 640
    assert stack.verdict() == "pass"
    sale = stack.sale()
    assert (sale["offered"], sale["mysql"]["initial"]) == (800, 800)
    assert sale["held"] == sale["mysql"]["live_orders"] == outcomes["sold"]
    assert "the books agree" in stack.run("sale", "close", "1")
    assert stack.verdict() == "pass"
