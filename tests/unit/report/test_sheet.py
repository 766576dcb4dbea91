import csv
from array import array
from pathlib import Path

from flashsale.model import Outcome, Reading
from flashsale.report.files import COLUMNS, rows, write_sheet
from flashsale.run.attempts import Attempts
from flashsale.run.attempts_file import AttemptsFile, Record
from flashsale.scenario.answer import Answer, indeterminate, unsent
from flashsale.scenario.load import Step
from flashsale.storm.plan.plan import Plan

MS = 1_000_000
PLAN = Plan(
    asks=array("q", [Step.BUY, Step.BROWSE, Step.SIGN, Step.BUY, Step.BUY]),
    users=array("q", [7, 0, 8, 9, 10]),
    things=array("q", [1, 20, 0, 2, 2]),
    connections=array("q", [0, 1, 2, 3, 0]),
    at_us=array("q", [0, 10, 20, 30, 5]),
    connection_count=4,
    after=array("q", [-1, -1, -1, -1, 0]),
)


def ledger() -> Attempts:
    """Sold, read from cache, lost and resolved, never sent; and one that nobody tells of."""
    found = Attempts(5)
    found.origin_ns = 100 * MS
    for i in range(4):
        found.due_ns[i] = found.origin_ns + PLAN.at_us[i] * 1000
    for i in range(3):
        found.sent_ns[i] = found.origin_ns + MS
    found.settle(0, found.origin_ns + 3 * MS, Answer(Outcome.SOLD, 200, "41"))
    found.settle(1, found.origin_ns + 2 * MS, Answer(Reading.HIT, 200))
    found.settle(2, found.origin_ns + 4 * MS, indeterminate("reset"))
    found.settle(3, found.origin_ns + 5 * MS, unsent("connect"))
    return found


EXPECTED = """\
0,buy,7,1,,0,0,1000,3000,3000,2000,sold,200,41,,,
1,browse,,,20,1,10,1000,2000,1990,1000,hit,200,,,,
2,sign,8,,,2,20,1000,4000,3980,3000,indeterminate,,,reset,sold,
3,buy,9,2,,3,30,,5000,,,unsent,,,connect,,
4,buy,10,2,,0,,,,,,indeterminate,,,no record,,0
"""


def test_a_row_tells_one_attempt() -> None:
    found = ledger()
    found.resolved[2] = "sold"
    told = [
        "" if cell is None else str(cell)
        for row in rows(Record({}, PLAN, found, True))
        for cell in row
    ]
    width = len(COLUMNS)
    lines = [",".join(told[start : start + width]) for start in range(0, len(told), width)]
    assert lines == EXPECTED.splitlines()


def test_the_sheet_is_made_from_the_attempts(tmp_path: Path) -> None:
    found = ledger()
    with AttemptsFile(tmp_path / "attempts.jsonl") as attempts:
        attempts.write_plan({"planned": 5, "connections": 4}, PLAN)
        attempts.write_barrier(1)
        attempts.write_results(found)
        attempts.write_resolved(2, "sold", "42")
    write_sheet(tmp_path / "attempts.jsonl", tmp_path / "attempts.csv")
    text = (tmp_path / "attempts.csv").read_text()
    assert text == f"{','.join(COLUMNS)}\n{EXPECTED}"
    with (tmp_path / "attempts.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["outcome"] for row in read][:2] == ["sold", "hit"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_no_cell_is_taken_for_a_formula(tmp_path: Path) -> None:
    """What a server says lands in a spreadsheet, so text that begins like a formula is quoted."""
    record = ledger()
    record.answers[0] = Answer(Outcome.SOLD, 200, "=cmd|' /C calc'!A0", "@SUM(1)")
    record.answers[2] = indeterminate("-1+1")
    with AttemptsFile(tmp_path / "attempts.jsonl") as file:
        file.write_plan({"planned": 5, "connections": 4}, PLAN)
        file.write_results(record)
    write_sheet(tmp_path / "attempts.jsonl", tmp_path / "attempts.csv")
    with (tmp_path / "attempts.csv").open(newline="") as file_:
        found = list(csv.DictReader(file_))
    assert (found[0]["order"], found[0]["error"]) == ("'=cmd|' /C calc'!A0", "'@SUM(1)")
    assert found[2]["error"] == "'-1+1"
    assert found[0]["due_us"] == "0"
