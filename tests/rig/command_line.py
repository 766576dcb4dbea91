"""The command line: as a user runs it, in a process of its own and without this one's settings; and
as it takes a line apart, without running it."""

import atexit
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import typer

from flashsale.cli.tree import tree

_OURS = ("FLASHSALE_", "GITHUB_", "PYTEST_")
_WARM = (
    *("FLASHSALE_", "GITHUB_", "COLUMNS", "PATH"),
    *("PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE"),
)
"""What may be told a process that has its modules; the rest is read where Python starts."""
_LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS)
_TIMEOUT_S = 150


def run_flashsale(
    folder: Path, *arguments: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """`flashsale ARGUMENTS` in `folder`, to its end: without colours, 120 columns wide.

    Its process has the modules already (`rig/warm.py`), unless an environment is given that may
    mean something to Python that cannot be told it later, or to what is loaded.
    """
    outer = {
        name: value
        for name, value in os.environ.items()
        if name == "FLASHSALE_SERVICES_DIR" or not name.startswith(_OURS)
    }
    told = {**outer, "COLUMNS": "120", "NO_COLOR": "1", **environment}
    if all(name.startswith(_WARM) for name in environment):
        os.umask(umask := os.umask(0))
        started = tuple(pair for pair in outer.items() if not pair[0].startswith(_WARM))
        return _warm(started).run(
            {
                "folder": str(folder),
                "arguments": arguments,
                "environment": told,
                "umask": umask,
                "limits": [(limit, resource.getrlimit(limit)) for limit in _LIMITS],
            }
        )
    return subprocess.run(
        [sys.executable, "-m", "flashsale", *arguments],
        cwd=folder,
        env=told,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


class _Warm:
    """The way to a process that forks commands, until this one ends."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("warm.py")), str(theirs.fileno())],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        atexit.register(self._close)

    def _close(self) -> None:
        self._asked.close()
        self._process.wait(_TIMEOUT_S)

    def run(self, command: Mapping[str, Any]) -> "subprocess.CompletedProcess[str]":
        """The command, to its end. Raises as subprocess.run does where that is too far off."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with answers, theirs:
            ends = (out_end, err_end, theirs.fileno())
            socket.send_fds(self._asked, [json.dumps(command).encode()], ends)
            theirs.close()
            os.close(out_end)
            os.close(err_end)
            answers.settimeout(_TIMEOUT_S)
            pid = int(answers.recv(64))
            try:
                told, complained = _read_to_the_end(out, err)
                code = int(answers.recv(64))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command["arguments"], _TIMEOUT_S) from None
        return subprocess.CompletedProcess(command["arguments"], code, told, complained)


def _read_to_the_end(*pipes: int) -> list[str]:
    read = {pipe: bytearray() for pipe in pipes}
    deadline_s = time.monotonic() + _TIMEOUT_S
    with selectors.DefaultSelector() as selector, ExitStack() as closing:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
            closing.callback(os.close, pipe)
        while selector.get_map():
            ready = selector.select(deadline_s - time.monotonic())
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                data = os.read(key.fd, 65_536)
                read[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    return [data.decode() for data in read.values()]


_warm = cache(lambda environment: _Warm(dict(environment)))


@cache
def _tree() -> Any:
    return typer.main.get_command(tree())


def parse(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command that `words` name after `flashsale`, and its parameters, all of them taken.

    Raises what a user sees (typer.TyperException) where there is no such command, option or value.
    """
    command, name, rest, context = _tree(), "flashsale", list(words), None
    try:
        while True:
            context = command.make_context(name, rest, parent=context)
            left = [*context._protected_args, *context.args]
            if not hasattr(command, "resolve_command") or not left:
                return " ".join(context.command_path.split()[1:]), context.params
            name, command, rest = command.resolve_command(context, left)
    except typer.Exit:  # --help and --version say something and are done
        return name, {}
