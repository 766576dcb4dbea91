"""Options that say how many processes fire a plan."""

from typing import TYPE_CHECKING, Annotated

import typer

from flashsale.errors import UsageError

if TYPE_CHECKING:
    from flashsale.storm.scenario import Scenario

WORKERS_MAX = 64

Workers = Annotated[
    int,
    typer.Option(
        help="Processes that fire the plan, each its part of the connections, from one instant.",
        min=1,
        max=WORKERS_MAX,
    ),
]


def check_workers(workers: int, scenario: "Scenario") -> None:
    """Raises UsageError where a worker would have no connection."""
    connections = scenario.load.connections
    if workers > connections:
        raise UsageError(
            f"--workers: found {workers}, expected at most load.connections ({connections:,})"
        )
