"""Faults as a user has them: a rehearsal that breaks its own stack, and chaos from seeds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flashsale.faults.seeds import as_tables
from flashsale.scenario.fault import PlannedFault

SCENARIO = """
# Does it hold?
schema = 1
name = "short"

[sale]
units = 300

[load]
model = "rate"
stages = ["4s:60"]
connections = 40
steps = ["buy", "buy"]
think_ms = 1000

[timeouts]
request_ms = 5000

[thresholds]
"error.share" = "<= 100%"
"""


def flashsale(folder: Path, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    small = {"FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "32", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flashsale", *words],
        cwd=folder,
        env={**os.environ, **small, **env},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def fault(**given: str) -> str:
    lines = [f'{key.rstrip("_")} = "{value}"' for key, value in given.items()]
    return "\n".join(["", "[[fault]]", *lines, ""])


def rehearse(folder: Path, *faults: str) -> "subprocess.CompletedProcess[str]":
    (folder / "short.toml").write_text("".join([SCENARIO, *faults]))
    words = ("rehearse", "short.toml", "--quiet", "--no-calibrate", "--out", "run")
    done = flashsale(folder, *words)
    assert (folder / "run/verify.json").exists(), done.stdout + done.stderr
    return done


def rules(run: Path) -> dict[str, str]:
    found: dict[str, Any] = json.loads((run / "verify.json").read_text())
    return {check["name"]: check["verdict"] for check in found["checks"]}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sale_holds_while_its_ledger_is_killed_and_a_link_is_slow(tmp_path: Path) -> None:
    done = rehearse(
        tmp_path,
        fault(at="1s", what="kill", whom="ledger"),
        fault(at="1500ms", for_="500ms", what="cut_reply", whom="worker->mysql"),
    )
    assert "fault: kill of ledger at 1s" in done.stdout + done.stderr
    assert set(rules(tmp_path / "run").values()) == {"pass"}, done.stdout + done.stderr
    killed, cut = json.loads((tmp_path / "run/faults.json").read_text())["faults"]
    assert 1000 <= killed["done_ms"] < killed["healed_ms"]
    assert cut["healed_ms"] - cut["done_ms"] >= 500
    report = (tmp_path / "run/report.html").read_text()
    assert "Faults that were made" in report
    assert '"text":"kill ledger"' in report
    assert '"text":"cut_reply worker-\\u003eledger"' not in report
    assert '"text":"cut_reply worker-\\u003emysql"' in report


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_ledger_that_came_back_older_is_rebuilt_and_what_is_gone_is_named(tmp_path: Path) -> None:
    """Rows that it had forgotten come back; of orders that were no rows yet, each is named."""
    older = PlannedFault.made(at="1500ms", what="older_copy", whom="ledger", **{"for": "500ms"})
    done = rehearse(tmp_path, as_tables([older]))
    told = done.stdout + done.stderr
    assert "differences put right" in told
    (record,) = json.loads((tmp_path / "run/faults.json").read_text())["faults"]
    assert record["behind_ms"][1] - record["behind_ms"][0] >= 500
    broken = {name for name, verdict in rules(tmp_path / "run").items() if verdict == "fail"}
    assert broken <= older.expects, told
    assert named_as_lost(tmp_path / "run") <= set(record["gone"]), told
    assert bool(broken) <= bool(record["gone"]), told


def named_as_lost(run: Path) -> set[str]:
    found: dict[str, Any] = json.loads((run / "verify.json").read_text())
    (check,) = (check for check in found["checks"] if check["name"] == "accepted_persisted")
    failed = (it for it in check["findings"] if it["verdict"] == "fail")
    return {offence["order"] for finding in failed for offence in finding["offences"]}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_power_cut_of_the_ledger_and_one_of_mysql_lose_nothing(tmp_path: Path) -> None:
    done = rehearse(
        tmp_path,
        fault(at="1s", what="power_cut", whom="ledger"),
        fault(at="2s", what="power_cut", whom="mysql"),
    )
    told = done.stdout + done.stderr
    assert set(rules(tmp_path / "run").values()) == {"pass"}, told
    records = json.loads((tmp_path / "run/faults.json").read_text())["faults"]
    assert all("had not been fsynced" in record["found"] for record in records), told
    cut = next(record["found"] for record in records if record["whom"] == "mysql")
    assert not cut.startswith("0 writes"), "MariaDB leaves pages for later"


ONCE = [
    *(
        PlannedFault.made(at="1s", what="failing_fsync", whom=w, **{"for": "1s"})
        for w in ("ledger", "mysql")
    ),
    *(
        PlannedFault.made(at="1s", what="clock", whom=whom, shift_ms=shift_ms, **{"for": "1500ms"})
        for whom, shift_ms in (("replica", 30_000), ("worker", -30_000), ("ledger", -1_500))
    ),
    *(
        PlannedFault.made(at="1s", what="delete", whom="ledger", key=key, **{"for": "500ms"})
        for key in ("stock", "order", "receipt", "sale")
    ),
]
"""What seeds draw seldom: each once on a whole stack."""


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("once", ONCE, ids=lambda it: f"{it.what}-{it.whom}-{it.key}")
def test_every_rule_holds_under_it(tmp_path: Path, once: PlannedFault) -> None:
    done = rehearse(tmp_path, as_tables([once]))
    told = done.stdout + done.stderr
    assert set(rules(tmp_path / "run").values()) == {"pass"}, told
    (record,) = json.loads((tmp_path / "run/faults.json").read_text())["faults"]
    assert record["healed_ms"] >= record["done_ms"] + 500, told
    assert "differences put right" in record["found"] or once.what != "delete"


def test_a_fault_of_whom_the_stack_does_not_have_is_refused_before_it_starts(
    tmp_path: Path,
) -> None:
    (tmp_path / "short.toml").write_text(SCENARIO + fault(at="1s", what="kill", whom="r9"))
    done = flashsale(tmp_path, "rehearse", "short.toml")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the stack has 3 replicas; set FLASHSALE_STACK_REPLICAS=9" in done.stderr
    assert not (tmp_path / ".flashsale").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_chaos_of_five_seeds_holds(tmp_path: Path) -> None:
    """Five, or as many as there is time for: a busy machine is no broken sale."""
    (tmp_path / "short.toml").write_text(SCENARIO)
    words = ("--seeds", "5", "--minutes", "1.4", "--out", "chaos", "--recover", "30")
    done = flashsale(tmp_path, "chaos", "short.toml", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "chaos/chaos.json").read_text())
    assert 1 <= len(found["trials"]) <= 5
    assert all(trial["fate"] == "held" and trial["acknowledged"] for trial in found["trials"])
    assert "| all |" in (tmp_path / "chaos/chaos.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_planted_defect_is_found(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(SCENARIO)
    done = flashsale(tmp_path, "chaos", "short.toml", "--control", "everysec", "--out", "control")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "control everysec: found, as it must be" in done.stdout
