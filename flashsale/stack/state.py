"""How a running stack describes itself (`stack.json`, and the lock that says it is alive), and
whether its processes answer when they are asked from outside.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flashsale.errors import UnreachableError, UsageError
from flashsale.secret_file import private_folder, write_private
from flashsale.stack import probe
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


def make_state_dir(state_dir: Path) -> Path:
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


def already_served(state_dir: Path) -> UsageError:
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
    make_state_dir(state_dir)
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
                raise already_served(state_dir) from None
            time.sleep(0.02)


_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Health:
    """Each process by name, and whether it answered; well where all did and the stack is ready."""

    answers: Mapping[str, bool]
    well: bool


def check(state: StackState) -> Health:
    """Ask every process at once, each in its own protocol."""
    with ThreadPoolExecutor(max(1, len(state.children))) as asking:
        answers = dict(zip(_names(state), asking.map(_answers, state.children), strict=True))
    return Health(answers, state.ready and all(answers.values()))


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
