"""A shard: one machine's part of a plan that several machines fire at the same instant. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

SHARDS_MAX = 1_000
_SHARD = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")
_FAR_AHEAD_S = 86_400


@dataclass(frozen=True)
class Shard:
    """Shard `number` (1 to `of`)."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """The shard written as `2/8`. Raises ValueError with one line."""
    match = _SHARD.fullmatch(text)
    if match is not None:
        shard = Shard(int(match[1]), int(match[2]))
        if 1 <= shard.number <= shard.of <= SHARDS_MAX:
            return shard
    raise ValueError(f"found {text!r}, expected such as 2/8: the second of eight, at most 1,000")


def parse_instant_us(text: str, now: datetime) -> int:
    """The instant written as `2026-11-23T10:00:00Z`, in µs since 1970, UTC.

    Raises ValueError with one line where it is none, says no offset from UTC, has passed, or is
    more than a day ahead: machines that storm together have one idea of the time of day.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError(f"found {text!r}, expected an instant such as {_example(now)}")
    ahead_s = (instant - now).total_seconds()
    if ahead_s <= 0:
        raise ValueError(f"{text} has passed; it is {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    if ahead_s > _FAR_AHEAD_S:
        raise ValueError(f"{text} is more than a day ahead; expected such as {_example(now)}")
    return round(instant.timestamp() * 1e6)


def _example(now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
