"""The queue of a ledger of several lanes, as one: places in it, and what is added up."""

import pytest

from flashsale.keys import CLUSTER, WHOLE
from flashsale.verify.queue import (
    BEGINNING,
    NOW,
    Backlog,
    Queue,
    QueueEntry,
    Span,
    each_lane,
    entry_id,
    goes_back,
    is_past,
    together,
)

SIX = "1-0 2-0 3-0 4-0 5-0 6-0"


def test_a_span_has_a_part_in_each_lane() -> None:
    span = Span(SIX, BEGINNING, "10-1 20-1 30-1 40-1 50-1 60-1")
    assert span.of(CLUSTER.lanes[2]) == Span("3-0", BEGINNING, "30-1")
    assert Span("7-1").of(CLUSTER.lanes[2]) == Span("7-1", BEGINNING, NOW)
    assert span.of(WHOLE) == span


def test_a_place_is_past_another_where_any_lanes_is() -> None:
    assert not is_past(SIX, SIX)
    assert is_past("1-0 2-0 3-1 4-0 5-0 6-0", SIX)
    assert not is_past(SIX, NOW)
    assert is_past(SIX, BEGINNING)
    assert not is_past(BEGINNING, SIX)


def test_a_ledger_went_back_where_any_lane_did() -> None:
    assert not goes_back(SIX, SIX)
    assert not goes_back("9-0 9-0 9-0 9-0 9-0 9-0", SIX)
    assert goes_back("9-0 1-9 9-0 9-0 9-0 9-0", SIX)
    assert goes_back("1-0", "1-1")
    assert not goes_back(SIX, BEGINNING)


def test_places_are_read_and_changed_lane_by_lane() -> None:
    assert entry_id(SIX) == SIX
    with pytest.raises(ValueError):
        entry_id("1-0 x 3-0")
    assert each_lane(lambda one: f"{one}1", "1-0 2-0") == "1-01 2-01"


def test_queues_of_lanes_are_one_queue() -> None:
    lost, stuck = QueueEntry("1-1", 5, 6, 7, "no"), QueueEntry("2-2", 8, 9, 10, "pending")
    one = Queue(
        exists=True,
        added=3,
        first_entry="1-0",
        last_entry="1-9",
        backlog=Backlog(1, 2),
        dead=(lost,),
        dead_total=1,
        dead_reasons={5: "no"},
        newer={1: 2},
    )
    two = Queue(
        exists=True,
        has_group=False,
        added=4,
        last_entry="2-9",
        backlog=Backlog(3, 4),
        stuck=(stuck,),
        trimmed=5,
        lost_total=1,
        newer={3: 4},
    )
    both = together([one, two])
    assert (both.exists, both.has_group, both.added, both.trimmed) == (True, False, 7, 5)
    assert (both.first_entry, both.last_entry) == ("1-0 0-0", "1-9 2-9")
    assert both.backlog == Backlog(4, 6)
    assert (both.stuck, both.dead, both.dead_total, both.lost_total) == ((stuck,), (lost,), 1, 1)
    assert (both.dead_reasons, both.newer) == ({5: "no"}, {1: 2, 3: 4})
    assert not together([one, Queue()]).exists, "a lane's stream is gone"
    assert together([one]) is one
