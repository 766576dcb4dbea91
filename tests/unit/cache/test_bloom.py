"""The arithmetic of Bloom filters."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.cache.bloom import BITS_MAX, Bitmap, Shape, hashes_of


@given(st.integers(1, 2**63 - 1) | st.text(max_size=30))
def test_hashes_are_small_enough_for_lua_and_the_second_is_odd(entry_id: int | str) -> None:
    first, second = hashes_of(entry_id)
    assert 0 <= first < 2**40
    assert 0 < second < 2**40
    assert second % 2 == 1


def test_an_id_is_the_same_as_number_and_as_text() -> None:
    assert hashes_of(515385561440059393) == hashes_of("515385561440059393")
    assert hashes_of(1) != hashes_of(2)


@pytest.mark.parametrize(
    ("capacity", "share", "bits", "hashes"),
    [(1_000_000, 0.01, 9_585_064, 7), (1_000, 0.001, 14_384, 10), (1, 0.4, 8, 6)],
)
def test_sizes(capacity: int, share: float, bits: int, hashes: int) -> None:
    assert Shape.sized(capacity, share) == Shape(capacity, bits, hashes)


def test_no_filter_is_larger_than_a_redis_string() -> None:
    assert Shape.sized(10**10, 0.01).bits == BITS_MAX


@given(st.sets(st.integers(1, 10**12), max_size=300))
def test_what_was_added_is_there(ids: set[int]) -> None:
    bitmap = Bitmap(Shape.sized(300, 0.01))
    assert bitmap.add(ids) == len(ids)
    assert all(each in bitmap for each in ids)


def test_false_positives_at_capacity() -> None:
    shape = Shape.sized(20_000, 0.01)
    bitmap = Bitmap(shape)
    bitmap.add(range(20_000))
    fill = sum(byte.bit_count() for byte in bitmap.data) / shape.bits
    passed = sum(each in bitmap for each in range(10**6, 10**6 + 20_000)) / 20_000
    assert passed < 0.0125
    assert shape.false_positives(fill) == pytest.approx(passed, abs=0.003)
    assert shape.estimated_ids(fill) == pytest.approx(20_000, rel=0.02)


def test_a_full_filter_says_so() -> None:
    shape = Shape(10, 8, 1)
    assert shape.estimated_ids(1.0) == math.inf
    assert shape.false_positives(1.0) == 1.0
    assert shape.estimated_ids(0.0) == 0.0
