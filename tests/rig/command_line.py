"""The command line: as a user runs it, in a process of its own and without this one's settings; and
as it takes a line apart, without running it."""

import atexit
import json
import os
import resource
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import IO, Any

import typer

from flashsale.cli.tree import tree

_OURS = ("FLASHSALE_", "GITHUB_", "PYTEST_")
_WARM = (
    *("FLASHSALE_", "GITHUB_", "COLUMNS", "TERMINAL_WIDTH", "NO_COLOR", "PATH"),
    *("PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"),
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
    told = {**_outer(), "COLUMNS": "120", "NO_COLOR": "1", **environment}
    if all(name.startswith(_WARM) for name in environment):
        return _run(_command(folder, arguments, told))
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


def _run(command: Mapping[str, Any]) -> "subprocess.CompletedProcess[str]":
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    try:
        started = Started(command, subprocess.DEVNULL, out_end, err_end)
    finally:
        os.close(out_end)
        os.close(err_end)
    try:
        told, complained = _read_to_the_end(out, err)
        started.wait(_TIMEOUT_S)
    except (TimeoutError, subprocess.TimeoutExpired):
        started.kill()
        raise subprocess.TimeoutExpired(command["arguments"], _TIMEOUT_S) from None
    finally:
        started.close()
    return subprocess.CompletedProcess(
        command["arguments"], started.returncode or 0, told, complained
    )


def _outer() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name == "FLASHSALE_SERVICES_DIR" or not name.startswith(_OURS)
    }


def _command(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str], **more: Any
) -> dict[str, Any]:
    os.umask(umask := os.umask(0))
    return {
        "folder": str(folder),
        "arguments": arguments,
        "environment": environment,
        "umask": umask,
        "limits": [(limit, resource.getrlimit(limit)) for limit in _LIMITS],
        "tethered": False,
        "warnings": (),
        **more,
    }


def start_flashsale(
    folder: Path,
    *arguments: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    warnings: Sequence[str] = (),
    limits: Mapping[int, int] | None = None,
    **environment: str,
) -> "Started":
    """`flashsale ARGUMENTS` in `folder`, under way, with its modules loaded; it ends with this
    process at the latest.

    A stream is a descriptor, or as subprocess has it; `warnings` are categories that are always
    told, `limits` are RLIMIT_… beside those of this process. The environment is this process's
    without FLASHSALE_…, and what is given; of Python's own variables only PYTHONUNBUFFERED and
    those of run_flashsale mean something.
    """
    assert all(name.startswith(_WARM) for name in environment)
    told = _outer() | environment
    command = _command(folder, arguments, told, tethered=True, warnings=warnings)
    command["limits"] += [(limit, (most, most)) for limit, most in (limits or {}).items()]
    return Started(command, stdin, stdout, stderr)


class Started:
    """A command under way, to be handled as a subprocess.Popen with text streams is."""

    def __init__(self, command: Mapping[str, Any], *streams: int) -> None:
        self.args, self.returncode = command["arguments"], None
        self.returncode: int | None
        ours: list[IO[str] | None] = []
        self._codes, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as closing:
            closing.callback(theirs.close)
            given = []
            for stream in streams:
                ours.append(None)
                if stream == subprocess.DEVNULL:
                    stream = os.open(os.devnull, os.O_RDWR)
                    closing.callback(os.close, stream)
                elif stream == subprocess.STDOUT:
                    stream = given[-1]
                elif stream == subprocess.PIPE:
                    end, stream = os.pipe()
                    closing.callback(os.close, stream)
                    ours[-1] = open(end, encoding="utf-8")  # noqa: PTH123, SIM115
                given.append(stream)
            outer = command["environment"].items()
            started = tuple(pair for pair in outer if not pair[0].startswith(_WARM))
            _warm(started).ask(command, [*given, theirs.fileno()])
        _, self.stdout, self.stderr = ours
        self._codes.settimeout(_TIMEOUT_S)
        self.pid = int(self._codes.recv(64))

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._codes], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._codes.recv(64))
        return self.returncode

    def communicate(self, timeout: float | None = None) -> list[str]:
        """The rest of both streams, and the end of it; nothing of a stream that is no pipe."""
        told = ["", ""]
        streams = enumerate((self.stdout, self.stderr))
        readers = [
            Thread(target=lambda n, from_: told.__setitem__(n, from_.read()), args=pair)
            for pair in streams
            if pair[1]
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        self.close()
        return told

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Let go of the streams, and of the way to its exit code."""
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        self._codes.close()

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self.kill()
        self.wait()
        self.close()


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

    def ask(self, command: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        socket.send_fds(self._asked, [json.dumps(command).encode()], descriptors)


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
