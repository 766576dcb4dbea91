"""A fault: an object that knows how to be done, to be healed and to describe itself; and the stack
that it is done to.
"""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
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
from flashsale.keys import WHOLE, Lane
from flashsale.primaries import Sentinels, client_url, follow, topology
from flashsale.scenario.fault import SALE, LedgerForm, PlannedFault
from flashsale.stack.cluster import await_whole, folder_of
from flashsale.stack.sentinel import is_whole
from flashsale.stack.state import ChildState, StackState, check, held, read_state
from flashsale.storage.roles import Ledgers
from flashsale.store_urls import (
    MySQLConnection,
    layout_of,
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
_NODE = "redis-ledger"
_PROCESS = {"mysql": "mariadb"}
"""What a stack calls its process of a role, where that is another name."""

Disturb: TypeAlias = Callable[[str, int, PlannedFault | None], None]
"""Begin with a trouble on a link, under a number; without one, end it."""


@dataclass(frozen=True)
class RebuildResult:
    """What a rebuild of the ledger came to: in a line, and acknowledged orders that are gone."""

    told: str
    gone: Sequence[int] = ()


@dataclass(frozen=True)
class Site:
    """The stack that faults are made in, the vouchers on sale, and the folder of the run; how a
    trouble on one of its links is begun and ended, and its ledger rebuilt. Where it `confirms`,
    replicas of the ledger have what is acknowledged."""

    state_dir: Path
    vouchers: Sequence[int] = ()
    disturb: Disturb | None = None
    rebuild: Callable[[StackState, Path | None], RebuildResult] | None = None
    run: Path | None = None
    confirms: bool = False

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

    @property
    def form(self) -> LedgerForm:
        """What its ledger is."""
        if not self.nodes:
            return LedgerForm.SERVER
        is_pair = layout_of(self.state.ledger_url).is_whole
        return LedgerForm.PAIR if is_pair else LedgerForm.CLUSTER

    @property
    def nodes(self) -> Mapping[str, ChildState]:
        """The nodes of the ledger by name; none where it is one server."""
        found = {it.name: it for it in self.state.children if it.kind == _NODE}
        return found if len(found) > 1 else {}

    def masters(self) -> Mapping[Lane, str]:
        """The node that has each lane of the ledger now; nothing where it is one server."""
        named = {node.port: name for name, node in self.nodes.items()}
        if not named:
            return {}
        url = self.state.ledger_url
        if self.form is LedgerForm.PAIR:
            return {WHOLE: named.get(Sentinels(read_redis_url(url)).ask().port, "")}
        known = topology(url)
        known.doubt()
        return {lane: named.get(known.place(lane)[1], "") for lane in layout_of(url).lanes}

    def one(self, whom: str) -> str:
        """The process that `whom` names now: `ledger` is the master of the first sale's lane, or
        the primary."""
        if whom != "ledger":
            return whom
        first = layout_of(self.state.ledger_url).of(next(iter(self.vouchers), 0))
        return self.masters().get(first, whom)

    def names(self, whom: str) -> list[str]:
        """The processes that `whom` stands for: itself, or every one of its role."""
        if whom not in SALE:
            return [self.one(whom)]
        return [child.name for child in self.state.children if child.kind == whom]

    def redis(self, name: str, *, as_text: bool = True) -> "Redis":
        """A client of the cache, of the ledger where that is one server, or of a node of it, by a
        connection of its own."""
        state = self.state
        url = {"ledger": state.ledger_url, "cache": state.cache_url}.get(name)
        if url is None or name in self.nodes:
            url = self.child(name).url or ""
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

    @contextmanager
    def lanes(self, role: str) -> Iterator[Sequence[tuple[Lane, "Redis"]]]:
        """Every lane of the ledger, each with a client of its master; the cache is a whole."""
        url = self.state.ledger_url
        with ExitStack() as closing:
            if role != "ledger" or layout_of(url).is_whole:
                name = self.one(role)
                yield [(WHOLE, closing.enter_context(self.redis(name, as_text=False)))]
                return
            ledgers = Ledgers.at(url, timeout_s=_CALL_TIMEOUT_S)
            closing.callback(ledgers.close)
            yield list(zip(ledgers.layout.lanes, ledgers.clients, strict=True))

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

    def rebuilt(self) -> RebuildResult:
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

    def held(self, *names: str) -> AbstractContextManager[None]:
        """Let none of these be started again inside the block: what it left is to be changed."""
        return held(self.state_dir, names)

    def await_whole(self) -> None:
        """Wait until a ledger of several nodes is whole: each lane has its master, and that a
        replica which has all of it."""
        urls = [node.url or "" for node in self.nodes.values()]
        match self.form:
            case LedgerForm.CLUSTER:
                await_whole(urls, WELL_WITHIN_S)
            case LedgerForm.PAIR:
                here = read_redis_url(self.state.ledger_url)
                self.until(lambda: is_whole(here, urls), "the ledger had no replica again")

    def until(self, is_done: Callable[[], bool], otherwise: str) -> None:
        """Wait until it is done; what is away meanwhile may come. Raises UnreachableError."""
        deadline_s = time.monotonic() + WELL_WITHIN_S
        while time.monotonic() < deadline_s:
            with suppress(UnreachableError, RedisError):
                if is_done():
                    return
            time.sleep(_POLL_S)
        raise UnreachableError(f"{otherwise} within {WELL_WITHIN_S:g} s")

    def _await(self, name: str, is_there: Callable[[ChildState], bool]) -> None:
        def answers() -> bool:
            child, state = self.child(name), self.state
            return is_there(child) and bool(check(state).answers.get(child.name))

        self.until(answers, f"{name} did not answer again")


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
    masters: Mapping[Lane, str] = {}
    """Of a fault of a ledger of several nodes: who had each lane before it."""

    def __init__(self, planned: PlannedFault) -> None:
        self.planned = planned

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.planned}>"

    def describe(self) -> str:
        """What it does, in a line."""
        return f"{self.planned}: {self.planned.kind.meaning}"

    def prepare(self, site: Site) -> None:  # noqa: B027 - most need nothing
        """The storm begins: look at what has to be known before."""

    def look(self, site: Site) -> None:
        """See who has which lane, before it is made."""
        if self.planned.is_of_ledger:
            self.masters = site.masters()

    @abstractmethod
    def do(self, site: Site) -> None:
        """Make it."""

    @abstractmethod
    def heal(self, site: Site) -> None:
        """End it, and wait until it is over."""

    def settle(self, site: Site) -> None:
        """It is healed: wait until a ledger of several nodes is whole. Where another master took
        over that nobody had asked whether it has what was acknowledged, the ledger is rebuilt."""
        if not self.masters:
            return
        site.await_whole()
        now = site.masters()
        moved = {was: now[lane] for lane, was in self.masters.items() if now[lane] != was}
        if moved:
            self.tell(", ".join(f"{name} took over from {was}" for was, name in moved.items()))
        if moved and not site.confirms and self.behind_s is None:
            self.rebuild_ledger(site, None)

    def tell(self, line: str) -> None:
        """Something more of what it came to."""
        self.found = "; ".join(filter(None, (self.found, line)))

    def rebuild_ledger(self, site: Site, since_s: float | None) -> None:
        """Heal a ledger that has been behind since then; None where it may have sold meanwhile."""
        site.await_whole()
        until_s = time.monotonic()
        rebuilt = site.rebuilt()
        self.tell(rebuilt.told)
        self.gone = rebuilt.gone
        if since_s is not None:
            self.behind_s = since_s, until_s


def data_of(name: str, form: LedgerForm) -> str:
    """The folder of what a process of this name keeps, below that of its stack. Pure."""
    if form is LedgerForm.CLUSTER and name.startswith("ledger-"):
        return f"ledger/{folder_of(name)}"
    return {"mysql": "mariadb/data"}.get(name, name)


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
