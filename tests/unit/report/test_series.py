import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig.run_folders import GONE, HIT, SOLD, record_of

from flashsale.model import Outcome, Reading
from flashsale.report.charts import chart
from flashsale.run.attempts import NEVER, Attempts
from flashsale.scenario.answer import unsent

LEDGER = record_of([SOLD] * 300 + [GONE] * 1700)


def in_order(record: Attempts) -> list[int]:
    return [i for i, instant in enumerate(record.sent_ns) if instant != NEVER]


@given(st.integers(0, 10**10), st.integers(10, 400))
def test_slots_are_round_and_no_more_than_asked_for(span_us: int, slots: int) -> None:
    width = chart.width_us(span_us, slots)
    assert span_us // width < slots
    assert str(width).rstrip("0") in ("1", "2", "5")


def test_every_attempt_is_in_the_slot_in_which_it_ended() -> None:
    found = chart.endings(LEDGER)
    assert {end: sum(counts) for end, counts in found.counts.items()} == {
        Outcome.SOLD: 300,
        Outcome.SOLD_OUT: 1700,
    }
    assert found.width_us == 5000
    assert found.middles_s[:2] == [0.0025, 0.0075]
    assert sum(found.counts[Outcome.SOLD][:20]) == 0  # nothing comes before 100 ms


def test_endings_stand_in_the_order_in_which_they_are_shown() -> None:
    mixed = record_of([GONE, SOLD, HIT, unsent("connect")])
    expected = [Reading.HIT, Outcome.SOLD, Outcome.SOLD_OUT, Outcome.UNSENT]
    assert list(chart.endings(mixed).counts) == expected


def test_the_stock_falls_from_all_units_to_what_is_left() -> None:
    steps = chart.stock(LEDGER, 310)
    assert steps[0] == (0.0, 310)
    assert steps[-1][1] == 10
    assert [left for _, left in steps] == sorted((left for _, left in steps), reverse=True)
    assert [at for at, _ in steps] == sorted(at for at, _ in steps)
    assert len(steps) == 302


def test_a_big_sale_is_thinned_and_keeps_its_end() -> None:
    steps = chart.stock(record_of([SOLD] * 5000), 5000)
    assert len(steps) <= chart.POINTS_MAX + 2
    assert steps[-1][1] == 0


def test_an_order_that_is_told_again_takes_one_unit() -> None:
    twice = record_of([SOLD, SOLD, GONE])
    twice.answers[1] = twice.answers[0]
    assert [left for _, left in chart.stock(twice, 2)] == [2, 1, 1]


def test_orders_without_an_id_take_a_unit_each() -> None:
    nameless = record_of([SOLD._replace(order=None)] * 3)
    assert [left for _, left in chart.stock(nameless, 3)] == [3, 2, 1, 0, 0]


def test_without_an_order_the_stock_stays() -> None:
    assert [left for _, left in chart.stock(record_of([GONE]), 7)] == [7, 7]


def test_bins_of_equal_size_keep_the_slowest() -> None:
    bins = chart.latency_by_rank(LEDGER, in_order(LEDGER))
    assert len(bins) == chart.BINS_MAX
    assert sum(b.size for b in bins) == 2000
    assert bins[-1].until == 2000
    slowest = max(LEDGER.latencies_us(range(2000), LEDGER.due_ns))
    assert max(b.max for b in bins) == slowest
    assert all(b.p10 <= b.p50 <= b.p90 <= b.max for b in bins)


def test_few_attempts_have_a_bin_each() -> None:
    few = record_of([SOLD] * 3)
    assert [b.size for b in chart.latency_by_rank(few, in_order(few))] == [1, 1, 1]
    assert chart.latency_by_rank(few, []) == []


def test_start_lag_is_told_by_the_instant_of_the_send() -> None:
    bins = chart.start_lag(LEDGER)
    assert sum(b.size for b in bins) == 2000
    assert bins[-1].max == 1999 * 40  # all were due at once, and left 40 µs apart
    assert [b.until for b in bins] == sorted(b.until for b in bins)
    assert bins[-1].until == pytest.approx(0.08, abs=0.002)
    assert chart.start_lag(Attempts(3)) == []
