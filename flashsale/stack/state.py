"""A stack as others see it: how it describes itself (`stack.json`, and the lock that says it is
alive), whether its processes answer when they are asked; and a stack in the background: started,
waited for, and stopped from another process."""

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from flashsale.errors import ExitCode, FlashsaleError, UnreachableError, UsageError, ViolationError
from flashsale.files import open_private, private_folder, write_private
from flashsale.stack import probe
from flashsale.stack.process import FLASHSALE, exit_code_of, log_tail, tether
from flashsale.store_urls import mysql_answers, read_redis_url

SCHEMA = 1

_STATE = "stack.json"
_LOCK = "serve.lock"
_LOCK_PATIENCE_S = 1.0


@dataclass(frozen=True)
class ChildState:
    """One process of the stack."""

    name: str
    kind: str  # redis-ledger, redis-cache, sentinel, mariadb, nginx, replica, worker
    pid: int
    port: int | None
    url: str | None
    log: str
    restarts: int
    status_url: str | None = None  # nginx's own counters (stub_status), for an exporter


@dataclass(frozen=True)
class StackState:
    """A whole stack: where its parts are reached, and who runs them."""

    schema: int
    pid: int  # of the supervisor
    started_at: str  # ISO 8601, UTC
    ready: bool
    base_url: str
    ledger_url: str
    cache_url: str
    mysql_url: str
    children: tuple[ChildState, ...]


def read_state(state_dir: Path) -> StackState | None:
    """The stack that runs from `state_dir`; None where there is none or its supervisor is dead."""
    try:
        fields = json.loads((state_dir / _STATE).read_text(encoding="utf-8"))
        children = tuple(ChildState(**child) for child in fields.pop("children"))
        state = StackState(**fields, children=children)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None  # none, or not one of ours
    return state if state.schema == SCHEMA and is_served(state_dir) else None


def write_state(state_dir: Path, state: StackState) -> None:
    """Replace `stack.json` in one step; it holds passwords, so only this user may read it."""
    write_private(state_dir / _STATE, json.dumps(asdict(state), indent=2))


def remove_state(state_dir: Path) -> None:
    """Forget the stack: it runs no more."""
    (state_dir / _STATE).unlink(missing_ok=True)


def _make_state_dir(state_dir: Path) -> Path:
    """Create the folder and its `logs`, for this user alone; returns `logs`."""
    logs = state_dir / "logs"
    try:
        private_folder(logs)
        (state_dir / _LOCK).touch(mode=0o600)
    except OSError as error:
        raise UnreachableError(
            f"cannot write {state_dir} ({error.strerror}); choose another folder with --state-dir"
        ) from None
    return logs


def supervisor_pid(state_dir: Path) -> int | None:
    """Who holds this folder, also while the stack is still starting; None where nobody does."""
    if not is_served(state_dir):
        return None
    try:
        return int((state_dir / _LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _already_served(state_dir: Path) -> UsageError:
    """The error for a second `serve` in one folder."""
    return UsageError(
        f"a stack already runs in {state_dir} (process {supervisor_pid(state_dir) or 'unknown'}); "
        f"stop it with `flashsale stop --state-dir {state_dir}`, or choose another --state-dir"
    )


def is_served(state_dir: Path) -> bool:
    """Whether a supervisor holds this folder. The lock ends with its process, however it ends."""
    try:
        with (state_dir / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def served(state_dir: Path) -> Iterator[None]:
    """Hold this folder as its one supervisor. Raises UsageError where there is another."""
    _make_state_dir(state_dir)
    with (state_dir / _LOCK).open("a+", encoding="ascii") as lock:
        _lock_patiently(lock.fileno(), state_dir)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _lock_patiently(lock: int, state_dir: Path) -> None:
    """A reader of the state holds the lock for an instant too: that is no other supervisor."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise _already_served(state_dir) from None
            time.sleep(0.02)


@contextmanager
def held(state_dir: Path, names: Sequence[str]) -> Iterator[None]:
    """Let none of these processes be started again inside the block, whoever ends them, as long as
    this process lives."""
    marks = [_hold(state_dir, name) for name in names]
    try:
        for mark in marks:
            write_private(mark, str(os.getpid()))
        yield
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def is_held(state_dir: Path, name: str) -> bool:
    """Whether a process of this stack is not to be started now."""
    try:
        return _lives(int(_hold(state_dir, name).read_text(encoding="ascii")))
    except (OSError, ValueError):
        return False


def _hold(state_dir: Path, name: str) -> Path:
    return state_dir / f"{name}.held"


_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class StackHealth:
    """Each process by name, and whether it answered; well where all did and the stack is ready."""

    answers: Mapping[str, bool]
    well: bool


def check(state: StackState) -> StackHealth:
    """Ask every process at once, each in its own protocol."""
    with ThreadPoolExecutor(max(1, len(state.children))) as asking:
        answers = dict(zip(_names(state), asking.map(_answers, state.children), strict=True))
    return StackHealth(answers, state.ready and all(answers.values()))


def _names(state: StackState) -> list[str]:
    return [child.name for child in state.children]


def _answers(child: ChildState) -> bool:
    question = _QUESTIONS.get(child.kind, _asks_http)
    return child.pid > 0 and child.url is not None and question(child.url)


def _asks_http(url: str) -> bool:
    return probe.http_status(*_address(url), "/healthz", _TIMEOUT_S) == 200


def _asks_any_page(url: str) -> bool:
    return probe.http_status(*_address(url), "/", _TIMEOUT_S) == 200


def _asks_prometheus(url: str) -> bool:
    return probe.http_status(*_address(url), "/-/ready", _TIMEOUT_S) == 200


def _asks_redis(url: str) -> bool:
    return probe.redis_reply(read_redis_url(url), _TIMEOUT_S) == "+PONG"


def _asks_mysql(url: str) -> bool:
    return mysql_answers(url, _TIMEOUT_S)


_QUESTIONS: dict[str, Callable[[str], bool]] = {
    "redis-ledger": _asks_redis,
    "redis-cache": _asks_redis,
    "sentinel": _asks_redis,
    "mariadb": _asks_mysql,
    "prometheus": _asks_prometheus,
    "redis-exporter": _asks_any_page,
    "mysql-exporter": _asks_any_page,
    "nginx-exporter": _asks_any_page,
}


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


# In the background -------------------------------------------------------------------------------

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
    log = _make_state_dir(state_dir) / "serve.log"
    if is_served(state_dir):
        raise _already_served(state_dir)
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
        exit_code = exit_code_of(supervisor)
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
        if exit_code_of(ours) is not None if ours else not is_served(state_dir):
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
