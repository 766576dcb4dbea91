"""The command tree, and the one place where an error becomes a line and an exit code."""

import errno
import io
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from flashsale import __version__
from flashsale.cli import (
    doctor,
    panels,
    rehearse,
    replica,
    report,
    schema,
    seed,
    serve,
    services,
    status,
    stop,
    storm,
    verify,
    warm,
    worker,
)
from flashsale.cli.workflow import tell_trouble
from flashsale.errors import ExitCode, FlashsaleError

app = typer.Typer(
    name="flashsale",
    help="Run a flash sale, storm it, and prove that nothing was oversold, sold twice or lost.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_PROCESSES = "Single processes, for containers"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flashsale {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("rehearse")(rehearse.command)
app.command("serve")(serve.command)
app.command("status")(status.command)
app.command("stop")(stop.command)
app.command("doctor")(doctor.command)
app.command("panels")(panels.command)
app.add_typer(services.command, name="services")
app.command("seed")(seed.command)
app.command("warm")(warm.command)
app.command("storm")(storm.command)
app.command("verify")(verify.command)
app.add_typer(report.command, name="report")
app.command("replica", rich_help_panel=_PROCESSES)(replica.command)
app.command("worker", rich_help_panel=_PROCESSES)(worker.command)
app.command("schema", rich_help_panel=_PROCESSES)(schema.command)


class _Terminated(BaseException):
    """SIGTERM, raised where it arrives, so that every `finally` on the way out is run."""


def _on_signal(number: int, frame: FrameType | None) -> NoReturn:
    """Go home, once: a second signal would only interrupt the cleaning up."""
    for stopping in _STOPPING:
        signal.signal(stopping, signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else _Terminated


def main() -> None:
    """Run the command line; what a user caused ends in one line, never in a traceback."""
    _write_what_can_be_encoded()
    for stopping in _STOPPING:
        if signal.getsignal(stopping) is not signal.SIG_IGN:  # as under nohup
            signal.signal(stopping, _on_signal)
    try:
        code = app(standalone_mode=False)
    except FlashsaleError as error:
        _fail(str(error), error.exit_code)
    except typer.TyperException as error:  # a wrong flag or argument
        _fail(error.format_message(), ExitCode.USAGE)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = error.filename or "a file of this run"
        _fail(f"cannot write {where}: {error.strerror}; free some space", ExitCode.USAGE)
    except _Terminated:
        sys.exit(ExitCode.TERMINATED)
    sys.exit(code or ExitCode.PASS)


def _write_what_can_be_encoded() -> None:
    """Let a stream that cannot encode a character write "?" for it, unless it is told otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _fail(message: str, code: ExitCode) -> NoReturn:
    typer.echo(f"flashsale: {message}", err=True)
    tell_trouble(message)
    sys.exit(code)
