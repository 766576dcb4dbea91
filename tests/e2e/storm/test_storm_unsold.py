"""A storm that sells nothing is no pass, and the commands that it names bring a sale about."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from redis import Redis
from rig.command_line import run_flashsale

from flashsale.stack.state import start_detached, stop_stack

SCENARIO = """# Does it hold?
schema = 1
name = "tiny"
[sale]
vouchers = 2
units = 10
[load]
model = "stampede"
users = 40
connections = 20
"""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a scenario, and a stack of its own that runs."""
    (tmp_path / "tiny.toml").write_text(SCENARIO)
    state_dir = tmp_path / ".flashsale"
    try:
        start_detached(state_dir, ["--port", "0", "--replicas", "1"])
        yield tmp_path
    finally:
        stop_stack(state_dir)


def flashsale(folder: Path, *words: str, expected: int = 0) -> "subprocess.CompletedProcess[str]":
    done = run_flashsale(folder, *words)
    assert done.returncode == expected, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def storm(folder: Path, expected: int) -> str:
    """The hint of a storm that is to end so; "" where it gives none."""
    done = flashsale(folder, "storm", "tiny.toml", "--no-calibrate", "-q", expected=expected)
    assert bool(re.search(r"verdict +PASS", done.stdout)) == (expected == 0)
    summary = orjson.loads((folder / "runs/latest/summary.json").read_bytes())
    assert summary["exit_code"] == expected
    assert (summary["verdict"] == "unknown") == (expected == 8)
    return " ".join(summary["hints"])


@pytest.mark.slow
def test_a_sale_that_sells_nothing_is_no_pass(desk: Path) -> None:
    flashsale(desk, "seed", "--users", "40", "--vouchers", "2", "--units", "10")

    unloaded = storm(desk, 8)
    assert "the sale is not loaded" in unloaded
    obey(desk, unloaded)
    assert storm(desk, 0) == ""

    sold_out = storm(desk, 8)
    assert "it was sold out before" in sold_out
    flashsale(desk, "verify", expected=8)
    obey(desk, sold_out)
    assert storm(desk, 0) == ""
    flashsale(desk, "verify")


@pytest.mark.slow
def test_a_ledger_that_lost_a_sale_names_what_helps(desk: Path) -> None:
    flashsale(desk, "seed", "--users", "40", "--vouchers", "2", "--units", "10")
    flashsale(desk, "warm")
    storm(desk, 0)
    flashsale(desk, "verify")
    forget_the_sale(desk)
    refused = flashsale(desk, "warm", expected=3)
    assert "no sale in the ledger" in refused.stderr
    obey(desk, refused.stderr)
    obey(desk, "`flashsale warm`")  # it holds, as it did not before


def forget_the_sale(folder: Path) -> None:
    state = orjson.loads((folder / ".flashsale/stack.json").read_bytes())
    with Redis.from_url(state["ledger_url"]) as ledger:
        ledger.delete("seckill:stock:1", "seckill:sale:1")


def obey(folder: Path, hint: str) -> None:
    """Run every command that the hint names, in its order."""
    named = re.findall(r"`flashsale ([^`]+)`", hint)
    assert named
    for line in named:  # what a rebuild would do is told with 3
        flashsale(folder, *shlex.split(line), expected=3 if line == "rebuild" else 0)
