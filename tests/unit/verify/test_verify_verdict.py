"""From findings to a verdict and an exit code, with the figures beside it."""

from dataclasses import replace

import pytest
from rig.sale_world import BEGIN_MS, CLOCKS, World, broken

from flashsale.errors import ExitCode
from flashsale.model import Outcome, Verdict
from flashsale.verify.finding import Offence, doubt, violation
from flashsale.verify.observation import Baseline
from flashsale.verify.queue import Backlog, Patience, Queue
from flashsale.verify.verdict import CHECKS, RULES, drain_s, judge, persisted_latency


@pytest.fixture
def world() -> World:
    """Two units, sold."""
    world = World(units=2)
    world.buy(1, 101)
    world.buy(2, 102)
    return world


def test_a_good_run_passes(world: World) -> None:
    judgement = judge(world.snapshot())
    assert (judgement.verdict, judgement.exit_code) == (Verdict.PASS, ExitCode.PASS)
    assert [check.name for check in judgement.checks] == list(RULES)
    assert {check.verdict for check in judgement.checks} == {Verdict.PASS}
    assert not [finding for check in judgement.checks for finding in check.findings]
    assert (judgement.accepted, judgement.persisted) == (2, 2)


def test_one_violation_fails_the_run(world: World) -> None:
    world.rows.pop()
    judgement = judge(world.snapshot())
    assert (judgement.verdict, judgement.exit_code) == (Verdict.FAIL, ExitCode.VIOLATION)
    detail = {check.name: check.detail for check in judgement.checks}["accepted_persisted"]
    assert "order 102" in detail


def test_a_violation_outranks_a_doubt(world: World) -> None:
    world.before = None
    world.sell(9, 109)
    assert judge(world.snapshot()).exit_code == ExitCode.VIOLATION


def test_a_doubt_is_no_pass(world: World) -> None:
    world.before = None
    world.say(9, Outcome.SHED)
    world.end(102)
    world.sell(9, 109)
    world.rows[1].order = 102
    judgement = judge(world.snapshot())
    assert (judgement.verdict, judgement.exit_code) == (Verdict.UNKNOWN, ExitCode.NOTHING_JUDGED)
    assert judgement.reason == "could not judge no_phantom"


def test_a_run_without_a_baseline_can_pass_where_everything_is_explained(world: World) -> None:
    world.before = None
    assert judge(world.snapshot()).verdict == Verdict.PASS


def test_nothing_accepted_is_never_a_pass() -> None:
    world = World(units=0)
    world.say(1, Outcome.SOLD_OUT)
    judgement = judge(world.snapshot())
    assert (judgement.verdict, judgement.exit_code) == (Verdict.UNKNOWN, ExitCode.NOTHING_JUDGED)
    assert judgement.reason is not None
    assert "no order was accepted" in judgement.reason


def test_nothing_accepted_but_a_violation_is_a_violation() -> None:
    world = World(units=1)
    world.say(1, Outcome.SOLD_OUT)
    assert judge(world.snapshot()).exit_code == ExitCode.VIOLATION


def test_another_data_set_is_not_judged(world: World) -> None:
    world.rows.clear()
    assert world.before is not None
    world.before = Baseline("another", world.before.sales)
    judgement = judge(world.snapshot())
    assert judgement.exit_code == ExitCode.NOTHING_JUDGED
    assert {check.verdict for check in judgement.checks} == {Verdict.UNKNOWN}
    assert judgement.reason is not None
    assert "another" in judgement.reason


def test_a_sale_that_still_moves_is_not_judged(world: World) -> None:
    world.rows.clear()
    judgement = judge(world.snapshot(still=False))
    assert judgement.exit_code == ExitCode.NOTHING_JUDGED
    assert judgement.reason is not None
    assert "still moving" in judgement.reason


def test_a_queue_that_stands_still_fails_and_leaves_the_rows_unknown(world: World) -> None:
    world.rows.pop()
    world.move_mysql_stock(1)
    judgement = judge(world.snapshot(Queue(exists=True, backlog=Backlog(undelivered=1))))
    verdicts = {check.name: check.verdict for check in judgement.checks}
    assert judgement.exit_code == ExitCode.VIOLATION
    assert {name for name, v in verdicts.items() if v == Verdict.FAIL} == {"queue_empty"}
    assert {name for name, v in verdicts.items() if v == Verdict.UNKNOWN} == {
        "accepted_persisted",
        "redis_conservation",
        "window",
    }


def test_as_json_order_ids_are_text(world: World) -> None:
    world.rows.pop()
    document = judge(world.snapshot()).to_json()
    check = next(c for c in document["checks"] if c["name"] == "accepted_persisted")
    assert check["findings"][0]["offences"][0]["order"] == "102"
    assert (document["verdict"], document["exit_code"]) == ("fail", 3)


def test_findings_need_offences() -> None:
    assert violation("rule", []) == doubt("rule", iter(())) == []


def test_a_finding_keeps_no_more_than_it_names() -> None:
    (finding,) = violation("rule", (Offence(f"o{n}") for n in range(1000)))
    assert (finding.total, len(finding.offences)) == (1000, 20)


# Figures.


def test_latency_runs_from_the_sale_to_the_row(world: World) -> None:
    world.row(101).persisted_ms = BEGIN_MS + 10 + 200
    world.row(102).persisted_ms = BEGIN_MS + 10 + 100
    latency = persisted_latency(world.snapshot())
    assert (latency["count"], latency["mean"], latency["max"]) == (2, 150.0, 200)
    assert latency["p50"] == 100
    assert latency["clock_offset_ms"] == CLOCKS.offset_ms
    assert drain_s(world.snapshot()) == 0.2


def test_percentiles_that_no_order_stands_behind_are_none() -> None:
    world = World(units=100)
    for user in range(1, 101):
        world.buy(user, 100 + user)
        world.rows[-1].persisted_ms = world.rows[-1].created_ms + user
    latency = persisted_latency(world.snapshot())
    assert (latency["p50"], latency["p90"], latency["p99"]) == (50, 90, 99)
    assert latency["p99.9"] is None


def test_only_this_runs_orders_are_timed(world: World) -> None:
    world.claims.clear()
    world.start()
    assert persisted_latency(world.snapshot())["count"] == 0
    assert drain_s(world.snapshot()) is None


def test_a_clock_that_runs_behind_makes_no_negative_latency(world: World) -> None:
    for row in world.rows:
        row.persisted_ms = row.created_ms - 5
    latency = persisted_latency(world.snapshot())
    assert (latency["mean"], latency["max"]) == (0.0, 0)


# Patience.


def test_an_empty_queue_ends_the_wait_at_once() -> None:
    assert Patience(10).is_over(0, 0)


def test_progress_renews_patience() -> None:
    patience = Patience(10)
    steps = [(5, 0), (4, 9), (3, 18), (3, 27)]
    assert not any(patience.is_over(left, now) for left, now in steps)
    assert patience.is_over(3, 28)


def test_a_queue_filled_as_fast_as_it_empties_is_no_progress() -> None:
    patience = Patience(10)
    assert not patience.is_over(5, 0)
    assert not patience.is_over(8, 4)
    assert not patience.is_over(6, 8)
    assert patience.is_over(5, 10)


def test_every_check_can_pass_and_has_a_rule_in_a_line(world: World) -> None:
    assert broken(world.snapshot()) == set()
    assert all(check.rule and "\n" not in check.rule for check in CHECKS)
    assert len(CHECKS) == len({check.name for check in CHECKS}) == 12
    snapshot = replace(world.snapshot(), clocks=None)
    assert persisted_latency(snapshot)["clock_offset_ms"] is None


def test_a_cut_record_is_no_pass_and_says_what_is_missing(world: World) -> None:
    cut = replace(world.snapshot(), shortfall="3 claims have no result", unrecorded=3)
    judgement = judge(cut)
    assert (judgement.verdict, judgement.exit_code) == (Verdict.UNKNOWN, ExitCode.NOTHING_JUDGED)
    assert judgement.reason == "could not judge accepted_persisted"
    assert judgement.to_json()["shortfall"] == "3 claims have no result"
    detail = {check.name: check.detail for check in judgement.checks}["accepted_persisted"]
    assert detail == ("the storm's record is cut short: 3 claims may have been told of an order")


def test_what_a_cut_record_does_tell_still_counts(world: World) -> None:
    world.rows.pop()
    cut = replace(world.snapshot(), shortfall="3 claims have no result", unrecorded=3)
    assert judge(cut).exit_code == ExitCode.VIOLATION
