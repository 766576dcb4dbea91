"""`rehearse` of users who do several things, click at once and try again: judged by verify."""

from pathlib import Path

import orjson
import pytest
from rig.command_line import run_flashsale

from flashsale.run.summary import Summary

CLICKS = """# Does one of three clicks at once sell, and are the others told so?
schema = 1
name = "clicks"
[sale]
vouchers = 2
units = 120
[browse]
shops = 20
[load]
model = "closed"
users = 100
connections = 60
clicks = 3
steps = ["sign", "buy"]
think_ms = 20
think = "exponential"
[load.refresh]
reads = 1
[load.retry]
on = ["shed", "unknown", "rate_limited", "connect"]
times = 5
backoff_ms = 200
[thresholds]
"buy.sold.count" = "== 100"
"buy.duplicate.count" = ">= 200"
"sign.signed.share" = "== 100%"
"""

REDO = {"FLASHSALE_STACK_MARIADB_REDO_LOG_MB": "32"}


def checks(summary: Summary) -> dict[str, str]:
    return {check.name: check.verdict.value for check in summary.verify.checks}


@pytest.mark.slow
def test_mixed_passes_with_its_sale_judged_and_its_loads_counted(tmp_path: Path) -> None:
    done = run_flashsale(tmp_path, "rehearse", "mixed", "--quiet", **REDO)
    summary = Summary.read(tmp_path / "runs/latest/summary.json")
    # On a busy machine answers may be slow, or read late: then it is no pass, and says so.
    late = {each.metric for each in summary.thresholds if each.verdict != "pass"}
    assert all(metric.endswith("response.p99") for metric in late), done.stdout + done.stderr
    assert done.returncode in ({4, 6} if late else {0, 6}), done.stdout + done.stderr
    assert set(checks(summary).values()) == {"pass"}
    assert {name: found.sent for name, found in summary.endpoints.items()} == {
        "buy": 1_000,
        "browse": 2_000,
        "sign": 1_000,
    }
    assert summary.endpoints["buy"].outcomes == {"sold": 500, "sold_out": 500}
    assert summary.database is not None
    assert summary.database.loads >= 1
    assert all(name in done.stdout for name in ("browse response", "sign signed", "buy sold"))


@pytest.mark.slow
def test_of_three_clicks_at_once_exactly_one_sells(tmp_path: Path) -> None:
    (tmp_path / "clicks.toml").write_text(CLICKS)
    done = run_flashsale(tmp_path, "rehearse", "clicks.toml", "--quiet", **REDO)
    summary = Summary.read(tmp_path / "runs/latest/summary.json")
    assert set(checks(summary).values()) == {"pass"}, done.stdout + done.stderr
    assert [each.verdict for each in summary.thresholds] == ["pass"] * len(summary.thresholds)
    assert done.returncode in (0, 6), done.stdout + done.stderr
    lines = map(orjson.loads, (tmp_path / "runs/latest/attempts.jsonl").read_bytes().splitlines())
    told: dict[int, list[str]] = {}
    plan = {}
    for line in lines:
        if line["kind"] == "plan":
            plan[line["i"]] = line
        elif line["kind"] == "result" and "ask" not in plan[line["i"]]:
            told.setdefault(plan[line["i"]]["user"], []).append(line["outcome"])
    assert len(told) == 100
    assert all(outcomes.count("sold") == 1 for outcomes in told.values())
    assert summary.load.spared == 500 - (sum(map(len, told.values())) - 300)
