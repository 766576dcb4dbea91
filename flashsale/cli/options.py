"""Options that several commands share, and how a command finds the system it is to work on."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from flashsale.errors import UnreachableError
from flashsale.secret_file import with_password


def _store(option: str, variable: str) -> Callable[[str | None], str | None]:
    """See that a store's URL is one, and put the password into one that came without."""

    def check(url: str | None) -> str | None:
        if not url:
            return url
        from flashsale.store_urls import read_mysql_url, read_redis_url

        read = read_mysql_url if option == "--mysql-url" else read_redis_url
        read(url, option)  # first: nobody can tell where the password of a broken URL would go
        return with_password(url, variable)

    return check


StateDir = Annotated[
    Path,
    typer.Option(
        "--state-dir",
        envvar="FLASHSALE_STATE_DIR",
        help="Where a stack keeps its data, logs and stack.json.",
        show_default=True,
    ),
]
RunStateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="FLASHSALE_STATE_DIR",
        help="The state folder of the stack that was stormed.",
        show_default="the run's own, else .flashsale",
    ),
]
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger-url",
        envvar="FLASHSALE_LEDGER_URL",
        callback=_store("--ledger-url", "FLASHSALE_LEDGER_PASSWORD"),
        help="The Redis that must lose nothing.",
    ),
]
CacheUrl = Annotated[
    str | None,
    typer.Option(
        "--cache-url",
        envvar="FLASHSALE_CACHE_URL",
        callback=_store("--cache-url", "FLASHSALE_CACHE_PASSWORD"),
        help="The Redis that may lose everything.",
    ),
]
MySQLUrl = Annotated[
    str | None,
    typer.Option(
        "--mysql-url",
        envvar="FLASHSALE_MYSQL_URL",
        callback=_store("--mysql-url", "FLASHSALE_MYSQL_PASSWORD"),
        help="mysql://user:password@host:port/database of MySQL 8 or MariaDB.",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", envvar="FLASHSALE_BASE_URL", help="Where the sale answers HTTP."),
]

DEFAULT_STATE_DIR = Path(".flashsale")
_STACK_OF_RUN = "stack"


@dataclass(frozen=True)
class Stores:
    """The three stores of one system, by URL."""

    ledger_url: str
    cache_url: str
    mysql_url: str


def find_stores(
    state_dir: Path,
    ledger_url: str | None = None,
    cache_url: str | None = None,
    mysql_url: str | None = None,
) -> Stores:
    """The stores named by option or environment, else those of the stack in `state_dir`.

    Raises UnreachableError where neither names one.
    """
    if ledger_url and cache_url and mysql_url:
        return Stores(ledger_url, cache_url, mysql_url)
    from flashsale.stack.state import read_state

    state = read_state(state_dir)
    if state is None:
        raise UnreachableError(
            f"no stack runs in {state_dir}; start one with `{_serve(state_dir)}`, "
            "or give --ledger-url, --cache-url and --mysql-url"
        )
    return Stores(
        ledger_url or state.ledger_url, cache_url or state.cache_url, mysql_url or state.mysql_url
    )


def find_base_url(state_dir: Path, base_url: str | None = None) -> str:
    """The base URL given, else that of the stack in `state_dir`. Raises UnreachableError."""
    if base_url:
        return base_url.rstrip("/")
    from flashsale.stack.state import read_state

    state = read_state(state_dir)
    if state is None:
        raise UnreachableError(
            f"no stack runs in {state_dir}; start one with `{_serve(state_dir)}`, "
            "or give --base-url"
        )
    return state.base_url


def _serve(state_dir: Path) -> str:
    """The command that starts a stack there, or starts it again."""
    where = "" if state_dir == DEFAULT_STATE_DIR else f" --state-dir {state_dir}"
    return f"flashsale serve --detach{where}"


def record_stack(run_dir: Path, state_dir: Path) -> None:
    """Note in a run's folder which stack it stormed, so that `verify` finds it again."""
    (run_dir / _STACK_OF_RUN).write_text(f"{state_dir.absolute()}\n")


def copy_stack(run_dir: Path, other_dir: Path) -> None:
    """Note in another run's folder the stack that this run stormed, if it is known."""
    with suppress(FileNotFoundError):
        (other_dir / _STACK_OF_RUN).write_bytes((run_dir / _STACK_OF_RUN).read_bytes())


def stack_of(run_dir: Path, state_dir: Path | None) -> Path:
    """The state folder that was given, else the one that the run stormed, else the default."""
    if state_dir is not None:
        return state_dir
    try:
        return Path((run_dir / _STACK_OF_RUN).read_text().strip())
    except (OSError, UnicodeDecodeError):
        return DEFAULT_STATE_DIR
