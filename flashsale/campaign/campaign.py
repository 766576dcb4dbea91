"""A campaign as others see it: the system that it is to work on, found by URL or by the stack of a
state folder; what it has come to; and who is told, a terminal, a log, or nobody.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flashsale.books import Books, ShopBooks
from flashsale.errors import ExitCode, UnreachableError
from flashsale.files import with_password
from flashsale.model import Verdict
from flashsale.run.folder import STACK_FILE, RunFolder, read_file, write_file
from flashsale.run.summary import Summary
from flashsale.scenario.target import Target, Tls
from flashsale.seeding.settings import Silent, StageProgress
from flashsale.stack.state import StackState, read_state
from flashsale.storm.attack.attack import ShowProgress
from flashsale.verify.finding import Judgement

DEFAULT_STATE_DIR = Path(".flashsale")
TOKENS = "tokens.csv"
"""The users' sessions, in the state folder of the stack that knows them."""
_PATH_BYTES_MAX = 64 * 1024


@dataclass(frozen=True)
class Stores:
    """The three stores of one system, by URL."""

    ledger_url: str
    cache_url: str
    mysql_url: str

    @classmethod
    def of(cls, state: StackState) -> "Stores":
        """Those of a running stack."""
        return cls(state.ledger_url, state.cache_url, state.mysql_url)


def find_stores(
    state_dir: Path,
    ledger_url: str | None = None,
    cache_url: str | None = None,
    mysql_url: str | None = None,
) -> Stores:
    """The stores that are named, else those of the stack in `state_dir`.

    Raises UnreachableError where neither names one.
    """
    if ledger_url and cache_url and mysql_url:
        return Stores(ledger_url, cache_url, mysql_url)
    state = _running(state_dir, "--ledger-url, --cache-url and --mysql-url")
    return Stores(
        ledger_url or state.ledger_url, cache_url or state.cache_url, mysql_url or state.mysql_url
    )


def find_base_url(state_dir: Path, base_url: str | None = None) -> str:
    """The base URL given, else that of the stack in `state_dir`. Raises UnreachableError."""
    return base_url.rstrip("/") if base_url else _running(state_dir, "--base-url").base_url


def shop_books(
    books: Books,
    base_url: str,
    url: str | None = None,
    redis_url: str | None = None,
    tls: Tls | None = None,
) -> ShopBooks:
    """The books of a shop at the places that are named, else at those in its file. Raises
    UsageError, and UnreachableError where the host of its routes is not known."""
    kept, way = books.redis.url if books.redis else "", None
    if books.route and base_url.startswith(("unix:", "https:")):
        target = Target.at(base_url, tls)
        way, base_url = target.way, target.origin if target.socket else base_url
    return ShopBooks(
        books,
        url or with_password(books.url, "FLASHSALE_BOOKS_PASSWORD"),
        redis_url or with_password(kept, "FLASHSALE_BOOKS_REDIS_PASSWORD"),
        base_url,
        way,
    )


def _running(state_dir: Path, options: str) -> StackState:
    state = read_state(state_dir)
    if state is None:
        where = "" if state_dir == DEFAULT_STATE_DIR else f" --state-dir {state_dir}"
        raise UnreachableError(
            f"no stack runs in {state_dir}; start one with `flashsale serve --detach{where}`, "
            f"or give {options}"
        )
    return state


def record_stack(run_dir: Path, state_dir: Path) -> None:
    """Note in a run's folder which stack it stormed, so that `verify` finds it again."""
    write_file(run_dir / STACK_FILE, os.fsencode(state_dir.absolute()) + b"\n")


def copy_stack(run_dir: Path, other_dir: Path) -> None:
    """Note in another run's folder the stack that this run stormed, if it is known."""
    with suppress(OSError):
        write_file(other_dir / STACK_FILE, read_file(run_dir / STACK_FILE, _PATH_BYTES_MAX))


def stack_of(run_dir: Path, state_dir: Path | None) -> Path:
    """The state folder that was given, else the one that the run stormed, else the default."""
    if state_dir is not None:
        return state_dir
    try:
        noted = os.fsdecode(read_file(run_dir / STACK_FILE, _PATH_BYTES_MAX)).strip()
    except OSError:
        return DEFAULT_STATE_DIR
    return DEFAULT_STATE_DIR if "\0" in noted else Path(noted)


# What it has come to, and who is told -------------------------------------------------------------


@dataclass(frozen=True)
class StormRun:
    """A storm that is over, and where its files are."""

    summary: Summary
    folder: RunFolder


@dataclass(frozen=True)
class JudgedRun:
    """A run with its judgement. `summary` is None where the storm left none that can be read."""

    folder: RunFolder
    judgement: Judgement
    summary: Summary | None

    @property
    def verdict(self) -> Verdict:
        """Of the whole run, for which its own failings count beside the judgement."""
        return self.summary.verdict if self.summary else self.judgement.verdict

    @property
    def exit_code(self) -> ExitCode:
        """What the process that judged is to exit with."""
        return ExitCode(self.summary.exit_code) if self.summary else self.judgement.exit_code


class Teller:
    """Tells nobody; whoever wants to be told overrides what they want to hear of.

    Calls come in the order of the phases, from the thread that runs them.
    """

    def say(self, line: str) -> None:
        """One line worth reading."""

    @contextmanager
    def working(self, command: str) -> Iterator[StageProgress]:
        """`seed` or `warm` is at work for the time of the block."""
        yield Silent()

    @contextmanager
    def storming(self, units: int | None) -> Iterator[ShowProgress]:
        """A storm is under way, on `units` that it alone sells; None where that is not known."""
        yield lambda progress: None

    @contextmanager
    def waiting(self) -> Iterator[Callable[[int], None]]:
        """The judge waits for the queue; the callable is told how many orders are left."""
        yield lambda left: None

    def stormed(self, run: StormRun) -> None:
        """A storm is over, and its files are written."""

    def judged(self, found: JudgedRun) -> None:
        """A sale is judged, and the files of its run are written."""

    def observed(self, state: StackState) -> None:
        """A stack with a Prometheus beside it has been stormed, and is still up."""


SILENT = Teller()
"""Nobody is told."""
