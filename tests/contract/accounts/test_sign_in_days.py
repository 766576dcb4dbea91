"""The daily sign-in on a real Redis: bits, one round trip, and the days that are hard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from flashsale import keys
from flashsale.accounts.attendance import KEEP_DAYS, Attendance
from flashsale.errors import Indeterminate, Unavailable
from flashsale.storage.channel import Channel

pytestmark = pytest.mark.anyio


class Calendar:
    """A clock that is set by hand."""

    def __init__(self, day: str) -> None:
        self.now = datetime.fromisoformat(day).replace(tzinfo=UTC)

    def now_s(self) -> float:
        return self.now.timestamp()

    def step(self, days: int = 1) -> None:
        self.now += timedelta(days)


@asynccontextmanager
async def attendance_on(ledger_url: str, calendar: Calendar) -> AsyncIterator[Attendance]:
    channel = Channel(ledger_url, connections_max=1, timeout_s=2.0)
    try:
        yield Attendance(channel, calendar.now_s)
    finally:
        await channel.aclose()


@pytest.mark.parametrize(
    ("first", "days"),
    [
        ("2026-01-30", 4),
        ("2024-02-27", 5),
        ("2026-02-26", 5),
        ("2025-12-15", 40),
        ("2026-08-01", 62),
    ],
)
async def test_a_streak_grows_day_by_day(ledger_url: str, first: str, days: int) -> None:
    calendar = Calendar(first)
    async with attendance_on(ledger_url, calendar) as attendance:
        for day in range(1, days + 1):
            assert await attendance.streak(7) == 0, "today is still missing"
            await attendance.sign(7)
            await attendance.sign(7)
            assert await attendance.streak(7) == day
            calendar.step()
        calendar.step()
        await attendance.sign(7)
        assert await attendance.streak(7) == 1, "a day was missed"
        assert await attendance.streak(8) == 0, "another user's days are theirs"


async def test_a_month_is_one_small_bitmap(ledger_url: str, ledger: Redis) -> None:
    calendar = Calendar("2026-01-31T23:59:59")
    async with attendance_on(ledger_url, calendar) as attendance:
        await attendance.sign(7)
        key = keys.sign(7, "202601")
        assert (ledger.getbit(key, 30), ledger.bitcount(key), ledger.strlen(key)) == (1, 1, 4)
        assert ledger.keys() == [key]
        assert 0 < ledger.ttl(key) <= KEEP_DAYS * 86_400
        calendar.now += timedelta(seconds=1)
        await attendance.sign(7)
        assert ledger.getbit(keys.sign(7, "202602"), 0) == 1
        assert await attendance.streak(7) == 2


async def test_a_streak_is_one_round_trip(ledger_url: str, ledger: Redis) -> None:
    sent = 0
    async with attendance_on(ledger_url, Calendar("2026-03-05")) as attendance:
        await attendance.sign(7)
        channel = attendance._ledger
        exchange = channel._exchange

        async def counted(*args: object) -> object:
            nonlocal sent
            sent += 1
            return await exchange(*args)  # type: ignore[arg-type]

        channel._exchange = counted  # type: ignore[method-assign,assignment]
        assert await attendance.streak(7) == 1
    assert sent == 1


async def test_a_key_of_another_kind_is_trouble_not_zero(ledger_url: str, ledger: Redis) -> None:
    ledger.sadd(keys.sign(7, "202603"), "x")
    async with attendance_on(ledger_url, Calendar("2026-03-05")) as attendance:
        for call in (attendance.sign, attendance.streak):
            with pytest.raises((Unavailable, Indeterminate)):
                await call(7)
