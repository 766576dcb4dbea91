"""A record that was cut short is judged for what it tells, and is never a pass."""

from collections.abc import Callable

import pytest
from rig.faulty_sale import FaultySale
from rig.judged_storm import JudgedStorm

pytestmark = pytest.mark.slow


def test_a_storm_that_was_killed_is_no_pass_and_says_what_is_missing(
    open_desk: Callable[[str], JudgedStorm],
) -> None:
    desk = open_desk("killed")
    market = desk.market()
    desk.scenario(users=6)
    desk.storm(FaultySale(market), "run")
    market.close()
    record = desk.folder / "run" / "attempts.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join(lines[:-3]))  # a result and what came after it
    (desk.folder / "run" / "ending.json").unlink()
    verdict = desk.verify("run")
    assert (verdict.exit_code, verdict.failed) == (8, set())
    assert "2 of 6 claims have no result" in verdict.document["shortfall"]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_record_without_a_plan_is_one_line_and_exit_8(
    open_desk: Callable[[str], JudgedStorm], kept: int
) -> None:
    desk = open_desk("empty")
    market = desk.market()
    desk.scenario(users=6)
    desk.storm(FaultySale(market), "run")
    market.close()
    record = desk.folder / "run" / "attempts.jsonl"
    record.write_bytes(b"".join(record.read_bytes().splitlines(keepends=True)[:kept]))
    done = desk.flashsale("verify", "run")
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr.count("\n") == 1
    assert "no attempt was planned" in done.stderr or "expected a header" in done.stderr
