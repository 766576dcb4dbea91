"""Daily sign-in: a bitmap a user and month, and the streak that it tells.

A day is a UTC day by the ledger's clock, so that all replicas agree on it. The streak is the
number of days in a row up to and including today; it goes on across the ends of months.
"""

from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from flashsale.storage.lanes import LedgerChannel

MONTHS = 13
"""How far back a streak is followed, this month included: a year at least."""

KEEP_DAYS = 430
"""How long a month's bitmap is kept after its last sign-in: for as long as a streak can need it."""


@dataclass(frozen=True, slots=True)
class MonthDays:
    """The days of one month from its first to `days`: those that have been, in this month."""

    month: str  # yyyyMM
    days: int


def months_back(today: date, months: int = MONTHS) -> list[MonthDays]:
    """This month up to `today`, then the whole months before it, latest first. Pure."""
    found = [MonthDays(f"{today:%Y%m}", today.day)]
    while len(found) < months:
        today = today.replace(day=1) - timedelta(days=1)
        found.append(MonthDays(f"{today:%Y%m}", monthrange(today.year, today.month)[1]))
    return found


def streak(signed: Sequence[tuple[MonthDays, int]]) -> int:
    """Days in a row, back from the last day of the first span. Pure.

    Each number holds the days of its span as bits, the latest day the lowest, as BITFIELD reads
    them.
    """
    total = 0
    for span, bits in signed:
        in_a_row = (~bits & (bits + 1)).bit_length() - 1  # the ones that a number ends with
        total += in_a_row
        if in_a_row < span.days:
            break
    return total


class Attendance:
    """The sign-ins of every user. Its calls may raise Unavailable or Indeterminate."""

    def __init__(self, ledger: LedgerChannel, now_s: Callable[[], float]) -> None:
        self._ledger = ledger
        self._now_s = now_s

    def __repr__(self) -> str:
        return f"<Attendance {self._today():%Y-%m-%d}>"

    async def sign(self, user_id: int) -> None:
        """Note that the user was here today; once more changes nothing."""
        today = self._today()
        key = self._ledger.layout.of_user(user_id).sign(user_id, f"{today:%Y%m}")
        await self._ledger.ask_all(
            [("SETBIT", key, today.day - 1, 1), ("EXPIRE", key, KEEP_DAYS * 86_400)]
        )

    async def streak(self, user_id: int) -> int:
        """Days in a row up to today, 0 where today is missing, in one round trip."""
        wanted = months_back(self._today())
        replies = await self._ledger.ask_all(
            [
                (
                    "BITFIELD_RO",
                    self._ledger.layout.of_user(user_id).sign(user_id, span.month),
                    "GET",
                    f"u{span.days}",
                    0,
                )
                for span in wanted
            ]
        )
        return streak([(span, bits) for span, (bits,) in zip(wanted, replies, strict=True)])

    def _today(self) -> date:
        return datetime.fromtimestamp(self._now_s(), UTC).date()
