"""What `seed` may be asked for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.errors import UsageError
from flashsale.seeding.settings import SeedSettings, parse_moment, spread

NOON = datetime(2030, 5, 1, 12, 0, 0, 999_999, tzinfo=UTC)


@given(st.integers(0, 10**9), st.integers(1, 2_000))
def test_units_are_spread_evenly_and_none_is_lost(units: int, vouchers: int) -> None:
    shares = spread(units, vouchers)
    assert len(shares) == vouchers
    assert sum(shares) == units
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


def test_the_first_vouchers_get_the_rest() -> None:
    shares = SeedSettings(vouchers=110, units=30_000, first_voucher=7).voucher_units
    assert list(shares) == list(range(7, 117))
    assert list(shares.values()) == [273] * 80 + [272] * 30


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("users", 0),
        ("users", 10_000_001),
        ("shops", 0),
        ("vouchers", 0),
        ("vouchers", -1),
        ("first_voucher", 0),
        ("first_voucher", 2**63 - 1),
        ("units", -1),
        ("units", 2**31),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_a_number_out_of_bounds_is_named(field: str, value: int) -> None:
    flag = field.replace("_", "-")
    with pytest.raises(UsageError, match=rf"^--{flag}: expected [\d,]+ to [\d,]+, got"):
        replace(SeedSettings(), **{field: value})


def test_a_sale_is_open_from_an_hour_ago_to_a_week_ahead() -> None:
    window = SeedSettings().window(NOON)
    assert window.begin == NOON.replace(microsecond=0) - timedelta(hours=1)
    assert window.end == NOON.replace(microsecond=0) + timedelta(days=7)


def test_a_sale_that_begins_later_ends_a_week_after_that() -> None:
    begin = NOON + timedelta(days=30)
    window = SeedSettings(begin=begin).window(NOON)
    assert (window.begin, window.end) == (begin, begin + timedelta(days=7))


def test_the_window_is_utc_whatever_was_given() -> None:
    east = timezone(timedelta(hours=8))
    begin = datetime(2030, 5, 1, 20, tzinfo=east)
    window = SeedSettings(begin=begin, end=begin + timedelta(hours=1)).window(NOON)
    assert window.begin.isoformat() == "2030-05-01T12:00:00+00:00"
    assert window.end.isoformat() == "2030-05-01T13:00:00+00:00"


def test_an_end_that_is_not_after_the_begin_is_refused() -> None:
    with pytest.raises(UsageError, match="--end: expected a time after --begin"):
        SeedSettings(begin=NOON, end=NOON)
    with pytest.raises(UsageError, match="--end: expected a time after the begin"):
        SeedSettings(end=NOON - timedelta(hours=2)).window(NOON)


def test_a_time_without_offset_is_refused_in_settings() -> None:
    with pytest.raises(UsageError, match="--begin: expected a time with its offset"):
        SeedSettings(begin=NOON.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
        ("2030-01-31T10:00:00Z", datetime(2030, 1, 31, 10, tzinfo=UTC)),
        ("2030-01-31T10:00:00+08:00", datetime(2030, 1, 31, 2, tzinfo=UTC)),
        ("2030-01-31 10:00:00.123456", datetime(2030, 1, 31, 10, 0, 0, 123_000, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_utc_milliseconds(text: str | None, expected: datetime | None) -> None:
    assert parse_moment("--begin", text) == expected


@pytest.mark.parametrize("text", ["", "tomorrow", "1893456000", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--end: expected a time such as 2030-01-31T10:00:00Z"):
        parse_moment("--end", text)
