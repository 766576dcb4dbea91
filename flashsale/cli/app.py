"""The command tree, and the one place where an error becomes a line and an exit code."""

import sys

import click
import typer

from flashsale import __version__
from flashsale.cli import replica, worker
from flashsale.errors import ExitCode, FlashsaleError

app = typer.Typer(
    name="flashsale",
    help="Run a flash sale, storm it, and prove that nothing was oversold, sold twice or lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_PROCESSES = "Single processes, for containers"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flashsale {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    pass


app.command("replica", rich_help_panel=_PROCESSES)(replica.command)
app.command("worker", rich_help_panel=_PROCESSES)(worker.command)


def main() -> None:
    """Run the command line; never shows a traceback for what a user caused."""
    try:
        code = app(standalone_mode=False)
    except FlashsaleError as error:
        typer.echo(f"flashsale: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(code or 0)
