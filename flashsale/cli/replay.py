"""What to storm with: a scenario, or the plan of a run that is to be fired once more."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsale.errors import UsageError

if TYPE_CHECKING:
    from flashsale.run.plan_columns import PlanColumns
    from flashsale.scenario.scenario import Scenario

ScenarioName = Annotated[
    str | None,
    typer.Argument(help="A built-in scenario, or the path of a .toml.", show_default=False),
]
Replay = Annotated[
    Path | None,
    typer.Option(
        "--replay",
        metavar="RUN",
        help="Fire the very plan of this run once more, in place of a scenario.",
    ),
]


def chosen(scenario: str | None, replay: Path | None) -> "tuple[Scenario, PlanColumns | None]":
    """The scenario, and with `--replay` the plan. Raises UsageError with one line."""
    if replay is None:
        from flashsale.scenario.scenario import load_scenario

        if scenario is None:
            raise UsageError("give a scenario, such as `stampede`, or --replay RUN")
        return load_scenario(scenario), None
    if scenario is not None:
        raise UsageError(f"--replay: the run has its own scenario, so leave {scenario!r} out")
    from flashsale.run.recording import read_recording

    recording = read_recording(replay)
    typer.echo(f"replaying {replay}: plan {recording.plan.digest}", err=True)
    return recording.scenario, recording.plan
