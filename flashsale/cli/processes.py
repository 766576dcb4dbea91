"""Options that say how many processes of how many machines fire a plan, and when."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from flashsale.errors import UsageError

if TYPE_CHECKING:
    from flashsale.scenario.scenario import Scenario
    from flashsale.storm.crew.shard import Shard

WORKERS_MAX = 64

Workers = Annotated[
    int,
    typer.Option(
        help="Processes that fire the plan, each its part of the connections, from one instant.",
        min=1,
        max=WORKERS_MAX,
    ),
]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate/--no-calibrate",
        help="First find out, in half a second at most, what this generator could send. "
        "Never with --start-at.",
    ),
]
StartAt = Annotated[
    str | None,
    typer.Option(
        "--start-at",
        metavar="INSTANT",
        help="When the barrier opens, such as 2026-11-23T10:00:00Z. Connections are up by then.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="K/N",
        help="Fire part K of N; other machines fire the others. Needs --start-at.",
    ),
]


@dataclass(frozen=True)
class Crowd:
    """Who fires a plan beside this process, and from when on.

    `shard` is this machine's part, and `start_at_us` the instant in µs since 1970, UTC.
    """

    workers: int = 1
    shard: "Shard | None" = None
    start_at_us: int | None = None


ALONE = Crowd()
"""This process, at once."""


def crowd(
    scenario: "Scenario", workers: int, shard: str | None = None, start_at: str | None = None
) -> Crowd:
    """What was asked for. Raises UsageError, also where somebody would have no connection."""
    from flashsale.storm.crew.shard import parse_instant_us, parse_shard

    if shard is not None and start_at is None:
        raise UsageError("--shard: this goes with --start-at, so that all shards begin at once")
    try:
        instant = None if start_at is None else parse_instant_us(start_at, datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"--start-at: {error}") from error
    try:
        found = Crowd(workers, None if shard is None else parse_shard(shard), instant)
    except ValueError as error:
        raise UsageError(f"--shard: {error}") from error
    _check_seats(found, scenario.load.seats)
    return found


def _check_seats(found: Crowd, seats: int) -> None:
    """A user's connections (`load.clicks` of them) stay with one process."""
    if found.shard is not None:
        if found.shard.of > seats:
            raise UsageError(
                f"--shard: found {found.shard}, expected at most one shard a connection ({seats:,})"
            )
        seats = len(range(found.shard.number - 1, seats, found.shard.of))
    if found.workers > seats:
        raise UsageError(
            f"--workers: found {found.workers}, expected at most one a connection ({seats:,})"
        )
