"""A judgement stands, whatever becomes of the files that tell it."""

from pathlib import Path

import pytest
from rig.run_folders import GONE, SOLD, leave_run

from flashsale.campaign import judging
from flashsale.campaign.campaign import JudgedRun, Stores, Teller
from flashsale.campaign.judging import judge_run
from flashsale.errors import ExitCode
from flashsale.model import Verdict
from flashsale.run.folder import VERIFY_FILE
from flashsale.run.summary import Summary
from flashsale.verify.finding import CheckResult, Judgement

STORES = Stores("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0", "mysql://127.0.0.1:1/x")
OVERSOLD = Judgement(
    Verdict.FAIL, (CheckResult("no_oversell", Verdict.FAIL, "11 of 10"),), accepted=11, persisted=11
)


class Listener(Teller):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.runs: list[JudgedRun] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def judged(self, found: JudgedRun) -> None:
        self.runs.append(found)


@pytest.fixture
def oversold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "examine", lambda *_, **__: OVERSOLD)


@pytest.mark.usefixtures("oversold")
def test_a_violation_is_told_where_no_file_can_be_written(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "run", [SOLD, GONE] * 5, 5)
    summary = Summary.read(folder.summary)
    folder.summary.unlink()
    for name in (VERIFY_FILE, "summary.json", "junit.xml", "report.html"):
        (folder.path / name).mkdir()
    teller = Listener()
    found = judge_run(folder.path, STORES, teller, stormed=summary)
    assert (found.exit_code, found.verdict) == (ExitCode.VIOLATION, Verdict.FAIL)
    assert teller.runs == [found]
    assert [line.split(":")[0].rpartition("/")[2] for line in teller.lines] == [
        "verify.json",
        "summary.json",
        "junit.xml",
        "report.html",
    ]
    assert {path.name for path in folder.path.iterdir()} == {
        "attempts.jsonl", VERIFY_FILE, "summary.json", "junit.xml", "report.html",
    }  # fmt: skip


@pytest.mark.usefixtures("oversold")
def test_a_violation_is_told_where_the_charts_cannot_be_drawn(tmp_path: Path) -> None:
    """The judge reads attempts with its own eyes; what the page makes of them is no verdict."""
    folder = leave_run(tmp_path / "run", [SOLD, GONE] * 5, 5)
    text = folder.attempts.read_text().replace('"status":200', '"status":2000', 1)
    folder.attempts.write_text(text)
    teller = Listener()
    assert judge_run(folder.path, STORES, teller).exit_code is ExitCode.VIOLATION
    assert "damaged, so no charts" in teller.lines[0]
    assert "no_oversell" in folder.report.read_text()
