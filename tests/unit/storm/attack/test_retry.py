"""Trying again: which answers call for it, and what the course of a plan makes of that."""

from array import array
from collections.abc import Collection

import pytest

from flashsale.model import Outcome
from flashsale.run.plan_columns import ALWAYS, FIRST
from flashsale.scenario.answer import REASONS, Answer, indeterminate, unsent, wants_retry
from flashsale.storm.attack.course import Course
from flashsale.storm.plan.plan import Plan


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        (Answer(Outcome.SHED, 503), {"shed"}),
        (Answer(Outcome.RATE_LIMITED, 429), {"rate_limited"}),
        (Answer(Outcome.NOT_OPEN, 200), {"not_open"}),
        (Answer(Outcome.UNKNOWN, 503, "7", "unknown"), {"unknown"}),
        (indeterminate("timeout"), {"unknown"}),
        (unsent("connect"), {"connect"}),
        (unsent("interrupted"), set()),
        (Answer(Outcome.SOLD, 200, "7"), set()),
        (Answer(Outcome.SOLD_OUT, 200), set()),
        (Answer(Outcome.DUPLICATE, 200, "7"), set()),
        (Answer(Outcome.REFUSED, 401, None, "http_401"), set()),
        (None, set()),
    ],
)
def test_each_answer_calls_for_a_retry_for_its_own_reason_alone(
    answer: Answer | None, reasons: Collection[str]
) -> None:
    assert {reason for reason in REASONS if wants_retry(answer, {reason})} == reasons
    assert not wants_retry(answer, ())


def plan_of_one_user() -> Plan:
    """Claim 0; if that fails a read 1, then claim 2; if that fails claim 3; at last a sign-in 4.
    Claim 5 is a second click beside claim 0's follower, 1."""
    return Plan(
        asks=array("b", [0, 1, 0, 0, 2, 0]),
        users=array("q", [7] * 6),
        things=array("q", [1, 1, 1, 1, 0, 1]),
        connections=array("q", [0, 0, 0, 0, 0, 1]),
        at_us=array("q", [0, 10, 20, 30, 40, 50]),
        connection_count=2,
        after=array("q", [FIRST, 0, 1, 2, 3, 0]),
        given=array("q", [ALWAYS, 0, 0, 2, ALWAYS, ALWAYS]),
        retry_on=("shed",),
        clicks=2,
    )


def test_who_waits_for_what_is_spared_waits_for_what_came_before() -> None:
    course = Course(plan_of_one_user())
    assert course.after(0, lambda _: False) == ([5, 4], [1, 2, 3])
    assert course.after(0, lambda claim: claim == 0) == ([1, 5], [])
    assert course.after(1, lambda claim: claim == 0) == ([2], [])
    assert course.after(2, lambda claim: claim == 0) == ([4], [3])
    assert course.after(2, lambda claim: claim == 2) == ([3], [])
    assert course.after(3, lambda _: True) == ([4], [])
    assert course.after(4, lambda _: True) == ([], [])


def test_every_attempt_comes_up_once_whatever_fails() -> None:
    course = Course(plan_of_one_user())
    for failing in ({0}, {0, 2}, {2}, set[int]()):
        due, spared = [0], []
        for attempt in due:  # grows as it goes
            turn = course.after(attempt, failing.__contains__)
            due += turn.due
            spared += turn.spared
        assert sorted(due + spared) == [0, 1, 2, 3, 4, 5]
