"""A stack in the background: started, waited for, and stopped from another process."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from flashsale.errors import ExitCode, FlashsaleError, UnreachableError, UsageError, ViolationError
from flashsale.secret_file import open_private
from flashsale.stack.process import FLASHSALE, log_tail, tether
from flashsale.stack.state import (
    StackState,
    already_served,
    is_served,
    make_state_dir,
    read_state,
    supervisor_pid,
)

_POLL_S = 0.05
_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 90.0
_KILL_TIMEOUT_S = 10.0
_ERROR_PREFIX = "flashsale: "

_ERRORS: dict[int, type[FlashsaleError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.VIOLATION: ViolationError,
    ExitCode.UNREACHABLE: UnreachableError,
}

_started: dict[int, subprocess.Popen[bytes]] = {}
"""Supervisors that this process started, by process id: it has to reap them when they end."""


def start_detached(
    state_dir: Path,
    arguments: Sequence[str] = (),
    *,
    tied: bool = False,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = _START_TIMEOUT_S,
) -> StackState:
    """Run `flashsale serve` with these arguments in the background; returns when it is ready.

    Its `environment` is this process's where none is given: a URL's password, which `ps` would
    show among the arguments, goes that way.

    A tied stack stops when this process ends, however it ends; then call this from the main
    thread. Raises the error that `serve` ended with, and UnreachableError when time is up.
    """
    log = make_state_dir(state_dir) / "serve.log"
    if is_served(state_dir):
        raise already_served(state_dir)
    command = [*FLASHSALE, "serve", "--state-dir", str(state_dir)]
    with open_private(log) as output:
        start = output.tell()
        supervisor = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=_without_workflow(os.environ if environment is None else environment),
            preexec_fn=tether(signal.SIGTERM) if tied else None,
        )
    _started[supervisor.pid] = supervisor
    try:
        return _await_ready(supervisor, state_dir, _Log(log, start), timeout_s)
    except BaseException:
        _end(supervisor.pid, state_dir, _STOP_TIMEOUT_S)
        raise


def _without_workflow(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without GitHub Actions: whoever starts `serve` tells its error, once."""
    return {name: value for name, value in environment.items() if name != "GITHUB_ACTIONS"}


def stop_stack(state_dir: Path, timeout_s: float = _STOP_TIMEOUT_S) -> bool:
    """Stop the stack of this folder, gracefully if it can; False where none runs.

    When the time is up its supervisor is killed, and every process of the stack with it.
    """
    pid = supervisor_pid(state_dir)
    if pid is None:
        return False
    state = read_state(state_dir)
    _end(pid, state_dir, timeout_s)
    _await_gone([pid, *(child.pid for child in (state.children if state else ()))])
    return True


@dataclass(frozen=True)
class _Log:
    """What one `serve` writes: its log from where this start began."""

    path: Path
    start: int

    def error(self, exit_code: int) -> FlashsaleError:
        """The error that it printed before it ended, as if it had happened here."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            text = file.read().decode(errors="replace")
        _, prefix, message = f"\n{text}".rpartition(f"\n{_ERROR_PREFIX}")
        if not prefix:
            message = f"`flashsale serve` ended with exit status {exit_code}; {self.tail()}"
        return _ERRORS.get(exit_code, FlashsaleError)(message.rstrip())

    def tail(self) -> str:
        return f"the end of {self.path}:\n{log_tail(self.path)}"


def _await_ready(
    supervisor: "subprocess.Popen[bytes]", state_dir: Path, log: _Log, timeout_s: float
) -> StackState:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        exit_code = supervisor.poll()
        if exit_code is not None:
            raise log.error(exit_code)
        state = read_state(state_dir)
        if state and state.pid == supervisor.pid and state.ready:
            return state
        time.sleep(_POLL_S)
    raise UnreachableError(f"the stack was not ready within {timeout_s:g} s; {log.tail()}")


def _end(pid: int, state_dir: Path, timeout_s: float) -> None:
    """Ask a supervisor to stop, and insist when it does not."""
    for signum, limit_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, _KILL_TIMEOUT_S)):
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
        if _has_ended(pid, state_dir, limit_s):
            break
    _started.pop(pid, None)


def _has_ended(pid: int, state_dir: Path, timeout_s: float) -> bool:
    """Whether a supervisor ends within the time; reaps it where it is our own child."""
    ours = _started.get(pid)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if ours.poll() is not None if ours else not is_served(state_dir):
            return True
        time.sleep(_POLL_S)
    return False


def _await_gone(pids: Sequence[int]) -> None:
    """Wait until the last of them has left the process table, but for zombies of other parents."""
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while any(map(_lives, pids)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _lives(pid: int) -> bool:
    try:
        return pid > 0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
