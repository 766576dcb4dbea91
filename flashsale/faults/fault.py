"""A fault: an object that knows how to be done, to be healed and to describe itself; and the stack
that it is done to.
"""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import psutil
import pymysql
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from flashsale.errors import FlashsaleError, UnreachableError
from flashsale.scenario.fault import SALE
from flashsale.scenario.fault import Fault as Planned
from flashsale.sentinels import client_url, follow
from flashsale.stack.state import ChildState, StackState, check, read_state
from flashsale.store_urls import (
    MySQLConnection,
    mysql_arguments,
    open_mysql,
    read_mysql_url,
    read_redis_url,
)

TROUBLES = (FlashsaleError, OSError, RedisError, pymysql.Error, psutil.Error)
"""What can keep a fault from being made or healed."""

WELL_WITHIN_S = 60.0
"""A process that was ended answers again by then, or its fault is not healed."""

_POLL_S = 0.05
_CALL_TIMEOUT_S = 10.0
_PROCESS = {"mysql": "mariadb"}
"""What a stack calls its process of a role, where that is another name."""

Disturb: TypeAlias = Callable[[str, int, Planned | None], None]
"""Begin with a trouble on a link, under a number; without one, end it."""


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild of the ledger came to: in a line, and acknowledged orders that are gone."""

    told: str
    gone: Sequence[int] = ()


@dataclass(frozen=True)
class Site:
    """The stack that faults are made in, the vouchers on sale, and the folder of the run; how a
    trouble on one of its links is begun and ended, and its ledger rebuilt."""

    state_dir: Path
    vouchers: Sequence[int] = ()
    disturb: Disturb | None = None
    rebuild: Callable[[StackState, Path | None], Rebuilt] | None = None
    run: Path | None = None

    @property
    def state(self) -> StackState:
        """The stack as it is now. Raises UnreachableError where it is gone."""
        state = read_state(self.state_dir)
        if state is None:
            raise UnreachableError(f"the stack in {self.state_dir} is gone")
        return state

    def child(self, name: str) -> ChildState:
        """The process of this name."""
        known = _PROCESS.get(name, name)
        found = next((child for child in self.state.children if child.name == known), None)
        if found is None:
            raise UnreachableError(f"the stack has no process {name}")
        return found

    def names(self, whom: str) -> list[str]:
        """The processes that `whom` stands for: itself, or every one of its role."""
        if whom not in SALE:
            return [whom]
        return [child.name for child in self.state.children if child.kind == whom]

    def redis(self, role: str, *, as_text: bool = True) -> "Redis":
        """A client of the ledger or the cache, by a connection of its own."""
        url = self.state.ledger_url if role == "ledger" else self.state.cache_url
        place = read_redis_url(url)
        client = Redis.from_url(
            client_url(place, url),
            protocol=2,
            decode_responses=as_text,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_CALL_TIMEOUT_S,
        )
        follow(client.connection_pool, place)
        return client

    def mysql(self) -> MySQLConnection:
        """A connection to the database."""
        url = read_mysql_url(self.state.mysql_url)
        return open_mysql(**mysql_arguments(url, read_timeout_s=_CALL_TIMEOUT_S))

    def await_reborn(self, name: str, old_pid: int) -> None:
        """Wait until another process than `old_pid` has the name, and answers."""
        self._await(name, lambda child: child.pid not in (0, old_pid))

    def await_well(self, name: str) -> None:
        """Wait until the process of this name answers."""
        self._await(name, lambda child: child.pid > 0)

    def rebuilt(self) -> Rebuilt:
        """The ledger made whole again; tried until both stores answer."""
        assert self.rebuild is not None, "a ledger that is behind has somebody to rebuild it"
        deadline_s = time.monotonic() + WELL_WITHIN_S
        while True:
            try:
                return self.rebuild(self.state, self.run)
            except TROUBLES:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(_POLL_S)

    @contextmanager
    def supervisor_held(self) -> Iterator[None]:
        """Let nothing be started again inside the block: its files are to be changed first."""
        pid = self.state.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _await(self, name: str, is_there: Callable[[ChildState], bool]) -> None:
        deadline_s = time.monotonic() + WELL_WITHIN_S
        while time.monotonic() < deadline_s:
            with suppress(UnreachableError):
                child, state = self.child(name), self.state
                if is_there(child) and check(state).answers.get(child.name):
                    return
            time.sleep(_POLL_S)
        raise UnreachableError(f"{name} did not answer again within {WELL_WITHIN_S:g} s")


class Fault(ABC):
    """One fault, once. `prepare`, `do` and `heal` are called in this order, from one thread; `heal`
    also after a `do` that failed halfway, and it returns when what was befallen works again.

    All may raise one of TROUBLES.
    """

    found = ""
    """What it came to, in a line."""
    gone: Sequence[int] = ()
    """Acknowledged orders that nothing brings back."""
    behind_s: tuple[float, float] | None = None
    """From when until when the ledger was behind, and had to sell nothing; monotonic."""

    def __init__(self, planned: Planned) -> None:
        self.planned = planned

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.planned}>"

    def describe(self) -> str:
        """What it does, in a line."""
        return f"{self.planned}: {self.planned.kind.meaning}"

    def prepare(self, site: Site) -> None:  # noqa: B027 - most need nothing
        """The storm begins: look at what has to be known before."""

    @abstractmethod
    def do(self, site: Site) -> None:
        """Make it."""

    @abstractmethod
    def heal(self, site: Site) -> None:
        """End it, and wait until it is over."""

    def rebuild_ledger(self, site: Site, since_s: float | None) -> None:
        """Heal a ledger that has been behind since then; None where it may have sold meanwhile."""
        until_s = time.monotonic()
        rebuilt = site.rebuilt()
        self.found, self.gone = rebuilt.told, rebuilt.gone
        if since_s is not None:
            self.behind_s = since_s, until_s


def signal_all(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process of a stack and whatever it started: each leads its own group."""
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def end_of(pid: int, timeout_s: float = 10.0) -> None:
    """Wait until a process that was killed has ended, reaped or not. Raises UnreachableError."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.005)
    raise UnreachableError(f"process {pid} does not end")
