"""Ten power cuts each under load: nothing is lost with `always`; what `everysec` loses is found."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

CUTS = 10
SCENARIO = """
# Is anything lost when the power goes, again and again?
schema = 1
name = "cuts"

[sale]
units = 8000

[load]
model = "rate"
stages = ["SECONDSs:80"]
connections = 64

[load.retry]
on = ["shed", "unknown", "connect"]
times = 2

[timeouts]
request_ms = 5000

[thresholds]
"error.share" = "<= 100%"
"""
SETTINGS = {
    "FLASHSALE_STACK_REPLICAS": "2",
    "FLASHSALE_STACK_RESTART_MAX_MS": "200",
    "FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "32",
    "FLASHSALE_STACK_MARIADB_BUFFER_POOL_MB": "64",
}


def cut_again_and_again(
    folder: Path, whom: str, apart_s: int, **more: str
) -> tuple[Any, list[Any]]:
    """The judgement, and the records of the cuts."""
    faults = (
        f'[[fault]]\nat = "{2 + apart_s * n}s"\nwhat = "power_cut"\nwhom = "{whom}"\n'
        for n in range(CUTS)
    )
    scenario = SCENARIO.replace("SECONDS", str(CUTS * apart_s + 4))
    (folder / "cuts.toml").write_text("\n".join([scenario, *faults]))
    words = ("rehearse", "cuts.toml", "--quiet", "--no-calibrate", "--out", "run")
    done = subprocess.run(
        [sys.executable, "-m", "flashsale", *words],
        cwd=folder,
        env={**os.environ, **SETTINGS, **more},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (folder / "run/verify.json").exists(), done.stdout + done.stderr
    records = json.loads((folder / "run/faults.json").read_text())["faults"]
    assert len(records) == CUTS
    assert all(record["done_ms"] and record["healed_ms"] for record in records), records
    return json.loads((folder / "run/verify.json").read_text()), records


@pytest.mark.parametrize("whom", ["ledger", "mysql"])
def test_ten_cuts_lose_nothing(tmp_path: Path, whom: str) -> None:
    judged, _ = cut_again_and_again(tmp_path, whom, apart_s=4)
    assert judged["orders"]["accepted"] > 1_000
    assert {check["name"]: check["verdict"] for check in judged["checks"]} == dict.fromkeys(
        (check["name"] for check in judged["checks"]), "pass"
    )


def test_what_a_ledger_loses_that_fsyncs_every_second_is_found_and_counted(tmp_path: Path) -> None:
    judged, records = cut_again_and_again(
        tmp_path, "ledger", apart_s=8, FLASHSALE_STACK_DURABILITY="everysec"
    )
    gone = {order for record in records for order in record["gone"]}
    (lost,) = (check for check in judged["checks"] if check["name"] == "accepted_persisted")
    named = {o["order"] for finding in lost["findings"] for o in finding["offences"]}
    total = sum(f["total"] for f in lost["findings"] if f["verdict"] == "fail")
    assert gone, "ten cuts of a second each have lost something"
    assert lost["verdict"] == "fail"
    assert named <= gone
    assert total == len(gone)
