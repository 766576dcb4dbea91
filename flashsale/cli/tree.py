"""The command tree, loaded as far as it is asked for, and where an error becomes an exit code."""

import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import typer

from flashsale import __version__
from flashsale.cli.commands import ABOUT, COMMANDS, HEADINGS, PROCESSES
from flashsale.errors import ExitCode, FlashsaleError, one_line
from flashsale.run.folder import CURES, NotWrittenError

_ALL = COMMANDS | PROCESSES


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; its exit code."""
    name = arguments[0]
    app = tree([name] if name in _ALL else _ALL)
    try:
        return int(app(list(arguments), standalone_mode=False, prog_name="flashsale") or 0)
    except FlashsaleError as error:
        return _failed(str(error), error.exit_code)
    except typer.TyperException as error:  # a wrong flag or argument
        return _failed(error.format_message(), ExitCode.USAGE)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except MemoryError:  # truly, or a server announced an answer that no machine has room for
        return _failed(
            "there is not enough memory for this; give it fewer attempts at a time, or see that "
            "each URL names a store of the sale",
            ExitCode.INTERNAL,
        )
    except OSError as error:
        if error.errno not in CURES:
            raise
        unwritten = NotWrittenError(error.filename or "a file of this run", error)
        return _failed(str(unwritten), unwritten.exit_code)


def tree(names: Iterable[str] = _ALL) -> typer.Typer:
    """The commands of these names; all of them for completion, documents and tests."""
    app = typer.Typer(
        name="flashsale", help=ABOUT, pretty_exceptions_enable=False, rich_markup_mode="rich"
    )
    app.callback(invoke_without_command=True)(_root)
    for name in names:
        module, attribute = _ALL[name][0].split(":")
        found = getattr(importlib.import_module(f"flashsale.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            for each in found.registered_commands:
                each.help = _flowing(each.callback)
            app.add_typer(found, name=name)
        else:
            heading = next(each for each, commands in HEADINGS.items() if name in commands)
            app.command(name, help=_flowing(found), rich_help_panel=heading)(found)
    return app


def _flowing(function: Callable[..., Any] | None) -> str:
    """A docstring for terminals of any width: its paragraphs without the breaks of their lines."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flashsale {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _failed(message: str, code: ExitCode) -> ExitCode:
    typer.echo(f"flashsale: {one_line(message)}", err=True)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        github = importlib.import_module("flashsale.report.ci")
        typer.echo(github.annotation("flashsale", message), err=True)
    return code
