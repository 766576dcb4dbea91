"""The front door: what signals do, and what can be answered before anything is loaded.

A command's module is imported when it is asked for, by `cli/tree.py`, which is the one lazy loader.
"""

import importlib
import io
import signal
import sys
from types import FrameType
from typing import NoReturn

from flashsale import __version__
from flashsale.cli.commands import help_text
from flashsale.errors import ExitCode

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM, raised where it arrives, so that every `finally` on the way out is run."""


def _on_signal(number: int, frame: FrameType | None) -> NoReturn:
    """Go home, once: a second signal would only interrupt the cleaning up."""
    for stopping in _STOPPING:
        signal.signal(stopping, signal.SIG_IGN)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def main() -> NoReturn:
    """Run the command line; what a user caused ends in one line, never in a traceback."""
    _write_what_can_be_encoded()
    for stopping in _STOPPING:
        if signal.getsignal(stopping) is not signal.SIG_IGN:  # as under nohup
            signal.signal(stopping, _on_signal)
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Terminated:
        code = ExitCode.TERMINATED
    sys.exit(code)


def _write_what_can_be_encoded() -> None:
    """Let a stream that cannot encode a character write "?" for it, unless it is told otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _run(arguments: list[str]) -> int:
    """Answer what needs no command; else run one."""
    match arguments:
        case [] | ["--help", *_]:
            sys.stdout.write(help_text())
        case ["--version", *_]:
            sys.stdout.write(f"flashsale {__version__}\n")
        case _:
            return int(importlib.import_module("flashsale.cli.tree").run(arguments))
    return ExitCode.PASS
