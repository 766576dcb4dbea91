"""Which pending entries are due; not-before times: doubling, bounded, one entry at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.orders.stream import Order, Pending, Postponed, StreamEntry


def test_waits_double_up_to_the_maximum() -> None:
    postponed = Postponed(base_s=0.1, max_s=1.0)
    now_s, waits = 100.0, []
    for _ in range(6):
        postponed.postpone("1-1", now_s)
        wait_s = postponed.next_due_s(now_s)
        assert wait_s is not None
        waits.append(round(wait_s, 6))
        now_s += wait_s
        assert postponed.is_due("1-1", now_s)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_not_due_before_its_time() -> None:
    postponed = Postponed(base_s=1.0, max_s=8.0)
    postponed.postpone("1-1", 100.0)
    assert not postponed.is_due("1-1", 100.999)
    assert postponed.is_due("1-1", 101.0)


def test_one_stuck_entry_holds_up_nobody() -> None:
    postponed = Postponed(base_s=1.0, max_s=8.0)
    postponed.postpone("1-1", 100.0)
    assert postponed.is_due("1-2", 100.0)
    postponed.postpone("1-2", 107.0)
    assert postponed.next_due_s(107.0) == 0.0, "the first of them counts"


def test_what_is_done_is_forgotten_with_its_tries() -> None:
    postponed = Postponed(base_s=1.0, max_s=8.0)
    for _ in range(3):
        postponed.postpone("1-1", 100.0)
    postponed.forget("1-1")
    postponed.forget("never seen")
    assert len(postponed) == 0
    assert postponed.next_due_s(100.0) is None
    postponed.postpone("1-1", 100.0)
    assert postponed.next_due_s(100.0) == pytest.approx(1.0)


@given(st.integers(1, 2000), st.floats(0.001, 10), st.floats(0.001, 100))
def test_any_number_of_tries_stays_bounded(tries: int, base_s: float, max_s: float) -> None:
    postponed = Postponed(base_s, max_s)
    for _ in range(tries):
        postponed.postpone("1-1", 0.0)
    wait_s = postponed.next_due_s(0.0)
    assert wait_s is not None
    assert 0 < wait_s <= max_s


def test_what_another_finished_is_forgotten_and_nothing_else() -> None:
    """Of three that are due, one is not among ours any more; a fourth is not due yet."""
    postponed = Postponed(base_s=1.0, max_s=8.0)
    for entry_id, now_s in (("1-1", 100.0), ("1-2", 100.0), ("1-3", 101.0), ("1-4", 105.0)):
        postponed.postpone(entry_id, now_s)
    postponed.forget_others({"1-2"}, due_by_s=101.5)
    assert len(postponed) == 3
    assert postponed.is_due("1-1", 0.0), "forgotten: nothing stands against it"
    assert not postponed.is_due("1-2", 100.5)
    assert not postponed.is_due("1-3", 101.5), "it was postponed while the list was being read"
    assert not postponed.is_due("1-4", 105.5)


def page(*entry_ids: str) -> list[StreamEntry]:
    return [Order(entry_id, 1, 1, 1, 1) for entry_id in entry_ids]


def ids(entries: list[StreamEntry]) -> list[str]:
    return [entry.entry_id for entry in entries]


def test_a_round_goes_page_by_page_and_ends_with_an_empty_one() -> None:
    pending = Pending(base_s=1.0, max_s=8.0)
    assert pending.read_after(0.0) == "0"
    assert ids(pending.due(page("1-1", "2-1"), (), 0.0)) == ["1-1", "2-1"]
    assert pending.wait_ms(0.0, 500) == 1, "older entries first"
    assert pending.read_after(0.0) == "2-1"
    assert pending.due([], (), 0.0) == []
    assert pending.read_after(0.0) is None
    assert pending.wait_ms(0.0, 500) == 500
    pending.start_over()
    assert pending.read_after(0.0) == "0"


def test_what_was_read_ahead_or_is_put_off_is_not_due() -> None:
    pending = Pending(base_s=1.0, max_s=8.0)
    pending.postpone(["1-1"], 0.0)
    assert pending.read_after(0.5) == "0"
    assert ids(pending.due(page("1-1", "2-1", "3-1"), {"3-1"}, 0.5)) == ["2-1"]


def test_a_round_ends_with_what_is_read_ahead() -> None:
    """Under load a batch is always read ahead: its entries are ours, pending, and the youngest."""
    pending = Pending(base_s=1.0, max_s=8.0)
    assert ids(pending.due(page("1-1", "2-1"), {"2-1"}, 0.0)) == ["1-1"]
    assert pending.read_after(0.1) == "2-1"
    assert pending.due(page("3-1", "4-1"), {"3-1", "4-1"}, 0.1) == []
    assert pending.read_after(0.2) is None


def test_a_round_begins_when_the_first_entry_is_due_again() -> None:
    pending = Pending(base_s=1.0, max_s=8.0)
    pending.read_after(0.0)
    pending.due(page("1-1"), (), 0.0)
    pending.postpone(["1-1"], 0.0)
    pending.due([], (), 0.0)
    assert pending.read_after(0.9) is None
    assert pending.wait_ms(0.9, 500) == 99
    assert pending.read_after(1.0) == "0"
    assert ids(pending.due(page("1-1"), (), 1.0)) == ["1-1"]
    pending.forget(["1-1"])
    assert pending.postponed == 0


def test_what_another_worker_finished_is_forgotten_after_a_whole_round() -> None:
    pending = Pending(base_s=1.0, max_s=8.0)
    pending.postpone(["1-1", "2-1"], 0.0)
    pending.read_after(1.0)
    pending.due(page("2-1"), (), 1.0)
    assert pending.postponed == 2, "the round is not over"
    pending.due([], (), 1.0)
    assert pending.postponed == 1, "2-1 is ours still"
