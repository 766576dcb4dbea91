"""`flashsale capacity` as a user runs it: of real stacks and of a shop, and what is left behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rig.command_line import run_flashsale
from rig.shop_server import Asked, Reply, ShopServer

from flashsale.errors import ExitCode

SCENARIO = """
# How many a second?
schema = 1
name = "tiny"

[sale]
units = 30

[load]
model = "rate"
stages = ["1s:40"]
connections = 10
"""


def capacity(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    few = {f"FLASHSALE_STACK_{name}": "1" for name in ("REPLICAS", "WORKERS")}
    small = {**few, "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "32", "NO_COLOR": "1"}
    (folder / "tiny.toml").write_text(SCENARIO)
    return subprocess.run(
        [sys.executable, "-m", "flashsale", "capacity", *words],
        cwd=folder,
        env={**os.environ, **small},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rate_that_holds_is_told_and_written_down(tmp_path: Path) -> None:
    words = ("tiny.toml", "--repeats", "1", "--from", "20", "--most", "20", "--out", "found")
    done = capacity(tmp_path, *words, "--require", "buy.sold.count>0")
    assert "capacity: at least 20/s" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    found = json.loads((tmp_path / "found/capacity.json").read_text())
    *unbelieved, trial = found["trials"]  # a busy machine's generator may not be believed at once
    assert all(it["exit_code"] == ExitCode.INVALID_RUN for it in unbelieved)
    assert (trial["rate_per_s"], trial["holds"]) == (20, True)
    run = json.loads((tmp_path / trial["run"] / "summary.json").read_text())
    assert run["load"]["planned"] == 20
    assert run["verify"]["verdict"] == "pass"
    assert "| 20/s | holds |" in (tmp_path / "found/capacity.md").read_text()


SHOP = """
# How many customers a second does this shop take?
schema = 1
name = "till"

[sale]
units = 100000

[load]
model = "rate"
stages = ["2s:40"]
arrivals = "even"
connections = 100

[target.buy]
path = "/buy"
json = { customer = "{user}" }
order = "/order"
outcomes = [{ status = 200, outcome = "sold" }, { status = 503, outcome = "shed" }]
"""
CARRIES_PER_S, AT_ONCE = 50, 10
TAKES_S = 0.5
"""An answer, so that a generator on a busy machine is late by a small part of it alone."""


class Till:
    """Takes so many a second, after so many at once, and sends the others away."""

    def __init__(self) -> None:
        self.free, self.looked_s = float(AT_ONCE), time.monotonic()
        self.customers: list[str] = []

    def answer(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            return Reply(200, {})
        now_s = time.monotonic()
        self.free = min(AT_ONCE, self.free + (now_s - self.looked_s) * CARRIES_PER_S)
        self.looked_s = now_s
        self.customers.append(asked.json["customer"])
        if self.free < 1:
            return Reply(503, {}, {"retry-after": "1"}, delay_s=TAKES_S)
        self.free -= 1
        return Reply(200, {"order": f"no-{len(self.customers)}"}, delay_s=TAKES_S)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_shop_carries_is_in_the_interval(tmp_path: Path) -> None:
    """At 40, 80, 57 and 48 a second: the last holds, the one before does not."""
    till = Till()
    (tmp_path / "till.toml").write_text(SHOP)
    words = ("--from", "40", "--precision", "25", "--rest", "0.3", "--out", "found")
    with ShopServer(till.answer).open() as shop:
        demand = ("--require", "buy.shed.count==0", "--base-url", shop.base_url)
        done = capacity(tmp_path, "till.toml", *words, *demand)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found/capacity.json").read_text())
    assert found["holds_per_s"] <= CARRIES_PER_S < found["fails_per_s"], done.stdout
    assert found["fails_per_s"] <= 1.25 * found["holds_per_s"]
    assert "47.6/s holds, 56.6/s does not (buy.shed.count == 0: " in done.stdout
    assert "more than half of 3 trials decide" in done.stdout
    believed = [it for it in found["trials"] if it["exit_code"] != ExitCode.INVALID_RUN]
    tried = [trial["rate_per_s"] for trial in believed]
    assert all(2 <= tried.count(rate) <= 3 for rate in set(tried))
    assert len(set(till.customers)) == len(till.customers), "each trial has customers of its own"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("till.toml",), "give --base-url"),
        (("tiny.toml", "--tokens", "tokens.csv"), "give --base-url"),
        (("stampede",), "load.model = 'rate'"),
        (("tiny.toml", "--require", "nonsense"), "--require"),
        (("tiny.toml", "--from", "9000000"), "--from"),
        (("tiny.toml", "--out", "."), "is not empty"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    (tmp_path / "tiny.toml").write_text(SCENARIO)
    (tmp_path / "till.toml").write_text(SHOP)
    done = run_flashsale(tmp_path, "capacity", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / ".flashsale").exists()
