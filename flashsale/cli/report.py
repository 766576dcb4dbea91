"""`flashsale report`: a run's report again from its folder; `report RUN` needs no subcommand."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flashsale.campaign.demands import MAX_REGRESS, parse_regress
from flashsale.campaign.merging import merge_shards
from flashsale.cli.storm_options import Csv, Out
from flashsale.cli.terminal import TerminalTeller, console, tell_document
from flashsale.errors import ExitCode, UsageError, worst
from flashsale.report.compare import asked, compare, ensure_comparable
from flashsale.report.console import print_comparison, print_summary
from flashsale.report.files import (
    read_figures,
    read_run,
    restore_latencies,
    write_counted,
    write_sheet,
)
from flashsale.run.folder import LATEST_RUN, telling
from flashsale.run.summary import summary_schema

_DEFAULT = "render"


class _RunsByDefault(TyperGroup):
    """What is no subcommand is a run's folder. A folder called `merge` is reached as `./merge`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the group's, with the default subcommand put in front where none is named."""
        named = bool(args) and (args[0] in self.commands or args[0] in ("--help", "-h"))
        return super().parse_args(ctx, args if named else [_DEFAULT, *args])


command = typer.Typer(
    cls=_RunsByDefault,
    help="Render a run's report again: `flashsale report RUN`.",
    subcommand_metavar="[RUN | COMMAND]",
)


@command.command(_DEFAULT)
def render(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN…",
            help="Folders of runs; of several, each is held against the first.",
            show_default=str(LATEST_RUN),
        ),
    ] = None,
    max_regress: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Of several runs: exit with 5 where one is worse than the first by more.",
            show_default=f"marks {MAX_REGRESS}, exits with 0",
        ),
    ] = None,
    csv: Csv = False,
) -> None:
    """Draw one run's table, charts and files again; or hold several against the first.

    What was judged stands: a run's verdict is not judged anew, and is not the exit code.
    """
    first, *others = runs or [LATEST_RUN]
    if others:
        raise typer.Exit(_compare(first, others, max_regress))
    if max_regress is not None:
        raise UsageError("--max-regress: this goes with two runs or more, the first the baseline")
    _render(first, csv)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of summary.json."""
    tell_document(summary_schema())


def _render(run: Path, csv: bool) -> None:
    folder, summary = read_run(run)
    counted, teller = read_figures(folder), TerminalTeller("report")
    unwritten: list[str] = []
    if counted is None:
        teller.say(f"no {folder.attempts.name} in {run}, so no charts")
    else:
        with telling(unwritten.append):
            restore_latencies(folder, counted.figures)
    write_counted(folder, summary, counted, unwritten.append)
    if csv and counted is not None:
        with telling(unwritten.append):
            write_sheet(folder.attempts, folder.sheet)
    for line in unwritten:
        teller.say(line)
    if counted is not None and counted.shortfall:
        teller.say(counted.shortfall)
    print_summary(console(), summary, folder.path)
    if unwritten:
        raise typer.Exit(ExitCode.USAGE)


def _compare(first: Path, others: list[Path], max_regress: str | None) -> ExitCode:
    """Show what became of the first run in the others; nothing is written."""
    _, before = read_run(first)
    allowed, code = parse_regress(max_regress or MAX_REGRESS), ExitCode.PASS
    for other in others:
        _, after = read_run(other)
        try:
            ensure_comparable(before, after.scenario, asked(after))
        except ValueError as error:
            raise UsageError(f"{first} beside {other}: {error}") from error
        found = compare(before, after, allowed, str(first))
        print_comparison(console(), found, after.run)
        code = worst(code, found.exit_code) if max_regress is not None else code
    return code


@command.command("merge")
def merge(
    shards: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="The folders that all shards left.")
    ],
    out: Out = None,
) -> None:
    """Make one run of the shards that several machines fired, for `verify` and `report`.

    The shards have to be all of one storm, each once. Exits as one storm of it all would.
    """
    run = merge_shards(shards, out, TerminalTeller("report"))
    raise typer.Exit(run.summary.exit_code)
