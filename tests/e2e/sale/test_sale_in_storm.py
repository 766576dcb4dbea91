"""A sale that is paused, restocked in both directions and closed under a storm, then judged."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashsale.stack.launch import stop_stack

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
units = 500
[load]
model = "rate"
stages = ["8s:80"]
connections = 32
"""


class Stack:
    """A small stack, and the command line at work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"

    def words(self, *words: str) -> list[str]:
        return [*FLASHSALE, *words, "--state-dir", str(self.state_dir)]

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            self.words(*words),
            cwd=self.folder,
            env=os.environ | SMALL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def sale(self) -> Any:
        return json.loads(self.run("sale", "show", "1", "--json"))


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Two replicas, a worker, and 500 units of one voucher on sale."""
    stack = Stack(tmp_path)
    (tmp_path / "changed.toml").write_text(SCENARIO)
    try:
        stack.run("serve", "--detach")
        stack.run("seed", "--users", "640", "--vouchers", "1", "--units", "500", "--shops", "1")
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
        until = time.monotonic() + 30
        while not stack.sale()["held"]:
            assert time.monotonic() < until
        stack.run("sale", "restock", "1", "--add", "200", "--reason", "more came")
        stack.run("sale", "pause", "1")
        held = stack.sale()["held"]
        assert stack.sale()["held"] == held, "on every replica at once"
        stack.run("sale", "restock", "1", "--remove", "300")
        stack.run("sale", "resume", "1")
        storm.wait(60)
    finally:
        storm.kill()
        storm.communicate()
    summary = json.loads((stack.folder / "run/summary.json").read_text())
    outcomes = summary["load"]["outcomes"]
    assert outcomes["paused"] > 0
    assert sum(outcomes.values()) == 640
    verdict = json.loads(stack.run("verify", "run", "--json"))
    assert verdict["verdict"] == "pass"
    sale = stack.sale()
    assert (sale["offered"], sale["mysql"]["initial"]) == (400, 400)
    assert sale["held"] == sale["mysql"]["live_orders"] == outcomes["sold"]
    assert "the books agree" in stack.run("sale", "close", "1")
    assert json.loads(stack.run("verify", "run", "--json"))["verdict"] == "pass"
