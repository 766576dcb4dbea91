"""The `flashsale` command, one file a subject. Here is its front door: what signals do, where text
goes, and what needs nothing loaded to be answered.

A command's module is imported when it is asked for, by `cli/tree.py`, which is the one lazy loader.
"""

import errno
import importlib
import io
import os
import select
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

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
    _open_streams()
    _ensure_a_width()
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


class Outlet(io.RawIOBase):
    """A descriptor that takes text as long as somebody reads it, and never fails.

    Who closed a pipe wanted no more; a full disk is told on standard error, once. Neither is a
    reason to end a storm, nor for another exit code than the verdict's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lost = False

    def write(self, data: Any) -> int:
        """Write, or pretend to; how many bytes were taken."""
        view = memoryview(data).cast("B")
        if self._lost:
            return len(view)
        try:
            return os.write(self._descriptor, view)
        except BlockingIOError:  # somebody else made our terminal or pipe non-blocking
            self._lost = not select.select([], [self._descriptor], [], _PATIENCE_S)[1]
            return 0 if not self._lost else len(view)
        except OSError as error:
            self._lost = True
            if error.errno not in _NOBODY_READS and self._descriptor == _STDOUT:
                sys.stderr.write(f"flashsale: standard output takes no more: {error.strerror}\n")
            return len(view)

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor


_STDIN, _STDOUT, _STDERR = 0, 1, 2
_NOBODY_READS = frozenset({errno.EPIPE, errno.EIO, errno.EBADF})
_PATIENCE_S = 10.0
_TELLS_WHAT_IT_CANNOT_ENCODE = frozenset(
    {"replace", "backslashreplace", "xmlcharrefreplace", "namereplace", "ignore"}
)


def _open_streams() -> None:
    """Make standard output and error take every text: see Outlet.

    A character that a stream cannot encode becomes "?", unless the stream is told otherwise. A
    descriptor that came closed leads nowhere, so that no file of a run gets its number.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(nowhere, True)
    os.close(nowhere)
    if sys.stdin is None:  # as it is where it came closed
        sys.stdin = io.TextIOWrapper(io.FileIO(_STDIN, closefd=False), encoding="utf-8")
    sys.stdout = _stream(_STDOUT, sys.stdout)
    sys.stderr = _stream(_STDERR, sys.stderr)


def _stream(descriptor: int, given: object) -> io.TextIOWrapper:
    told = given if isinstance(given, io.TextIOWrapper) else None
    errors = told.errors if told and told.errors in _TELLS_WHAT_IT_CANNOT_ENCODE else "replace"
    encoding = told.encoding if told else "utf-8"
    try:
        "…".encode(encoding, errors)
    except (LookupError, UnicodeError):  # such as idna, which is for names alone
        encoding = "utf-8"
    outlet = Outlet(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=encoding,
        errors=errors,
        line_buffering=descriptor == _STDERR or outlet.isatty(),
    )


_WIDTHS = range(20, 1_001)
"""Columns in which a table can be read, and drawn: a terminal that is told to have none, as in some
containers, would be given an empty one."""


def _ensure_a_width() -> None:
    """Leave a width that no terminal has to whoever draws: it has a better one."""
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        told = os.environ.get(name, "").strip()
        if told and not (told.isascii() and told.isdigit() and int(told[:9]) in _WIDTHS):
            del os.environ[name]


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
