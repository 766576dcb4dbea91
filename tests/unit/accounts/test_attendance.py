"""The streak: days in a row, across the ends of months, in months of every length."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.accounts.attendance import MONTHS, MonthDays, months_back, streak


def bits(signed: set[date], today: date) -> list[tuple[MonthDays, int]]:
    """What BITFIELD reads of the days in `signed`."""
    found = []
    for span in months_back(today):
        first = date(int(span.month[:4]), int(span.month[4:]), 1)
        text = "".join(str(int(first + timedelta(n) in signed)) for n in range(span.days))
        found.append((span, int(text, 2)))
    return found


def by_walking(signed: set[date], today: date) -> int:
    count = 0
    while today - timedelta(count) in signed:
        count += 1
    return count


def days(first: str, last: str) -> set[date]:
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return {start + timedelta(n) for n in range((end - start).days + 1)}


@pytest.mark.parametrize(
    ("today", "months"),
    [
        ("2026-03-01", ["202603:1", "202602:28", "202601:31"]),
        ("2024-03-31", ["202403:31", "202402:29", "202401:31"]),
        ("2026-01-15", ["202601:15", "202512:31", "202511:30"]),
    ],
)
def test_months_have_their_lengths(today: str, months: list[str]) -> None:
    found = months_back(date.fromisoformat(today), 3)
    assert [f"{span.month}:{span.days}" for span in found] == months


@pytest.mark.parametrize(
    ("signed", "today", "count"),
    [
        (set(), "2026-03-10", 0),
        (days("2026-03-10", "2026-03-10"), "2026-03-10", 1),
        (days("2026-03-08", "2026-03-09"), "2026-03-10", 0),  # today is missing
        (days("2026-03-01", "2026-03-31"), "2026-03-31", 31),
        (days("2026-01-31", "2026-02-01"), "2026-02-01", 2),
        (days("2024-02-28", "2024-03-01"), "2024-03-01", 3),  # over a 29th of February
        (days("2026-02-27", "2026-03-01"), "2026-03-01", 3),  # and over none
        (days("2025-12-30", "2026-01-02"), "2026-01-02", 4),
        (days("2026-01-01", "2026-03-05") - days("2026-02-28", "2026-02-28"), "2026-03-05", 5),
        (days("2025-01-01", "2026-03-05"), "2026-03-05", 370),  # followed for thirteen months
    ],
)
def test_streaks(signed: set[date], today: str, count: int) -> None:
    assert streak(bits(signed, date.fromisoformat(today))) == count


def test_a_streak_of_a_year_is_seen_whole() -> None:
    for start in (date(2024, 1, 1), date(2025, 6, 30), date(2027, 3, 31)):
        today = start + timedelta(364)
        signed = days(start.isoformat(), today.isoformat())
        assert streak(bits(signed, today)) == 365


@given(
    today=st.dates(date(2020, 1, 1), date(2032, 12, 31)),
    missing=st.sets(st.integers(0, 120), max_size=6),
    length=st.integers(0, 300),
)
def test_any_streak_is_what_walking_back_finds(today: date, missing: set[int], length: int) -> None:
    signed = {today - timedelta(n) for n in range(length) if n not in missing}
    assert streak(bits(signed, today)) == by_walking(signed, today)
    assert len(months_back(today)) == MONTHS
