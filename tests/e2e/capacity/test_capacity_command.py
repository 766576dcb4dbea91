"""`flashsale capacity` as a user runs it: real stacks, a storm each, and what is left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    (trial,) = found["trials"]
    assert (trial["rate_per_s"], trial["holds"]) == (20, True)
    run = json.loads((tmp_path / "found/rate-20-1/summary.json").read_text())
    assert run["load"]["planned"] == 20
    assert run["verify"]["verdict"] == "pass"
    assert "| 20/s | holds |" in (tmp_path / "found/capacity.md").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("stampede",), "load.model = 'rate'"),
        (("tiny.toml", "--require", "nonsense"), "--require"),
        (("tiny.toml", "--from", "9000000"), "--from"),
        (("tiny.toml", "--out", "."), "is not empty"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = capacity(tmp_path, *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / ".flashsale").exists()
