"""Faults of a ledger on six nodes, as a user has them: what a failover loses that nobody confirmed
is named, and what replicas have confirmed outlives it.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rig.command_line import run_flashsale
from rig.documents import blocks

SMALL = {
    "FLASHSALE_STACK_REPLICAS": "2",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "16",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "32",
    "FLASHSALE_STACK_LEDGER_MEMORY_MB": "64",
}
SHORT = """# Does it hold?
schema = 1
name = "short"
[sale]
vouchers = 3
units = 300
[load]
model = "rate"
stages = ["4s:60"]
connections = 40
[timeouts]
request_ms = 5000
[thresholds]
"error.share" = "<= 100%"
"""


def flashsale(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    done = run_flashsale(folder, *words, **SMALL)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_failover_loses_is_named_by_the_judge_and_by_the_rebuild(tmp_path: Path) -> None:
    (shown,) = (block for block in blocks("toml") if "cut_replica" in block.text)
    (tmp_path / "shown.toml").write_text(shown.text)
    words = ("--cluster", "--no-calibrate", "--quiet", "--out", "run")
    done = flashsale(tmp_path, "rehearse", "shown.toml", *words)
    told = done.stdout + done.stderr
    cut, stopped, failed_over = read(tmp_path / "run/faults.json")["faults"]
    assert all(it["healed_ms"] for it in (cut, stopped, failed_over)), told
    assert cut["found"] == "ledger-5 heard no more of ledger-2", told
    assert failed_over["found"].startswith("ledger-5 took over from ledger-2; "), told
    checks = {it["name"]: it for it in read(tmp_path / "run/verify.json")["checks"]}
    breaches = [it for it in checks["accepted_persisted"]["findings"] if it["verdict"] == "fail"]
    named = {offence["order"] for breach in breaches for offence in breach["offences"]}
    assert named, told
    assert named <= set(failed_over["gone"]), told
    assert sum(breach["total"] for breach in breaches) == len(failed_over["gone"]), told
    assert done.returncode == 3, told


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_replicas_have_confirmed_outlives_a_failover_and_lost_replies(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(SHORT)
    drawn = ("--seeds", "1", "--from", "2", "--fault", "fail_over", "--fault", "cut_reply")
    words = ("--cluster", *drawn, "--at-once", "2", "--recover", "30", "--out", "run")
    done = flashsale(tmp_path, "chaos", "short.toml", *words)
    told = done.stdout + done.stderr
    (trial,) = read(tmp_path / "run/chaos.json")["trials"]
    assert set(trial["faults"]) == {"fail_over ledger", "cut_reply replica->ledger"}, told
    assert (trial["fate"], trial["broken"], trial["lost"]) == ("held", [], 0), told
    assert trial["acknowledged"], told
    assert done.returncode == 0, told


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(1, 21))
def test_a_seed_of_two_faults_holds_on_a_cluster(tmp_path: Path, seed: int) -> None:
    words = ("--cluster", "--seeds", "1", "--from", str(seed), "--at-once", "2", "--recover", "30")
    done = flashsale(tmp_path, "chaos", *words, "--out", "run")
    told = done.stdout + done.stderr
    (trial,) = read(tmp_path / "run/chaos.json")["trials"]
    assert (trial["fate"], trial["lost"], done.returncode) == ("held", 0, 0), told


READ_ONLY = """
[[fault]]
at = "1s"
for = "1s"
what = "read_only"
whom = "ledger"
"""


@pytest.mark.parametrize(
    ("words", "fault", "told"),
    [
        (("rehearse", "--cluster"), READ_ONLY, "'read_only' makes a replica by REPLICAOF"),
        (("chaos", "--cluster"), READ_ONLY, "chaos makes faults of its own"),
        (("chaos", "--fault", "fail_over"), "", "add --cluster"),
        (("chaos", "--cluster", "--control", "everysec"), "", "leave --cluster out"),
    ],
)
def test_what_cannot_be_had_is_one_line_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], fault: str, told: str
) -> None:
    (tmp_path / "short.toml").write_text(SHORT + fault)
    done = flashsale(tmp_path, words[0], "short.toml", *words[1:])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert told in done.stderr
    assert not (tmp_path / ".flashsale").exists()
