"""One child process: bound to this one's life, logging to a file of bounded size, stopped for
certain.
"""

import ctypes
import os
import platform
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashsale.errors import UnreachableError
from flashsale.files import open_private

_PR_SET_PDEATHSIG = 1
_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DESCRIPTORS_MAX = 1_048_576  # some limits are a billion, and programs size tables by them
_UMASK = 0o077


PROMPT_US = 100
"""The slice of what others wait for: stores, workers, nginx. The kernel takes none below it."""

_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Numbers of the system call sched_setattr(2), which the C library does not offer."""
_KEEP_POLICY = 0x08
_AS_WORDS = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, 2 others


def slice_setter(slice_us: int) -> Callable[[], None]:
    """A function that asks the kernel for short slices for the process that calls it, and for all
    that this starts: who has the shorter one goes first when it wakes up, and gets no more CPU by
    it. Linux knows it from 6.12 on; elsewhere nothing changes. It makes one system call."""
    number = _SETATTR.get(platform.machine())
    if number is None:
        return lambda: None
    call = ctypes.CDLL(None, use_errno=True).syscall
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    runtime_ns = slice_us * 1_000
    words = ctypes.create_string_buffer(
        _AS_WORDS.pack(_AS_WORDS.size, 0, _KEEP_POLICY, niceness, 0, runtime_ns, 0, 0)
    )
    return lambda: call(number, 0, words, 0)


def tether(
    death_signal: signal.Signals = signal.SIGKILL, before_exec: Callable[[], None] = lambda: None
) -> Callable[[], None]:
    """What `subprocess.Popen(preexec_fn=...)` runs in the child, between fork and exec.

    The kernel sends `death_signal` to the child when the *thread* that started it ends, so
    tethered children are started from the main thread only. Everything is looked up here, in the
    parent: the function itself only makes system calls.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
        os.umask(_UMASK)  # what it writes is this user's alone
        raise_descriptor_limit()
        before_exec()

    return bind


def start_tethered(
    arguments: Sequence[str],
    *,
    death_signal: signal.Signals = signal.SIGKILL,
    before_exec: Callable[[], None] = lambda: None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """A child that ends with the thread that calls this; `options` are those of Popen.

    Signals are held back while it is forked: what a handler raises inside the hooks that run around
    a fork is printed and lost, so a Ctrl-C in that moment would do nothing. It raises here
    afterwards, and the child has gone then: nobody else knows of it.
    """
    child = None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        try:
            child = subprocess.Popen(
                arguments, preexec_fn=tether(death_signal, before_exec), **options
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except BaseException:
        if child is not None:
            child.kill()
            child.wait()
        raise
    return child


def exit_code_of(child: subprocess.Popen[bytes]) -> int | None:
    """None while it runs; reaps it otherwise. Negative: the signal that ended it.

    `Popen.poll` looks under a lock, and what a signal's handler raises in that moment leaves it
    locked: then a child never ends. This looks without, and may be interrupted anywhere.
    """
    if child.returncode is None:
        try:
            ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                code = ended.si_status
                child.returncode = code if ended.si_code == os.CLD_EXITED else -code
                os.waitpid(child.pid, 0)
        except ChildProcessError:
            # Another thread has reaped it, and told how it ended; or, where SIGCHLD is ignored, the
            # kernel has, and nobody knows: then it ended well, as `Popen.poll` has it.
            if child.returncode is None:
                child.returncode = 0
    return child.returncode


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to its hard limit; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def roll(log: Path, bytes_max: int, files_max: int) -> bool:
    """Where `log` is longer than `bytes_max`, move its text to `log.1`, and older ones up.

    The child keeps its open file, so the text is copied and the file cut: a line written between
    the two is lost, which is the price of not standing between a server and its log.
    """
    try:
        if log.stat().st_size <= bytes_max:
            return False
    except FileNotFoundError:
        return False
    for number in range(files_max - 1, 0, -1):
        older = _numbered(log, number)
        if older.exists():
            older.replace(_numbered(log, number + 1))
    with log.open("rb") as text, open_private(_numbered(log, 1), os.O_TRUNC) as copy:
        shutil.copyfileobj(text, copy)
    with log.open("r+b") as file:
        file.truncate(0)
    return True


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


_LOG_TAIL_LINES = 12
_KILL_TIMEOUT_S = 10
_POLL_S = 0.005


FLASHSALE = (sys.executable, "-P", "-m", "flashsale")
"""How a stack runs its own commands: by this interpreter, and whatever lies in the current folder
is no module of it."""


_OWN = "FLASHSALE_"


def plain_environment() -> dict[str, str]:
    """Our environment without anything of ours: URLs, tokens and passwords are no business of a
    program that does not ask for them."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}


@dataclass(frozen=True)
class CommandLine:
    """What to run, where, in which environment, and how it is told to stop."""

    arguments: Sequence[str | Path]
    environment: Mapping[str, str]
    directory: Path
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL  # what it gets when this process dies
    slice_us: int = PROMPT_US  # how soon it goes first when it wakes up


@dataclass
class Process:
    """A started child. It leads a session of its own, so Ctrl-C reaches this process alone."""

    command: CommandLine
    log: Path
    _popen: subprocess.Popen[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        with open_private(self.log) as log:
            try:
                self._popen = start_tethered(
                    [str(argument) for argument in self.command.arguments],
                    death_signal=self.command.death_signal,
                    before_exec=slice_setter(self.command.slice_us),
                    env=dict(self.command.environment),
                    cwd=self.command.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise UnreachableError(
                    f"cannot run {self.command.arguments[0]}: {error.strerror}"
                ) from None
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; reaps it otherwise. Negative: the signal that ended it."""
        return exit_code_of(self._popen)

    def ask_to_stop(self) -> None:
        """Send the stop signal and return at once."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, self.command.stop_signal)

    def stop(self, timeout_s: float) -> None:
        """Ask, wait, then kill; afterwards nothing of the child's session is left."""
        self.ask_to_stop()
        try:
            self._await_end(timeout_s)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the child and whatever it started, at once. Also sweeps up after a dead child.

        Where a disk holds it for longer than a while, it is left to end when the disk lets it.
        """
        self.strike()
        self._await_end(_KILL_TIMEOUT_S)

    def strike(self) -> None:
        """Send SIGKILL to the child and whatever it started, and return at once."""
        # A reaped leader's id names its group for as long as any of its children lives.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _await_end(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.exit_code is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def log_tail(self) -> str:
        """The last lines of its log, indented, for an error message."""
        return log_tail(self.log)


def log_tail(log: Path, lines: int = _LOG_TAIL_LINES) -> str:
    """The last lines of a log file, indented; says so where there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        text = ""
    tail = text.strip().splitlines()[-lines:]
    return "\n".join(f"  {line}" for line in tail) or "  (its log is empty)"
