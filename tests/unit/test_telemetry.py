"""Buckets: every value in one of them, and the form that a histogram has."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.telemetry import LATENCY_S, SIZES, Buckets


def test_a_bound_belongs_to_its_bucket() -> None:
    buckets = Buckets((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 99):
        buckets.add(value)
    assert buckets.cumulative() == [("1.0", 2.0), ("2.0", 4.0), ("+Inf", 6.0)]
    assert (buckets.count, buckets.sum) == (6, 106.5)
    assert repr(buckets) == "<Buckets count=6 sum=106.5>"


@given(st.lists(st.floats(0, 1e6)))
def test_nothing_is_lost(values: list[float]) -> None:
    buckets = Buckets(LATENCY_S)
    for value in values:
        buckets.add(value)
    rows = buckets.cumulative()
    assert rows[-1] == ("+Inf", len(values))
    assert [count for _, count in rows] == sorted(count for _, count in rows)
    assert math.isclose(buckets.sum, sum(values), abs_tol=1e-6)
    for bound, count in rows[:-1]:
        assert count == sum(value <= float(bound) for value in values)


@pytest.mark.parametrize("bounds", [LATENCY_S, SIZES])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
