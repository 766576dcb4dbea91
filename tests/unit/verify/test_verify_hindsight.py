"""Judging a run when others have sold on since: their orders out of sight, its own faults not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from rig.sale_world import (
    BEGIN_MS,
    CLOCKS,
    END_MS,
    STREAM,
    World,
    broken,
    doubts,
    findings,
    violations,
)

from flashsale.model import Outcome, PayStatus, Verdict
from flashsale.verify.attempts import RunRecord
from flashsale.verify.ending import Ending, SaleAtEnd, as_of, span_of
from flashsale.verify.observation import Position
from flashsale.verify.queue import Queue, Span
from flashsale.verify.snapshot import Snapshot, join
from flashsale.verify.stores import Terms

OVER_MS = BEGIN_MS + 1_000
CLAIM_MS = 200
LATER_MS = OVER_MS + CLAIM_MS + 1


@pytest.fixture
def world() -> World:
    """Ten units: one sold before, three in the run. One user had no answer."""
    world = World(units=10)
    world.sell(9, 109)
    world.start()
    for user in (1, 2, 3):
        world.buy(user, 100 + user)
    world.say(4, Outcome.INDETERMINATE)
    return world


def ending(world: World, **changes: object) -> Ending:
    mysql, ledger = world.mysql, world.ledger
    terms = Terms(ledger.get("initial"), ledger.get("begin_ms"), ledger.get("end_ms"))
    whole = Ending(
        clocks=replace(CLOCKS, redis_ms=OVER_MS, mysql_ms=OVER_MS),
        claim_ms=CLAIM_MS,
        position=Position("5-0"),
        sales={1: SaleAtEnd(mysql, terms)},
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def in_hindsight(world: World, end: Ending, queue: Queue = STREAM) -> Snapshot:
    attempts = RunRecord("run-1", "test", {1: world.record()})
    seen = as_of(end, world.observation(queue), attempts, world.before)
    snapshot = join(attempts, world.before, seen)
    return replace(snapshot, ending=end, sightings=world.sightings)


def sell_later(world: World, user: int, order: int, **row: int) -> None:
    world.sell(user, order, created_ms=LATER_MS, persisted_ms=LATER_MS + 50, **row)
    world.newer[order] = user


def second_run(world: World) -> None:
    """What another storm leaves behind: sales, one cancelled, one of them still queued."""
    for user in (21, 22, 23):
        sell_later(world, user, 100 + user)
    world.end(123)
    world.sell_in_ledger(24, 124)


SECOND_QUEUE = replace(STREAM, newer={121: 21, 122: 22, 123: 23, 124: 24})


def test_later_orders_are_nobodys_of_this_run(world: World) -> None:
    end = ending(world)
    second_run(world)
    assert broken(world.snapshot())  # without the end: phantoms, and books that include them
    snapshot = in_hindsight(world, end, SECOND_QUEUE)
    assert broken(snapshot) == set()
    assert snapshot.persisted == 3
    (told,) = findings(snapshot, "no_phantom", Verdict.PASS)
    assert str(told) == "sold after this run, so not judged here: voucher 1: 4 orders"


def test_where_nothing_came_later_nothing_changes(world: World) -> None:
    seen = world.observation()
    attempts = RunRecord("run-1", "test", {1: world.record()})
    found = as_of(ending(world), seen, attempts, world.before)
    assert found.rows == seen.rows
    assert (found.ledger, found.mysql, found.later) == (seen.ledger, seen.mysql, {})


def test_a_later_restock_and_a_later_opening_are_not_this_runs(world: World) -> None:
    end = ending(world)
    world.restock(5)
    world.ledger["end_ms"] = END_MS + 5
    for user in range(30, 41):
        sell_later(world, user, 100 + user)
    snapshot = in_hindsight(world, end)
    assert broken(snapshot) == set()
    assert snapshot.sales[0].initial == 10
    assert snapshot.sales[0].ledger.end_ms == END_MS


def test_a_restock_in_one_store_alone_is_no_restock(world: World) -> None:
    end = ending(world)
    world.ledger["initial"] += 1
    world.ledger["stock"] += 1
    assert broken(in_hindsight(world, end)) == {"redis_conservation"}


def test_a_user_who_cancelled_and_came_back_later_is_fine(world: World) -> None:
    end = ending(world)
    world.end(101)
    sell_later(world, 1, 201)
    assert broken(in_hindsight(world, end)) == set()


# Late claims of this run.


def test_a_late_sale_of_a_claim_without_an_answer_is_this_runs(world: World) -> None:
    end = ending(world)
    world.sell(4, 104, created_ms=OVER_MS + CLAIM_MS)
    snapshot = in_hindsight(world, end)
    assert broken(snapshot) == set()
    assert snapshot.persisted == 4


def test_a_sale_past_its_deadline_is_a_later_one(world: World) -> None:
    end = ending(world)
    sell_later(world, 4, 104)
    assert in_hindsight(world, end).persisted == 3


def test_an_order_that_the_run_was_told_of_is_its_own_whatever_the_clock_says(
    world: World,
) -> None:
    end = ending(world)
    world.say(5, Outcome.SOLD, 105)
    sell_later(world, 5, 105)
    snapshot = in_hindsight(world, end)
    assert broken(snapshot) == set()
    assert snapshot.persisted == 4


# Faults of this run, found after the next.


def _row_lost(world: World) -> None:
    world.rows.remove(world.row(102))


def _phantom(world: World) -> None:
    world.sell(77, 177)


def _unit_added_in_mysql(world: World) -> None:
    world.move_mysql_stock(1)


def _unit_added_in_redis(world: World) -> None:
    world.ledger["stock"] += 1


def _member_lost(world: World) -> None:
    world.members.discard(2)


def _second_row(world: World) -> None:
    world.persist(2, 202)


def _sold_outside_the_window(world: World) -> None:
    world.sightings[102] = (BEGIN_MS - 1, BEGIN_MS - 1)


def _turned_away(world: World) -> None:
    world.say(8, Outcome.SOLD_OUT)


def _lying_duplicate(world: World) -> None:
    world.say(8, Outcome.DUPLICATE, 444)


def _oversold(world: World) -> None:
    for user in range(40, 47):
        world.buy(user, 100 + user)


@pytest.mark.parametrize(
    ("fault", "check", "named"),
    [
        (_row_lost, "accepted_persisted", "order 102, user 2"),
        (_phantom, "no_phantom", "order 177, user 77"),
        (_unit_added_in_mysql, "mysql_conservation", "initial 10"),
        (_unit_added_in_redis, "redis_conservation", "but initial 10"),
        (_member_lost, "redis_conservation", "order 102, user 2"),
        (_second_row, "one_per_user", "order 202, user 2"),
        (_sold_outside_the_window, "window", "order 102, user 2"),
        (_turned_away, "no_undersell", "user 8"),
        (_lying_duplicate, "duplicate_truthful", "order 444, user 8"),
        (_oversold, "no_oversell", "order 146, user 46"),
    ],
)
@pytest.mark.parametrize("then", [lambda world: None, second_run], ids=["at once", "later"])
def test_a_fault_is_found_after_the_next_run_as_before_it(
    world: World,
    fault: Callable[[World], None],
    check: str,
    named: str,
    then: Callable[[World], None],
) -> None:
    fault(world)
    end = ending(world)
    then(world)
    assert named in violations(in_hindsight(world, end, SECOND_QUEUE), check)


def test_units_that_the_next_run_sells_do_not_excuse_this_one(world: World) -> None:
    """Told "sold out" with six units left; the next run sells them all, one to the same user."""
    world.say(8, Outcome.SOLD_OUT)
    end = ending(world)
    for user in (8, 31, 32, 33, 34, 35):
        sell_later(world, user, 100 + user)
    assert "told “sold out”, yet 6 of 10" in violations(in_hindsight(world, end), "no_undersell")


def test_a_later_restock_does_not_excuse_an_oversell(world: World) -> None:
    _oversold(world)
    end = ending(world)
    world.restock(50)
    assert "11 orders for 10 units" in violations(in_hindsight(world, end), "no_oversell")


# Orders that only look later.


def test_a_row_put_there_by_hand_is_a_phantom_at_any_time(world: World) -> None:
    end = ending(world)
    world.rows.append(replace(world.rows[0], order=177, user=77, created_ms=LATER_MS))
    assert "order 177, user 77" in violations(in_hindsight(world, end), "no_phantom")


def test_a_receipt_without_row_or_entry_is_a_phantom_at_any_time(world: World) -> None:
    end = ending(world)
    world.sell_in_ledger(77, 177)
    assert "order 177, user 77" in violations(in_hindsight(world, end), "no_phantom")


def test_a_row_without_a_time_is_not_later(world: World) -> None:
    end = ending(world)
    world.sell(77, 177, created_ms=-1)
    assert "order 177, user 77" in violations(in_hindsight(world, end), "no_phantom")


def test_a_row_with_a_receipt_that_no_entry_tells_of_is_a_phantom_at_any_time(
    world: World,
) -> None:
    end = ending(world)
    world.sell(77, 177, created_ms=LATER_MS)
    assert "order 177, user 77" in violations(in_hindsight(world, end), "no_phantom")


def test_a_row_with_an_entry_that_the_ledger_gave_no_receipt_for_is_a_phantom(
    world: World,
) -> None:
    end = ending(world)
    sell_later(world, 77, 177)
    del world.receipts[77]
    assert "order 177, user 77" in violations(in_hindsight(world, end), "no_phantom")


def test_a_later_order_never_hides_a_winners_second_row(world: World) -> None:
    """The ledger's receipt and the stream both know it: the winner has two rows all the same."""
    end = ending(world)
    sell_later(world, 2, 202)
    assert "order 202, user 2" in violations(in_hindsight(world, end), "one_per_user")


def test_what_the_stream_can_no_longer_tell_is_a_doubt_and_no_blame(world: World) -> None:
    end = ending(world)
    second_run(world)
    world.newer.clear()
    trimmed = replace(STREAM, first_entry=f"{LATER_MS + 900}-0", last_entry=f"{LATER_MS + 900}-0")
    snapshot = in_hindsight(world, end, replace(trimmed, newer={124: 24}))
    assert broken(snapshot) == set()
    assert doubts(snapshot, "no_phantom") == (
        "only a clock says that it was sold after this run: voucher 1: 3 orders"
    )


# Systems of the family that give no receipts: rows are timed by MySQL.


@pytest.fixture
def plain() -> World:
    """Only stock and order set in the ledger."""
    world = World(units=5)
    world.ledger = {"stock": 5}
    world.start()
    for user in (1, 2):
        world.buy(user, 100 + user)
        world.receipts.clear()
    return world


def test_without_receipts_rows_written_later_are_later(plain: World) -> None:
    end = ending(plain)
    sell_later(plain, 21, 121)
    sell_later(plain, 22, 122, status=PayStatus.CANCELLED)
    plain.receipts.clear()
    plain.members.discard(22)
    plain.ledger["stock"] += 1
    plain.move_mysql_stock(1)
    assert broken(in_hindsight(plain, end)) == set()


def test_a_backlog_at_the_end_is_nobodys_phantom(plain: World) -> None:
    """Written after the end, by a system without receipts: the run's own, or a later one's."""
    end = ending(plain, backlog=1)
    plain.sell(21, 121, created_ms=LATER_MS)
    plain.receipts.clear()
    snapshot = in_hindsight(plain, end)
    assert broken(snapshot) == set()
    assert "voucher 1: 1 orders" in doubts(snapshot, "no_phantom")


def test_a_backlog_of_the_run_at_its_end_is_the_runs_own(world: World) -> None:
    world.say(5, Outcome.SOLD, 105)
    world.sell_in_ledger(5, 105)
    end = ending(world, backlog=1)
    world.persist(5, 105, persisted_ms=LATER_MS)
    second_run(world)
    snapshot = in_hindsight(world, end, SECOND_QUEUE)
    assert broken(snapshot) == set()
    assert snapshot.persisted == 4


# The queue.


def test_what_was_trimmed_when_nothing_of_the_run_was_unread_is_not_its_loss(
    world: World,
) -> None:
    trimmed = replace(STREAM, trimmed=3)
    world.rows.pop()  # the run lost an order, be it by this or otherwise
    assert not violations(in_hindsight(world, ending(world), trimmed), "queue_empty")
    for end in (ending(world, trimmed=1), ending(world, backlog=1)):
        assert violations(in_hindsight(world, end, trimmed), "queue_empty")


def test_a_stream_flushed_when_nothing_of_the_run_was_unread_is_not_its_loss(world: World) -> None:
    flushed = replace(STREAM, last_entry="1-0", added=1)
    world.rows.pop()
    assert not violations(in_hindsight(world, ending(world), flushed), "queue_empty")
    unread = in_hindsight(world, ending(world, backlog=1), flushed)
    assert "began anew" in violations(unread, "queue_empty")
    before_the_end = ending(world, position=Position("4-0"))
    assert "began anew" in violations(in_hindsight(world, before_the_end, flushed), "queue_empty")


@pytest.mark.parametrize(
    ("claims", "last", "until"),
    [
        ([Outcome.SOLD], "5-0", f"{OVER_MS}-{2**64 - 1}"),
        ([Outcome.INDETERMINATE], "5-0", f"{OVER_MS + CLAIM_MS}-{2**64 - 1}"),
        ([Outcome.SOLD], f"{OVER_MS + 9}-3", f"{OVER_MS + 9}-3"),  # the clock was set back
    ],
)
def test_the_runs_part_of_the_queue(claims: list[Outcome], last: str, until: str) -> None:
    world = World()
    for user, outcome in enumerate(claims, 1):
        world.say(user, outcome)
    attempts = RunRecord("run-1", "test", {1: world.record()})
    end = ending(world, position=Position(last))
    assert span_of(attempts, world.before, end) == Span("5-0", "0-0", until)
    assert span_of(attempts, None, None) == Span()


def test_a_sale_that_has_gone_since_is_not_hidden(world: World) -> None:
    end = ending(world)
    world.mysql, world.ledger = None, {}
    found = in_hindsight(world, end)
    assert broken(found) >= {"mysql_conservation", "redis_conservation"}
    assert found.sales[0].mysql is None
