"""Orders and promises: a good history and a broken one for every rule about them."""

from dataclasses import replace

import pytest
from rig.sale_world import (
    BEGIN_MS,
    CLOCKS,
    END_MS,
    STREAM,
    Row,
    World,
    broken,
    doubts,
    findings,
    together,
    violations,
)

from flashsale.model import Outcome, PayStatus, Verdict
from flashsale.verify.attempts import GARBLED, NEVER, NO_ORDER
from flashsale.verify.observation import Position
from flashsale.verify.queue import Backlog, Queue, QueueEntry
from flashsale.verify.verdict import judge

QUEUED = Queue(exists=True, last_entry="9-0", backlog=Backlog(undelivered=1))


@pytest.fixture
def world() -> World:
    """Ten units, two sold."""
    world = World(units=10)
    world.buy(1, 101)
    world.buy(2, 102)
    return world


# one_per_user


def test_two_live_rows_of_one_user_are_named(world: World) -> None:
    world.buy(1, 103)
    found = violations(world.snapshot(), "one_per_user")
    assert "order 101, user 1, voucher 1: one of 2 live orders of this user" in found
    assert "order 103, user 1" in found
    assert "user 2" not in found


def test_a_second_promise_is_named_though_mysql_refused_it(world: World) -> None:
    world.say(1, Outcome.SOLD, 103)
    found = violations(world.snapshot(), "one_per_user")
    assert "order 103, user 1, voucher 1: promised besides order 101" in found


def test_buying_again_after_a_cancellation_is_fine(world: World) -> None:
    world.end(101)
    world.buy(1, 103)
    assert broken(world.snapshot()) == set()


def test_one_order_of_each_voucher_is_fine(world: World) -> None:
    other = World(units=5, voucher=2)
    other.buy(1, 201)
    assert broken(together([world, other])) == set()


def test_the_same_order_told_twice_is_one_order(world: World) -> None:
    world.say(1, Outcome.SOLD, 101)
    snapshot = world.snapshot()
    assert broken(snapshot) == set()
    assert snapshot.accepted == 2


def test_an_order_besides_one_from_before_is_named(world: World) -> None:
    world.claims.clear()
    world.start()
    world.say(1, Outcome.SOLD, 103)
    found = violations(world.snapshot(), "one_per_user")
    assert "order 103, user 1, voucher 1: promised besides order 101" in found


def test_an_order_besides_an_unanswered_one_that_sold_is_named(world: World) -> None:
    world.say(3, Outcome.INDETERMINATE)
    world.sell(3, 103)
    world.say(3, Outcome.SOLD, 104)
    assert "promised besides order 103" in violations(world.snapshot(), "one_per_user")


def test_doubles_from_before_are_not_this_runs(world: World) -> None:
    world.rows.append(Row(103, 1))
    world.claims.clear()
    world.start()
    assert not violations(world.snapshot(), "one_per_user")


def test_one_order_under_a_changed_id_is_no_double(world: World) -> None:
    world.row(101).order = 999
    assert not violations(world.snapshot(), "one_per_user")


# unique_ids


def test_one_id_for_two_users_is_named(world: World) -> None:
    world.say(3, Outcome.SOLD, 101)
    found = violations(world.snapshot(), "unique_ids")
    assert "order 101, user 3, voucher 1: also the id of an order of user 1" in found


def test_one_id_in_two_receipts_is_named(world: World) -> None:
    world.receipts[5] = 101
    assert "order 101, user 5" in violations(world.snapshot(), "unique_ids")


def test_one_id_in_two_sales_is_named(world: World) -> None:
    other = World(units=5, voucher=2)
    other.buy(1, 101)
    found = violations(together([world, other]), "unique_ids")
    assert "order 101, user 1, voucher 2: also the id of an order of voucher 1" in found


def test_one_id_in_two_rows_is_named(world: World) -> None:
    world.rows.append(Row(101, 1, PayStatus.CANCELLED))
    assert "a second row under this id" in violations(world.snapshot(), "unique_ids")


def test_an_id_from_before_the_run_is_named(world: World) -> None:
    world.claims.clear()
    world.start()
    world.say(1, Outcome.SOLD, 101)
    found = violations(world.snapshot(), "unique_ids")
    assert "order 101, user 1, voucher 1: answered as sold, but older than the run" in found


def test_learning_of_an_order_from_before_is_fine(world: World) -> None:
    world.claims.clear()
    world.start()
    world.say(1, Outcome.INDETERMINATE, resolved=101)
    world.say(2, Outcome.DUPLICATE, 102)
    assert broken(world.snapshot()) == set()


# accepted_persisted


def test_a_deleted_row_is_named(world: World) -> None:
    world.rows.pop()
    found = violations(world.snapshot(), "accepted_persisted")
    assert found == "promised, but no row: order 102, user 2, voucher 1: no row"


def test_what_the_status_route_promised_is_a_promise(world: World) -> None:
    world.say(3, Outcome.UNKNOWN, resolved=103)
    assert "order 103, user 3" in violations(world.snapshot(), "accepted_persisted")
    world.sell(3, 103)
    assert broken(world.snapshot()) == set()


def test_an_unanswered_claim_promises_nothing(world: World) -> None:
    world.say(3, Outcome.UNKNOWN, 103)
    world.say(4, Outcome.INDETERMINATE)
    assert broken(world.snapshot()) == set()


def test_a_row_under_another_id_names_both(world: World) -> None:
    world.row(102).order = 999
    found = violations(world.snapshot(), "accepted_persisted")
    assert "order 102, user 2, voucher 1: no row; the user's row is order 999" in found


def test_a_row_of_another_user_is_named(world: World) -> None:
    world.row(102).user = 7
    found = violations(world.snapshot(), "accepted_persisted")
    assert "order 102, user 2, voucher 1: the row is of user 7" in found


def test_a_row_of_another_voucher_is_named(world: World) -> None:
    world.rows.pop()
    snapshot = world.snapshot()
    object.__setattr__(snapshot, "strays", {102: (2, 9)})
    found = violations(snapshot, "accepted_persisted")
    assert found.endswith("order 102, user 2, voucher 1: the row is of user 2, voucher 9")


def test_a_dead_letter_tells_its_reason(world: World) -> None:
    world.rows.pop()
    queue = Queue(exists=True, dead_reasons={102: "short stock"})
    found = violations(world.snapshot(queue), "accepted_persisted")
    assert "order 102, user 2, voucher 1: a dead letter (short stock)" in found


def test_a_cancelled_order_was_persisted(world: World) -> None:
    world.end(102)
    assert not violations(world.snapshot(), "accepted_persisted")


def test_while_orders_are_queued_a_missing_row_is_in_doubt(world: World) -> None:
    world.rows.pop()
    assert not violations(world.snapshot(QUEUED), "accepted_persisted")
    assert "order 102, user 2, voucher 1: no row yet" in doubts(
        world.snapshot(QUEUED), "accepted_persisted"
    )


def test_a_promise_without_an_id_needs_a_row_of_its_user(world: World) -> None:
    world.say(3, Outcome.SOLD)
    world.say(4, Outcome.SOLD)
    world.sell(4, 104)
    found = violations(world.snapshot(), "accepted_persisted")
    assert found == "promised, but no row: user 3, voucher 1: no row of this user"
    assert world.snapshot().accepted == 4
    assert not violations(world.snapshot(), "unique_ids")


def test_a_promise_under_garbage_is_named(world: World) -> None:
    world.say(3, Outcome.SOLD, GARBLED, garbled="1e9")
    found = violations(world.snapshot(), "accepted_persisted")
    assert "user 3, voucher 1: sold, under '1e9' as the order id" in found


def test_offenders_are_counted_and_the_first_twenty_named() -> None:
    world = World(units=100)
    for user in range(1, 31):
        world.buy(user, 1000 + user)
    world.rows.clear()
    (finding,) = findings(world.snapshot(), "accepted_persisted", Verdict.FAIL)
    assert (finding.total, len(finding.offences)) == (30, 20)
    assert str(finding).endswith("; and 10 more")


# no_phantom


def test_a_row_of_a_stranger_is_a_phantom(world: World) -> None:
    world.sell(77, 177)
    found = violations(world.snapshot(), "no_phantom")
    assert "order 177, user 77, voucher 1: a row that no claim explains" in found
    assert "the user is not in the plan" in found


@pytest.mark.parametrize(
    "outcome",
    [Outcome.SOLD_OUT, Outcome.SHED, Outcome.UNSENT, Outcome.REFUSED, Outcome.DUPLICATE],
)
def test_a_row_of_a_user_who_was_refused_is_a_phantom(world: World, outcome: Outcome) -> None:
    world.say(3, outcome)
    world.sell(3, 103)
    found = violations(world.snapshot(), "no_phantom")
    assert (
        f"order 103, user 3, voucher 1: a row that no claim explains; the user was told {outcome}"
        in found
    )


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.INDETERMINATE])
def test_a_claim_without_an_answer_may_have_sold(world: World, outcome: Outcome) -> None:
    world.say(3, outcome, sent_us=NEVER, done_us=NEVER)
    world.sell(3, 103)
    assert broken(world.snapshot()) == set()


def test_two_unanswered_claims_explain_two_orders(world: World) -> None:
    world.say(3, Outcome.INDETERMINATE)
    world.say(3, Outcome.INDETERMINATE)
    world.sell(3, 103)
    world.end(103)
    world.sell(3, 104)
    assert broken(world.snapshot()) == set()


def test_one_unanswered_claim_explains_one_order(world: World) -> None:
    world.say(3, Outcome.INDETERMINATE)
    world.sell(3, 103)
    world.end(103)
    world.sell(3, 104)
    assert "order 104, user 3" in violations(world.snapshot(), "no_phantom")


def test_a_timed_out_claim_and_its_retry_explain_one_order(world: World) -> None:
    world.say(3, Outcome.INDETERMINATE)
    world.sell(3, 103)
    world.say(3, Outcome.DUPLICATE, 103)
    assert broken(world.snapshot()) == set()


@pytest.mark.parametrize("answered_first", [True, False])
def test_clicks_of_which_one_sold_and_one_was_resolved_are_one_order(
    world: World, answered_first: bool
) -> None:
    """Whichever of them comes first in the plan, the order was told of by its answer."""
    lost = (Outcome.INDETERMINATE, NO_ORDER, 103)
    clicks = [(Outcome.SOLD, 103, NO_ORDER), lost]
    before = world.snapshot().accepted
    for outcome, order, resolved in clicks if answered_first else reversed(clicks):
        world.say(3, outcome, order, resolved=resolved)
    world.say(3, Outcome.DUPLICATE, 103)
    world.sell(3, 103)
    assert broken(world.snapshot()) == set()
    assert world.snapshot().accepted == before + 1


def test_two_clicks_that_sold_are_named(world: World) -> None:
    world.buy(3, 103)
    world.buy(3, 104)
    found = violations(world.snapshot(), "one_per_user")
    assert "order 103, user 3" in found
    assert "order 104, user 3" in found


def test_a_claim_that_was_resolved_explains_no_second_order(world: World) -> None:
    world.say(3, Outcome.INDETERMINATE, resolved=103)
    world.sell(3, 103)
    world.end(103)
    world.sell(3, 104)
    assert "order 104, user 3" in violations(world.snapshot(), "no_phantom")


def test_a_receipt_that_nobody_asked_for_is_a_phantom(world: World) -> None:
    world.say(3, Outcome.SOLD_OUT)
    world.sell_in_ledger(3, 103)
    found = violations(world.snapshot(QUEUED), "no_phantom")
    assert "order 103, user 3, voucher 1: a receipt that no claim explains" in found


def test_a_changed_id_is_a_phantom(world: World) -> None:
    world.row(102).order = 999
    assert "order 999, user 2" in violations(world.snapshot(), "no_phantom")


def test_orders_from_before_are_no_phantoms(world: World) -> None:
    world.sell(77, 177)
    world.sell(78, 178)
    world.end(178)
    world.sell_in_ledger(79, 179)
    world.sell_in_ledger(80, 180)  # and never becomes a row
    world.claims.clear()
    world.start()
    world.persist(79, 179)
    world.buy(3, 103)
    assert broken(world.snapshot()) == set()
    assert world.snapshot().persisted == 1


def test_without_a_baseline_only_the_unexplained_is_in_doubt(world: World) -> None:
    world.before = None
    assert doubts(world.snapshot(), "no_phantom") == ""
    world.sell(77, 177)
    assert not violations(world.snapshot(), "no_phantom")
    assert "order 177" in doubts(world.snapshot(), "no_phantom")


# window


def sold_at(world: World, order: int, queued_ms: int, script_ms: int | None = None) -> None:
    """The entry of an order: its id, and the script's time in it."""
    world.sightings[order] = (queued_ms, queued_ms if script_ms is None else script_ms)


@pytest.mark.parametrize(
    ("sold_ms", "text"),
    [
        (BEGIN_MS - 1, "sold 1 ms before it began"),
        (END_MS, "sold 0 ms past its end"),
        (END_MS + 5000, "sold 5,000 ms past its end"),
    ],
)
def test_an_order_outside_the_window_is_named(world: World, sold_ms: int, text: str) -> None:
    sold_at(world, 102, sold_ms)
    found = violations(world.snapshot(), "window")
    assert f"order 102, user 2, voucher 1: {text}" in found
    assert broken(world.snapshot()) == {"window"}


@pytest.mark.parametrize("sold_ms", [BEGIN_MS, END_MS - 1])
def test_both_edges_of_the_window(world: World, sold_ms: int) -> None:
    sold_at(world, 102, sold_ms)
    assert not violations(world.snapshot(), "window")


@pytest.mark.parametrize("created_ms", [BEGIN_MS - 1, END_MS + 5000, NEVER])
def test_the_clock_of_a_row_convicts_nobody(world: World, created_ms: int) -> None:
    world.row(102).created_ms = created_ms
    assert not findings(world.snapshot(), "window", Verdict.FAIL)
    assert not doubts(world.snapshot(), "window")


def test_the_stream_tells_the_time_where_the_rows_clock_says_otherwise(world: World) -> None:
    sold_at(world, 102, END_MS)
    world.row(102).created_ms = BEGIN_MS + 5
    assert "order 102" in violations(world.snapshot(), "window")


def test_an_order_that_was_queued_again_later_was_sold_when_the_script_said(world: World) -> None:
    sold_at(world, 102, END_MS + 60_000, BEGIN_MS + 5)
    assert not violations(world.snapshot(), "window")


def test_a_clock_that_was_set_back_sells_nothing_too_early(world: World) -> None:
    sold_at(world, 102, BEGIN_MS + 5, BEGIN_MS - 60_000)
    assert not violations(world.snapshot(), "window")


def test_an_order_without_an_entry_is_judged_by_its_row_and_that_is_told(world: World) -> None:
    del world.sightings[102]
    (told,) = findings(world.snapshot(), "window", Verdict.PASS)
    assert str(told) == "no entry any more, so judged by the row: voucher 1: 1 orders"
    world.row(102).created_ms = END_MS
    assert not violations(world.snapshot(), "window")
    assert "order 102, user 2, voucher 1: its entry is gone" in doubts(world.snapshot(), "window")


def test_a_sale_that_was_open_throughout_the_run_needs_no_entries(world: World) -> None:
    assert world.before is not None
    world.before = replace(world.before, clocks=replace(CLOCKS, redis_ms=BEGIN_MS))
    world.sightings.clear()
    world.row(102).created_ms = END_MS
    assert not findings(world.snapshot(), "window", Verdict.FAIL)
    assert not findings(world.snapshot(), "window", Verdict.UNKNOWN)
    assert not findings(world.snapshot(), "window", Verdict.PASS)


def test_orders_from_before_the_run_are_not_judged_by_its_window(world: World) -> None:
    sold_at(world, 102, END_MS + 1)
    world.claims.clear()
    world.start()
    assert not violations(world.snapshot(), "window")


def test_a_sale_that_was_closed_early_keeps_its_orders(world: World) -> None:
    sold_at(world, 102, END_MS - 10)
    world.ledger["end_ms"] = END_MS - 100
    assert not violations(world.snapshot(), "window")


def test_without_terms_in_the_ledger_mysqls_window_counts(world: World) -> None:
    world.ledger.update(has_terms=False, begin_ms=None, end_ms=None, initial=None)
    world.start()
    world.buy(3, 103)
    sold_at(world, 103, END_MS)
    assert "order 103" in violations(world.snapshot(), "window")


def test_a_sale_without_a_window_is_in_doubt(world: World) -> None:
    world.ledger.update(begin_ms=None, end_ms=None)
    world.before = None
    assert "no window is known" in doubts(world.snapshot(), "window")


def test_an_order_that_is_still_queued_is_in_doubt(world: World) -> None:
    world.rows.pop()
    assert "order 102" in doubts(world.snapshot(QUEUED), "window")


# queue_empty


def test_an_empty_queue_passes(world: World) -> None:
    assert not violations(world.snapshot(), "queue_empty")


def test_what_is_stuck_is_named(world: World) -> None:
    stuck = (QueueEntry("7-0", 102, 2, 1, "pending with c1 for 40 s after 3 deliveries"),)
    queue = replace(STREAM, backlog=Backlog(undelivered=30, pending=1), stuck=stuck)
    (finding,) = findings(world.snapshot(queue), "queue_empty", Verdict.FAIL)
    assert finding.total == 31
    assert "order 102, user 2, voucher 1, entry 7-0: pending with c1 for 40 s" in str(finding)
    assert str(finding).endswith("; and 30 more")


def test_dead_letters_are_named(world: World) -> None:
    dead = (QueueEntry("7-0", 102, 2, 1, "short stock"),)
    queue = replace(STREAM, dead=dead, dead_total=1)
    found = violations(world.snapshot(queue), "queue_empty")
    assert found == "dead letters: order 102, user 2, voucher 1, entry 7-0: short stock"


def test_entries_trimmed_unread_are_counted(world: World) -> None:
    world.rows.pop()
    found = violations(world.snapshot(replace(STREAM, trimmed=3)), "queue_empty")
    assert "3 entries were removed before any worker was given them" in found


def test_one_entry_trimmed_unread_is_enough_and_counts_from_the_baseline(world: World) -> None:
    world.rows.pop()
    assert violations(world.snapshot(replace(STREAM, trimmed=1)), "queue_empty")
    assert world.before is not None
    world.before = replace(world.before, trimmed=1)
    assert not violations(world.snapshot(replace(STREAM, trimmed=1)), "queue_empty")
    found = violations(world.snapshot(replace(STREAM, trimmed=3)), "queue_empty")
    assert "2 entries" in found


BEGAN_ANEW = replace(STREAM, last_entry="4-9")


@pytest.mark.parametrize(
    "queue", [replace(STREAM, trimmed=1), replace(STREAM, lost_total=1), BEGAN_ANEW]
)
def test_a_run_that_was_repaired_and_kept_its_promises_passes_with_a_remark(
    world: World, queue: Queue
) -> None:
    judgement = judge(world.snapshot(queue))
    assert judgement.verdict == Verdict.PASS
    (told,) = findings(world.snapshot(queue), "queue_empty", Verdict.PASS)
    assert told.rule == "lost unread, and restored since"


@pytest.mark.parametrize("of", ["word", "receipt"])
def test_a_run_whose_repair_left_a_promise_out_does_not_pass(world: World, of: str) -> None:
    if of == "word":
        world.say(3, Outcome.SOLD, 103)
    else:
        world.sell_in_ledger(3, 103)
    for queue in (replace(STREAM, trimmed=1), replace(STREAM, lost_total=1), BEGAN_ANEW):
        assert "lost unread" in violations(world.snapshot(queue), "queue_empty")


@pytest.mark.parametrize(
    ("then", "now", "lost"),
    [
        (("5-0", 5), ("5-0", 5), False),
        (("5-0", 5), ("9-0", 7), False),
        (("5-0", 5), ("4-0", 5), True),  # flushed and nothing sold since
        (("5-0", 5), ("9-0", 4), True),  # flushed and sold on
        (("5-0", None), ("9-0", 4), False),  # a baseline of an earlier version did not count
    ],
)
def test_a_stream_that_was_flushed_is_a_loss(
    world: World, then: tuple[str, int | None], now: tuple[str, int], lost: bool
) -> None:
    world.rows.pop()
    assert world.before is not None
    world.before = replace(world.before, position=Position(then[0], added=then[1]))
    found = violations(
        world.snapshot(replace(STREAM, last_entry=now[0], added=now[1])), "queue_empty"
    )
    assert ("stream.orders began anew" in found) == lost


def test_an_order_whose_entry_is_gone_without_a_row_is_named(world: World) -> None:
    row = world.rows.pop()
    assert not violations(world.snapshot(), "queue_empty")  # read, and not written: the worker's
    del world.sightings[row.order]
    found = violations(world.snapshot(), "queue_empty")
    assert found == (
        "lost from the queue: order 102, user 2, voucher 1: its entry is gone from stream.orders, "
        "and there is no row"
    )
    dead = replace(STREAM, dead_reasons={102: "short stock"})
    assert not violations(world.snapshot(dead), "queue_empty")


def test_a_group_that_is_gone_is_named(world: World) -> None:
    found = violations(world.snapshot(replace(STREAM, has_group=False)), "queue_empty")
    assert "the group g1 of stream.orders is gone" in found


def test_a_stream_that_is_gone_is_a_loss(world: World) -> None:
    assert "stream.orders is gone" in violations(world.snapshot(Queue()), "queue_empty")
    world.receipts.clear()  # it was there before, so nothing else has to tell of it
    assert "stream.orders is gone" in violations(world.snapshot(Queue()), "queue_empty")


def test_orders_with_receipts_came_through_a_stream(world: World) -> None:
    world.before = None
    assert "stream.orders is gone" in violations(world.snapshot(Queue()), "queue_empty")


def test_a_sale_that_sold_nothing_needs_no_stream() -> None:
    world = World(units=3)
    world.before = None
    assert not violations(world.snapshot(Queue()), "queue_empty")
    assert not doubts(world.snapshot(Queue()), "queue_empty")


def test_a_system_without_a_stream_is_unknown(world: World) -> None:
    world.receipts.clear()
    world.before = None
    assert not violations(world.snapshot(Queue()), "queue_empty")
    assert "there is no stream.orders" in doubts(world.snapshot(Queue()), "queue_empty")
