"""Faults of a ledger of several nodes, as a user has them: what a failover loses that nobody
confirmed is named, and what replicas have confirmed outlives it.
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


def rehearsed_in_docs(
    folder: Path, what: str, form: str
) -> tuple[list[dict[str, Any]], "subprocess.CompletedProcess[str]", str]:
    """The faults as they were made of the scenario that docs show with this one."""
    (shown,) = (block for block in blocks("toml") if what in block.text)
    (folder / "shown.toml").write_text(shown.text)
    words = (form, "--no-calibrate", "--quiet", "--out", "run")
    done = flashsale(folder, "rehearse", "shown.toml", *words)
    told = done.stdout + done.stderr
    faults = read(folder / "run/faults.json")["faults"]
    assert all(it["healed_ms"] for it in faults), told
    return faults, done, told


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_failover_loses_is_named_by_the_judge_and_by_the_rebuild(tmp_path: Path) -> None:
    (cut, _, failed_over), done, told = rehearsed_in_docs(tmp_path, "cut_replica", "--cluster")
    assert cut["found"] == "ledger-5 heard no more of ledger-2", told
    assert failed_over["found"].startswith("ledger-5 took over from ledger-2; "), told
    assert_lost_are_named(tmp_path, failed_over, done, told)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_primary_sells_that_is_none_any_more_is_named(tmp_path: Path) -> None:
    (_, isolated), done, told = rehearsed_in_docs(tmp_path, "isolate", "--ha")
    assert isolated["found"].startswith("ledger-2 took over from ledger; "), told
    assert_lost_are_named(tmp_path, isolated, done, told)


def assert_lost_are_named(
    folder: Path, fault: dict[str, Any], done: "subprocess.CompletedProcess[str]", told: str
) -> None:
    """The judge and the rebuild after the fault name the same orders, and there are some."""
    checks = {it["name"]: it for it in read(folder / "run/verify.json")["checks"]}
    breaches = [it for it in checks["accepted_persisted"]["findings"] if it["verdict"] == "fail"]
    named = {offence["order"] for breach in breaches for offence in breach["offences"]}
    assert named, told
    assert named <= set(fault["gone"]), told
    assert sum(breach["total"] for breach in breaches) == len(fault["gone"]), told
    assert done.returncode == 3, told


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("form", "faults"),
    [
        ("--cluster", {"fail_over ledger", "cut_reply replica->ledger"}),
        ("--ha", {"fail_over ledger", "cut_reply replica->ledger"}),
        ("--ha", {"isolate ledger"}),
    ],
)
def test_what_replicas_have_confirmed_outlives_a_failover(
    tmp_path: Path, form: str, faults: set[str]
) -> None:
    (tmp_path / "short.toml").write_text(SHORT)
    kinds = [word for fault in sorted(faults) for word in ("--fault", fault.split()[0])]
    drawn = ("--seeds", "1", "--from", "2", *kinds, "--at-once", str(len(faults)))
    done = flashsale(
        tmp_path, "chaos", "short.toml", form, *drawn, "--recover", "30", "--out", "run"
    )
    told = done.stdout + done.stderr
    (trial,) = read(tmp_path / "run/chaos.json")["trials"]
    assert set(trial["faults"]) == faults, told
    assert (trial["fate"], trial["broken"], trial["lost"]) == ("held", [], 0), told
    assert trial["acknowledged"], told
    assert done.returncode == 0, told
    made = read(tmp_path / "run/seed-2/faults.json")["faults"]
    assert any("took over from" in it["found"] for it in made), told


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["--cluster", "--ha"])
@pytest.mark.parametrize("seed", range(1, 21))
def test_a_seed_of_two_faults_holds(tmp_path: Path, seed: int, form: str) -> None:
    words = (form, "--seeds", "1", "--from", str(seed), "--at-once", "2", "--recover", "30")
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
        (("rehearse", "--ha"), READ_ONLY, "which Sentinels undo"),
        (("chaos", "--fault", "fail_over"), "", "add --ha or --cluster"),
        (("chaos", "--cluster", "--fault", "isolate"), "", "use --ha"),
        (("chaos", "--ha", "--cluster"), "", "a cluster has replicas of its own"),
        (("chaos", "--ha", "--control", "everysec"), "", "leave --ha out"),
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
