"""What one `seed` run is asked for (defaults once, bounds that say what was expected), and how
it tells what it is at.
"""

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Protocol

from flashsale.errors import UsageError
from flashsale.model import ID_MAX, UNITS_MAX


class StageProgress(Protocol):
    """Stages follow one another: each begins with its total and advances up to it."""

    def begin(self, stage: str, total: int) -> None:
        """A stage of `total` steps begins; the one before it has ended."""

    def advance(self, steps: int) -> None:
        """The current stage is `steps` further."""

    def note(self, line: str) -> None:
        """Something worth a line of its own."""


class Silent:
    """Tells nobody."""

    def begin(self, stage: str, total: int) -> None: ...
    def advance(self, steps: int) -> None: ...
    def note(self, line: str) -> None: ...


_BOUNDS = {
    "users": (1, 10_000_000),
    "shops": (1, 1_000_000),
    "vouchers": (1, 100_000),
    "first_voucher": (1, ID_MAX - 100_000),
    "units": (0, UNITS_MAX),
    "seed": (0, ID_MAX),
}


@dataclass(frozen=True)
class Window:
    """When a sale is open, in UTC."""

    begin: datetime
    end: datetime

    @classmethod
    def never(cls) -> "Window":
        """Of no sale: for who asks a data set about its users alone."""
        return cls(datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))


@dataclass(frozen=True)
class SeedSettings:
    """The size of a data set and the terms of its sales. Raises UsageError, naming the flag."""

    users: int = 1_005
    shops: int = 14
    vouchers: int = 1
    first_voucher: int = 1
    units: int = 100  # of all vouchers together
    begin: datetime | None = None  # None: an hour ago
    end: datetime | None = None  # None: a week ahead
    seed: int = 1
    reset: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = _BOUNDS.get(field.name, (None, None))
            value = getattr(self, field.name)
            if low is not None and high is not None and not low <= value <= high:
                flag = field.name.replace("_", "-")
                raise UsageError(f"--{flag}: expected {low:,} to {high:,}, got {value:,}")
        for flag, moment in (("--begin", self.begin), ("--end", self.end)):
            if moment is not None and moment.tzinfo is None:
                raise UsageError(f"{flag}: expected a time with its offset, got {moment}")
        if self.begin and self.end and self.end <= self.begin:
            raise UsageError(f"--end: expected a time after --begin, got {self.end}")

    @property
    def voucher_units(self) -> dict[int, int]:
        """The units of each voucher, by its id."""
        shares = spread(self.units, self.vouchers)
        return {self.first_voucher + j: share for j, share in enumerate(shares)}

    def window(self, now: datetime) -> Window:
        """When the sales are open, for what was given and the hour it is."""
        begin = self.begin or now.replace(microsecond=0) - timedelta(hours=1)
        end = self.end or max(begin, now.replace(microsecond=0)) + timedelta(days=7)
        if end <= begin:
            raise UsageError(f"--end: expected a time after the begin {begin}, got {end}")
        return Window(begin.astimezone(UTC), end.astimezone(UTC))


def spread(units: int, vouchers: int) -> list[int]:
    """`units` over `vouchers` as evenly as whole numbers go; the first ones get the rest."""
    share, rest = divmod(units, vouchers)
    return [share + (j < rest) for j in range(vouchers)]


def parse_moment(flag: str, text: str | None) -> datetime | None:
    """The ISO 8601 time in `text`, UTC unless it carries an offset. Raises UsageError."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        offset_known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        utc = offset_known.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{flag}: expected a time such as 2030-01-31T10:00:00Z, got {text!r}"
        ) from None
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)  # the column keeps milliseconds
