"""`flashsale report`: a run's report again from its folder; `report RUN` needs no subcommand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from flashsale.errors import UsageError

if TYPE_CHECKING:
    from flashsale.storm.runfolder import RunFolder
    from flashsale.storm.summary import Summary

LATEST_RUN = Path("runs/latest")
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
    run: Annotated[Path, typer.Argument(help="The folder of a storm's run.")] = LATEST_RUN,
) -> None:
    """Draw a run's table, charts and files again, from its summary and its attempts.

    What was judged stands: this judges nothing anew. Exits with 0, whatever the run's verdict.
    """
    from rich.console import Console

    from flashsale.report.console import print_summary
    from flashsale.report.files import read_figures, restore_latencies, write_reports

    folder, summary = read_run(run)
    figures = read_figures(folder, summary)
    if figures is None:
        typer.echo(f"report: no {folder.attempts.name} in {run}, so no charts", err=True)
    else:
        restore_latencies(folder, figures)
    write_reports(folder, summary, figures)
    print_summary(Console(), summary, folder.path)


def read_run(run: Path) -> "tuple[RunFolder, Summary]":
    """The run in this folder, with its summary. Raises UsageError with one line."""
    from flashsale.storm.runfolder import RunFolder
    from flashsale.storm.summary import Summary

    folder = RunFolder(run)
    try:
        return folder, Summary.read(folder.summary)
    except FileNotFoundError:
        raise UsageError(
            f"{run}: no summary.json, so no finished run; name a run's folder"
        ) from None
    except OSError as error:
        raise UsageError(f"{folder.summary}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{folder.summary}: damaged, or of another version") from error
