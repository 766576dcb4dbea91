"""`flashsale report`: a run's report again from its folder; `report RUN` needs no subcommand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from flashsale.cli import merge
from flashsale.cli.judging import MAX_REGRESS, Csv
from flashsale.errors import ExitCode, UsageError, worst
from flashsale.run.folder import LATEST_RUN, SUMMARY_FILE

if TYPE_CHECKING:
    from flashsale.run.folder import RunFolder
    from flashsale.run.summary import Summary

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
    import orjson

    from flashsale.run.summary import summary_schema

    typer.echo(orjson.dumps(summary_schema(), option=orjson.OPT_INDENT_2))


def _render(run: Path, csv: bool) -> None:
    from rich.console import Console

    from flashsale.report.console import print_summary
    from flashsale.report.files import read_figures, restore_latencies, write_reports
    from flashsale.report.sheet import write_sheet

    folder, summary = read_run(run)
    figures = read_figures(folder, summary)
    if figures is None:
        typer.echo(f"report: no {folder.attempts.name} in {run}, so no charts", err=True)
    else:
        restore_latencies(folder, figures)
    write_reports(folder, summary, figures)
    if csv and figures is not None:
        write_sheet(folder.attempts, folder.sheet)
    print_summary(Console(), summary, folder.path)


def _compare(first: Path, others: list[Path], max_regress: str | None) -> ExitCode:
    """Show what became of the first run in the others; nothing is written."""
    from rich.console import Console

    from flashsale.cli.judging import parse_regress
    from flashsale.report.compare import asked, compare, ensure_comparable
    from flashsale.report.side_by_side import print_comparison

    _, before = read_run(first)
    allowed, console, code = parse_regress(max_regress or MAX_REGRESS), Console(), ExitCode.PASS
    for other in others:
        _, after = read_run(other)
        try:
            ensure_comparable(before, after.scenario, asked(after))
        except ValueError as error:
            raise UsageError(f"{first} beside {other}: {error}") from error
        found = compare(before, after, allowed, str(first))
        print_comparison(console, found, after.run)
        code = worst(code, found.exit_code) if max_regress is not None else code
    return code


command.command("merge")(merge.command)


def read_run(run: Path, option: str = "") -> "tuple[RunFolder, Summary]":
    """The run in this folder, or of this summary.json. Raises UsageError with one line, which
    begins with `option`."""
    from flashsale.run.folder import RunFolder
    from flashsale.run.summary import Summary

    folder = RunFolder(run.parent if run.name == SUMMARY_FILE else run)
    try:
        return folder, Summary.read(folder.summary)
    except FileNotFoundError:
        raise UsageError(
            f"{option}{run}: no summary.json, so no finished run; name a run's folder"
        ) from None
    except OSError as error:
        raise UsageError(f"{option}{folder.summary}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{option}{folder.summary}: damaged, or of another version") from error
