"""What a trial comes to, and the table of many."""

from dataclasses import replace

import pytest

from flashsale.errors import ExitCode
from flashsale.faults.trials import Fate, Trial, exit_code_of, markdown, table

HELD = Trial(
    seed=1,
    faults=["kill ledger"],
    run="r",
    acknowledged=100,
    recovered_s=0.5,
    sent_after=50,
    drained=True,
)


@pytest.mark.parametrize(
    ("change", "fate", "code"),
    [
        ({}, Fate.HELD, ExitCode.PASS),
        ({"broken": ["no_oversell"]}, Fate.BROKEN, ExitCode.VIOLATION),
        ({"broken": ["no_oversell"], "drained": False}, Fate.BROKEN, ExitCode.VIOLATION),
        ({"broken": ["window"], "expected": ["window"]}, Fate.HELD, ExitCode.PASS),
        ({"drained": False}, Fate.STUCK, ExitCode.VIOLATION),
        ({"recovered_s": None}, Fate.STUCK, ExitCode.VIOLATION),
        ({"recovered_s": 11.0}, Fate.STUCK, ExitCode.VIOLATION),
        ({"recovered_s": None, "sent_after": 0}, Fate.UNJUDGED, ExitCode.NOTHING_JUDGED),
        ({"broken": ["sold_while_behind"]}, Fate.BROKEN, ExitCode.VIOLATION),
        ({"acknowledged": 0}, Fate.UNJUDGED, ExitCode.NOTHING_JUDGED),
        ({"why": "the ledger is away"}, Fate.UNJUDGED, ExitCode.NOTHING_JUDGED),
    ],
)
def test_safety_and_liveness_are_judged_apart(
    change: dict[str, object], fate: Fate, code: ExitCode
) -> None:
    trial = replace(HELD, **change)  # type: ignore[arg-type]
    assert trial.fate is fate
    assert exit_code_of([HELD, trial]) is code


def test_the_table_has_a_row_for_each_fault_and_one_for_all() -> None:
    both = replace(HELD, seed=2, faults=["kill ledger", "stop c1"], recovered_s=1.5)
    lost = replace(HELD, seed=3, faults=["stop c1"], broken=["accepted_persisted"], lost=7)
    _, rows = table([HELD, both, lost])
    assert [row[:5] for row in rows] == [
        ("kill ledger", "2", "2", "200", "0"),
        ("stop c1", "2", "1", "200", "7"),
        ("all", "3", "2", "300", "7"),
    ]
    assert rows[0][7] == "1.0 ≤ 1.5"
    assert [row[8] for row in rows] == ["none", "accepted_persisted ×1", "accepted_persisted ×1"]


def test_a_breach_that_was_to_be_is_told_as_such() -> None:
    right = replace(HELD, broken=["queue_empty"], expected=["queue_empty"])
    assert table([right])[1][0][8] == "queue_empty ×1 (as expected)"


def test_markdown_keeps_what_a_server_said_in_its_cell() -> None:
    text = markdown("chaos", [replace(HELD, faults=["a | b"])], ["seed 1: <script>"])
    assert "a \\| b" in text
    assert "<script>" not in text
