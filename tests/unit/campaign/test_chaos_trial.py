"""What a trial comes to: what a ledger had forgotten excuses, and what it does not."""

from array import array
from collections.abc import Mapping
from dataclasses import replace

import pytest

from flashsale.campaign.chaos_trial import _excused, accepted_before, recovery_of, sold_behind
from flashsale.faults.seeds import SOLD_BEHIND
from flashsale.keys import CLUSTER, SINGLE
from flashsale.model import Outcome, Verdict
from flashsale.run.attempts import Attempts, PlanColumns
from flashsale.run.attempts_file import Record
from flashsale.run.parts import FaultRecord
from flashsale.scenario.answer import Answer
from flashsale.scenario.fault import PlannedFault
from flashsale.verify.finding import CheckResult, Offence, violation

FLUSH = PlannedFault.made(at="1s", what="flush", whom="ledger")
POISON = PlannedFault.made(at="1s", what="poison", whom="ledger")
KILL = PlannedFault.made(at="1s", what="kill", whom="ledger")


def record(*claims: tuple[int, float, float, str | None]) -> Record:
    """User, ms of sending and answer, and the order that the claim brought."""
    attempts = Attempts(len(claims))
    for i, (_, sent_ms, done_ms, order) in enumerate(claims):
        attempts.sent_ns[i] = round(sent_ms * 1e6)
        outcome = Outcome.SOLD if order else Outcome.SHED
        attempts.settle(i, round(done_ms * 1e6), Answer(outcome, 200, order))
    users = array("q", [user for user, *_ in claims])
    empty = array("q", [0] * len(claims))
    return Record(
        {},
        PlanColumns(empty, users, array("q", [1] * len(claims)), empty, empty, 1),
        attempts,
        True,
    )


def forgot(*span_ms: float) -> FaultRecord:
    first, last = span_ms
    return FaultRecord(
        what="flush", whom="ledger", told="", planned_ms=first, behind_ms=(first, last)
    )


def failed(**orders: list[tuple[int, int]]) -> Mapping[str, CheckResult]:
    """Checks that failed, by name, with the orders and users that each found."""
    return {
        name: CheckResult(
            name,
            Verdict.FAIL,
            "",
            tuple(violation("broken", [Offence("", 1, user, order) for order, user in found])),
        )
        for name, found in orders.items()
    }


def test_only_claims_from_before_a_ledger_forgot_can_be_forgotten() -> None:
    found = record((1, 10, 20, "101"), (2, 90, 120, "102"), (3, 110, 130, "103"), (4, 20, 30, None))
    assert accepted_before(found, [forgot(100, 500)]) == {101: 1, 102: 2}
    assert accepted_before(found, []) == {}


@pytest.mark.parametrize(
    ("claims", "broken"),
    [
        ([(1, 200, 300, "101")], [SOLD_BEHIND]),
        ([(1, 90, 300, "101")], []),  # sent before
        ([(1, 200, 600, "101")], []),  # answered after
        ([(1, 200, 300, None)], []),
        ([(1, 50, 80, None), (1, 200, 300, "101")], []),  # told of what it had won before
        ([(2, 50, 80, None), (1, 200, 300, "101")], [SOLD_BEHIND]),
    ],
)
def test_who_is_behind_sells_nothing(
    claims: list[tuple[int, float, float, str | None]], broken: list[str]
) -> None:
    assert sold_behind(record(*claims), [forgot(100, 500)]) == broken
    assert sold_behind(record(*claims), []) == []


def on(*vouchers: int) -> PlanColumns:
    """A plan of claims on these, each by a user of its own."""
    users, things = array("q", range(len(vouchers))), array("q", vouchers)
    empty = array("q", [0] * len(vouchers))
    return PlanColumns(empty, users, things, empty, empty, 1)


def test_a_sale_sells_again_when_each_of_its_lanes_does() -> None:
    claims = [(1, 10, 20, "1"), (2, 110, 130, "2"), (3, 120, 160, "3"), (4, 130, 190, "4")]
    found = record(*claims)
    whole = recovery_of(found, 100, SINGLE.lanes)
    assert (whole.sent, whole.sold_s) == (3, 0.03)
    lanes = [CLUSTER.of(1), CLUSTER.of(2)]
    parted = recovery_of(replace(found, plan=on(1, 1, 1, 2)), 100, lanes)
    assert (parted.sent, list(parted.lanes.values()), parted.sold_s) == (3, [0.03, 0.09], 0.09)
    half = recovery_of(replace(found, plan=on(2, 1, 1, 1)), 100, lanes)
    assert (half.sent, list(half.lanes.values()), half.sold_s) == (3, [0.03, None], None)


def test_a_loss_is_excused_for_what_was_claimed_before_and_for_nothing_else() -> None:
    before = {101: 1, 102: 2}
    lost = failed(accepted_persisted=[(101, 1)])
    assert "accepted_persisted" in _excused(dict(lost), [FLUSH], before)
    assert not _excused(dict(lost), [KILL], before)
    later = failed(accepted_persisted=[(101, 1), (103, 3)])
    assert not _excused(dict(later), [FLUSH], before)
    assert not _excused({}, [FLUSH], before), "nothing is lost, so every rule holds"
    assert _excused(dict(later), [FLUSH, POISON], before) == {"queue_empty"}


def test_who_lost_an_order_may_be_promised_another_and_nobody_else_may() -> None:
    before, lost = {101: 1}, [(101, 1)]
    again = failed(accepted_persisted=lost, one_per_user=[(101, 1)])
    assert "one_per_user" in _excused(dict(again), [FLUSH], before)
    other = failed(accepted_persisted=lost, one_per_user=[(205, 5)])
    assert "one_per_user" not in _excused(dict(other), [FLUSH], before)
