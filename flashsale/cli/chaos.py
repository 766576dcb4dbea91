"""`flashsale chaos`: rehearsals with faults from seeds, a table, and controls that must fail."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from flashsale import logs
from flashsale.campaign.chaos import Chaos, ChaosRequest, run_chaos, run_controls
from flashsale.campaign.teller import Teller
from flashsale.cli.terminal import console, tell
from flashsale.errors import UsageError
from flashsale.faults.controls import controls_named
from flashsale.faults.schedule import Asked
from flashsale.faults.trials import markdown, table
from flashsale.run.folder import folder_of_runs
from flashsale.scenario.scenario import load_scenario

_SEEDS = 10
Kinds = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="WHAT", help="Draw from this kind alone; may be repeated."),
]
Controls = Annotated[
    list[str] | None,
    typer.Option(
        "--control",
        metavar="NAME",
        help="Plant this defect instead, which has to be found; `all` plants each.",
    ),
]


def command(
    scenario: Annotated[
        str, typer.Argument(help="A scenario whose storm lasts, or the path of a .toml.")
    ] = "chaos",
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="How many.", show_default=str(_SEEDS)),
    ] = None,
    first: Annotated[
        str, typer.Option("--from", metavar="SEED", help="The first; `today` makes it of the date.")
    ] = "1",
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Begin no more seeds after so long.")
    ] = None,
    fault: Kinds = None,
    at_once: Annotated[
        int | None,
        typer.Option(min=1, max=4, help="So many faults in each seed.", show_default="one or two"),
    ] = None,
    only: Annotated[
        int | None,
        typer.Option(min=1, max=4, help="Of a seed's faults this one alone.", show_default="all"),
    ] = None,
    recover: Annotated[
        float, typer.Option(min=0.1, help="Seconds from healing to selling again.")
    ] = 10.0,
    control: Controls = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder for every run.", show_default="runs/chaos-…"),
    ] = None,
) -> None:
    """Break a stack on purpose, from seeds: two faults at once, heal, drain, verify.

    Each seed is a rehearsal on a fresh private stack. A seed that fails is tried with fewer faults,
    and the command that repeats it is printed.
    """
    loaded = load_scenario(scenario)
    folder = folder_of_runs(out, "chaos")
    request = ChaosRequest(
        scenario=loaded,
        name=scenario,
        out=folder.resolve(),
        seeds=seeds or (None if minutes else _SEEDS),
        first=parse_first(first, datetime.now(UTC)),
        minutes=minutes,
        asked=Asked.of(fault or (), at_once),
        only_fault=only,
        recover_s=recover,
    )
    logs.silence()  # what a rebuild says is told as its fault's end
    if control:
        raise typer.Exit(run_controls(request, dict(controls_named(control)), tell))
    found = run_chaos(request, _Plain())
    _show(found)
    _tell_workflow(request, found)
    tell(f"every run is in {folder}")
    raise typer.Exit(found.exit_code)


def parse_first(text: str, now: datetime) -> int:
    """The first seed; of `today` the date, UTC, with room for ten thousand. Raises UsageError."""
    if text == "today":
        return int(f"{now:%Y%m%d}0000")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise UsageError(f"--from: found {text!r}, expected a number, or 'today'")
    return int(text)


class _Plain(Teller):
    """A line a trial."""

    def say(self, line: str) -> None:
        tell(line)


def drawn(chaos: Chaos) -> Table:
    """The table; where a terminal is narrow the faults' names and the rules are folded, not the
    figures and their heads."""
    head, rows = table(chaos.trials)
    found = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    for name in head:
        folds = name in (head[0], head[-1])
        found.add_column(
            name,
            overflow="fold",
            no_wrap=not folds,
            min_width=len(name),
            justify="left" if folds else "right",
        )
    for row in rows:
        found.add_row(*row)
    return found


def _show(chaos: Chaos) -> None:
    console().print(drawn(chaos))
    for line in chaos.lines:
        tell(line)


def _tell_workflow(request: ChaosRequest, chaos: Chaos) -> None:
    """Append the table to the step's summary, under GitHub Actions."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8", errors="replace") as file:
            file.write(markdown(f"flashsale chaos {request.name}", chaos.trials, chaos.lines))
    except (OSError, ValueError) as error:
        tell(f"flashsale: no step summary: {path}: {error}", err=True)
