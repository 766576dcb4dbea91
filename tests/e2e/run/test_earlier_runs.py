"""Runs that were written by an earlier version (869f6fd), in `tests/fixtures/runs`: read as ever.

`stampede` was rehearsed; `closed` has clicks, refreshes, retries and a lost connection, on a
scripted sale; `shards` are the two halves of one storm, the second of them fired by two processes.
"""

import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest
from rig.command_line import run_flashsale
from rig.scripted_sale import Act, Claim, ScriptedSale, sell
from rig.users_in_steps import HIT, fair_town

from flashsale.verify.attempts import read_attempts
from flashsale.verify.ending import read_ending
from flashsale.verify.observation import read_baseline

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures/runs"
STAMPEDE = """# The same, once more
schema = 1
name = "stampede"
[sale]
units = 10
[load]
model = "stampede"
users = 40
connections = 40
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A copy of the runs, and tokens for forty users."""
    shutil.copytree(FIXTURES, tmp_path, dirs_exist_ok=True)
    rows = "".join(f"{user},token-{user}\n" for user in range(1, 41))
    (tmp_path / "tokens.csv").write_text("user_id,token\n" + rows)
    return tmp_path


def plan_lines(run: Path) -> list[bytes]:
    lines = (run / "attempts.jsonl").read_bytes().splitlines()
    return [line for line in lines if line.startswith(b'{"kind":"plan"')]


def summary_of(run: Path) -> Any:
    return orjson.loads((run / "summary.json").read_bytes())


def demanded(summary: Any) -> list[tuple[str, str]]:
    return [(judged["metric"], judged["condition"]) for judged in summary["thresholds"]]


def intervals(run: Path) -> list[str]:
    """What an .hlog tells, but for the latencies themselves."""
    lines = (run / "latency.hlog").read_text().splitlines()
    return [line.split(",")[0] for line in lines if line.startswith("Tag=")]


def cases(junit: Path) -> list[tuple[str | None, list[tuple[str, str | None]]]]:
    """Each case's name and what it tells; its class did not always have the run's name in it."""
    root = ElementTree.parse(junit).getroot()  # noqa: S314 - our own
    return [
        (case.get("name"), [(told.tag, told.text) for told in case])
        for case in root.iterfind(".//testcase")
    ]


@pytest.mark.parametrize("name", ["stampede", "closed"])
def test_report_renders_them_again(desk: Path, name: str) -> None:
    run, before = desk / name, FIXTURES / name
    for file in ("junit.xml", "latency.hgrm", "latency.hlog", "attempts.csv"):
        (run / file).unlink()
    done = run_flashsale(desk, "report", name, "--csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert "10 of 10 units sold" in done.stdout or "5 of 5 units sold" in done.stdout
    told = [cases(it / "junit.xml") for it in (before, run)]
    assert told[0] == told[1]
    assert (run / "attempts.csv").read_text() == (before / "attempts.csv").read_text()
    assert (run / "latency.hgrm").read_text().count("\n") > 10
    assert intervals(run) == intervals(before)
    assert "plotly" in (run / "report.html").read_text()
    assert (run / "summary.json").read_bytes() == (before / "summary.json").read_bytes()


def test_verify_reads_their_attempts_and_what_the_stores_held() -> None:
    stampede, closed = read_attempts(FIXTURES / "stampede"), read_attempts(FIXTURES / "closed")
    assert (stampede.run, stampede.planned, stampede.vouchers) == ("stampede", 40, (1,))
    assert (closed.run, closed.planned, closed.vouchers) == ("closed", 30, (1, 2))
    for attempts in (stampede, closed):
        assert attempts.complete
        assert not attempts.cut
    baseline, ending = (read(FIXTURES / "stampede") for read in (read_baseline, read_ending))
    assert baseline is not None
    assert baseline.sales[1].redis_stock == 10
    assert ending is not None
    assert ending.claim_ms == 5_000


def test_a_storm_is_held_against_one_of_them(desk: Path) -> None:
    (desk / "again.toml").write_text(STAMPEDE)
    with ScriptedSale(sell(10)).open() as sale:
        done = run_flashsale(
            desk, "storm", "again.toml", "--base-url", sale.base_url, "--tokens", "tokens.csv",
            "--out", "again", "--baseline", "stampede", "--max-regress", "99999%",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = summary_of(desk / "again")
    assert summary["baseline"]["run"] == "stampede"
    assert summary["baseline"]["folder"] == "../stampede"
    before = summary_of(desk / "stampede")
    rate = next(it for it in summary["baseline"]["changes"] if it["metric"] == "rate")
    assert rate["before"] == before["load"]["rate_per_s"]
    assert summary["plan_hash"] == before["plan_hash"], "equal scenarios make equal plans"


@pytest.mark.parametrize(("name", "units"), [("stampede", [10]), ("closed", [3, 2])])
def test_they_are_fired_once_more(desk: Path, name: str, units: list[int]) -> None:
    answer = fair_town(*units)

    def act(claim: Claim) -> Act:
        return Act(HIT) if claim.path.startswith("/shop/") else answer(claim)

    with ScriptedSale(act).open() as sale:
        done = run_flashsale(
            desk, "storm", "--replay", name, "--base-url", sale.base_url,
            "--tokens", "tokens.csv", "--out", "again",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, again = summary_of(desk / name), summary_of(desk / "again")
    assert f"replaying {name}: plan {before['plan_hash']}" in done.stderr
    assert again["plan_hash"] == before["plan_hash"]
    assert plan_lines(desk / "again") == plan_lines(desk / name)
    for part in ("question", "seed"):
        assert again[part] == before[part]
    assert demanded(again) == demanded(before)


def test_shards_of_then_make_one_run(desk: Path) -> None:
    done = run_flashsale(desk, "report", "merge", "shards/1", "shards/2", "--out", "whole")
    assert done.returncode == 0, done.stderr
    summary = summary_of(desk / "whole")
    assert summary["load"]["outcomes"] == {"sold": 5, "sold_out": 11}
    assert [worker["name"] for worker in summary["generator"]["workers"]] == ["shard 1", "shard 2"]
    assert [shard["run"] for shard in summary["merged"]["shards"]] == ["shard1", "shard2"]
    effort = orjson.loads((desk / "shards/2/effort.json").read_bytes())
    assert [share["name"] for share in effort["shares"]] == ["worker 1", "worker 2"]
    assert read_attempts(desk / "whole").planned == 16
