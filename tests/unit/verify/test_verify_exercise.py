"""What each check met of what it guards: a pass in which nothing came is no proof, and says so."""

from collections.abc import Callable

import pytest
from rig.sale_world import BEGIN_MS, World

from flashsale.campaign.judging import exercising, only_exercising, only_thresholds
from flashsale.errors import ExitCode, UsageError
from flashsale.model import Outcome, Verdict
from flashsale.report.wording import met
from flashsale.settings import WorkerSettings
from flashsale.verify.checks.orders import TAKE_OVER_S
from flashsale.verify.finding import is_met
from flashsale.verify.verdict import CHECKS, DRAIN_TIMEOUT_S, judge


@pytest.fixture
def world() -> World:
    """Two units, one sold, nobody refused."""
    world = World(units=2)
    world.buy(1, 101)
    return world


def exercised(world: World, name: str) -> dict[str, int]:
    (check,) = (check for check in judge(world.snapshot()).checks if check.name == name)
    return dict(check.exercised)


def _a_third_buyer(world: World) -> None:
    world.buy(2, 102)
    world.say(3, Outcome.SOLD_OUT)


def _a_second_claim(world: World) -> None:
    world.say(1, Outcome.DUPLICATE, 101)


def _came_too_early(world: World) -> None:
    world.say(5, Outcome.NOT_OPEN)


@pytest.mark.parametrize(
    ("checks", "come"),
    [
        ({"no_oversell", "sold_out_truthful", "no_undersell"}, _a_third_buyer),
        ({"one_per_user", "duplicate_truthful"}, _a_second_claim),
        ({"window"}, _came_too_early),
    ],
)
def test_a_check_is_exercised_by_what_it_guards_and_not_before(
    world: World, checks: set[str], come: Callable[[World], None]
) -> None:
    before = {check.name for check in CHECKS if is_met(check.meets(world.snapshot()))}
    assert not checks & before
    come(world)
    assert {check.name for check in CHECKS if is_met(check.meets(world.snapshot()))} >= checks


def test_a_sale_of_nothing_exercises_no_check() -> None:
    world = World(units=2)
    world.say(1, Outcome.SHED)
    assert [check.name for check in CHECKS if is_met(check.meets(world.snapshot()))] == []


def test_counts_are_those_of_the_history(world: World) -> None:
    for user in (1, 1, 1):
        world.say(user, Outcome.DUPLICATE, 101)
    world.buy(2, 102)
    world.say(3, Outcome.SOLD_OUT)
    world.end(102)
    world.rows[0].persisted_ms = BEGIN_MS + 10 + int(TAKE_OVER_S * 1000)
    assert exercised(world, "duplicate_truthful") == {"retries told duplicate": 3}
    assert exercised(world, "one_per_user") == {"claims of users who had asked": 3}
    assert exercised(world, "no_oversell") == {"buyers beyond the last unit": 1}
    assert exercised(world, "no_undersell") == {"refusals after sell-out": 1, "units returned": 1}
    assert exercised(world, "queue_empty") == {"orders queued": 2, "take-overs": 1}
    assert exercised(world, "mysql_conservation") == {"units sold": 2, "units returned": 1}
    document = judge(world.snapshot()).to_json()
    told = {check["name"]: check["exercised"] for check in document["checks"]}
    assert told["duplicate_truthful"] == {"retries told duplicate": 3}


def test_what_was_required_and_not_met_is_no_pass(world: World) -> None:
    judgement = judge(world.snapshot(), ["duplicate_truthful"])
    assert (judgement.verdict, judgement.exit_code) == (Verdict.UNKNOWN, ExitCode.NOTHING_JUDGED)
    assert judgement.reason is not None
    assert "duplicate_truthful met nothing that it guards" in judgement.reason
    _a_second_claim(world)
    assert judge(world.snapshot(), ["duplicate_truthful"]).verdict == Verdict.PASS


def test_a_broken_rule_outranks_what_was_required(world: World) -> None:
    world.rows.pop()
    assert judge(world.snapshot(), ["duplicate_truthful"]).exit_code == ExitCode.VIOLATION


def test_in_words() -> None:
    assert met({"retries told duplicate": 1312}) == "met retries told duplicate: 1,312"
    assert met({"a": 0, "b": 2}) == "met nothing that it guards (a: 0, b: 2)"
    assert met({}) == ""


def test_what_is_demanded_is_told_apart() -> None:
    both = ["buy.p99<50ms", "exercised:no_oversell"]
    assert exercising(both) == (["buy.p99<50ms"], ("no_oversell",))
    with pytest.raises(UsageError, match="did you mean 'duplicate_truthful'"):
        exercising(["exercised:duplicates_truthful"])
    with pytest.raises(UsageError, match="flashsale storm"):
        only_exercising(both)
    with pytest.raises(UsageError, match="flashsale verify"):
        only_thresholds(both)


def test_the_judge_waits_longer_than_a_take_over() -> None:
    settings = WorkerSettings()
    assert settings.claim_idle_ms == TAKE_OVER_S * 1000
    assert 1.25 * TAKE_OVER_S + settings.block_ms / 1000 < DRAIN_TIMEOUT_S
