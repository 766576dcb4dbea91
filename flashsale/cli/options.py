"""Options that several commands share: the system that they work on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flashsale.books import SQL_SCHEMES
from flashsale.errors import UsageError
from flashsale.files import with_password
from flashsale.model import Durability
from flashsale.scenario.target import Tls
from flashsale.settings import LedgerSettings
from flashsale.store_urls import in_layout, read_ledger_url, read_mysql_url, read_redis_url


def _read_books_url(url: str, option: str) -> None:
    """Raises UsageError for no URL of a database that a shop can have."""
    scheme = url.partition("://")[0]
    if scheme in ("mysql", "mariadb"):
        read_mysql_url(url, option)
    elif scheme not in SQL_SCHEMES:
        expected = ", ".join(f"{each}://" for each in SQL_SCHEMES)
        raise UsageError(f"{option}: expected one of {expected}; it begins otherwise")


_READERS: dict[str, Callable[[str, str], object]] = {
    "--ledger-url": read_ledger_url,
    "--mysql-url": read_mysql_url,
    "--books-url": _read_books_url,
}


def _store(option: str, variable: str) -> Callable[[str | None], str | None]:
    """See that a store's URL is one, and put the password into one that came without."""

    def check(url: str | None) -> str | None:
        if not url:
            return url
        _READERS.get(option, read_redis_url)(
            url, option
        )  # first: nobody can tell where the password of a broken URL would go
        whole = with_password(url, variable)
        if option != "--ledger-url":
            return whole
        laid_out = in_layout(whole, LedgerSettings.load().layout)
        read_ledger_url(laid_out, option)
        return laid_out

    return check


_system = partial(typer.Option, rich_help_panel="System")

StateDir = Annotated[
    Path,
    _system(
        "--state-dir",
        envvar="FLASHSALE_STATE_DIR",
        help="Where a stack keeps its data, logs and stack.json.",
        show_default=True,
    ),
]
RunStateDir = Annotated[
    Path | None,
    _system(
        "--state-dir",
        envvar="FLASHSALE_STATE_DIR",
        help="The state folder of the stack that was stormed.",
        show_default="the run's own, else .flashsale",
    ),
]
LedgerUrl = Annotated[
    str | None,
    _system(
        "--ledger-url",
        envvar="FLASHSALE_LEDGER_URL",
        callback=_store("--ledger-url", "FLASHSALE_LEDGER_PASSWORD"),
        help="The Redis that must lose nothing.",
    ),
]
Durable = Annotated[
    Durability | None,
    _system(
        "--durability",
        envvar="FLASHSALE_STACK_DURABILITY",
        help="When the ledger acknowledges an order: `always` when it is on the disk, `everysec` "
        "up to two seconds before, which a power cut loses, `replicated` when it is on the disk "
        "and a replica has it, so that a failover loses none.",
        show_default="always",
    ),
]
CacheUrl = Annotated[
    str | None,
    _system(
        "--cache-url",
        envvar="FLASHSALE_CACHE_URL",
        callback=_store("--cache-url", "FLASHSALE_CACHE_PASSWORD"),
        help="The Redis that may lose everything.",
    ),
]
MySQLUrl = Annotated[
    str | None,
    _system(
        "--mysql-url",
        envvar="FLASHSALE_MYSQL_URL",
        callback=_store("--mysql-url", "FLASHSALE_MYSQL_PASSWORD"),
        help="mysql://user:password@host:port/database of MySQL 8 or MariaDB.",
    ),
]
BooksUrl = Annotated[
    str | None,
    _system(
        "--books-url",
        envvar="FLASHSALE_BOOKS_URL",
        callback=_store("--books-url", "FLASHSALE_BOOKS_PASSWORD"),
        help="The database of somebody's shop, in place of its file's books.url.",
    ),
]
BooksRedisUrl = Annotated[
    str | None,
    _system(
        "--books-redis-url",
        envvar="FLASHSALE_BOOKS_REDIS_URL",
        callback=_store("--books-redis-url", "FLASHSALE_BOOKS_REDIS_PASSWORD"),
        help="The Redis of somebody's shop, in place of its file's books.redis.url.",
    ),
]
TargetFile = Annotated[
    str | None,
    _system(
        "--target",
        metavar="SHOP",
        help="The .toml that describes somebody's shop, or a preset's name.",
    ),
]
CaFile = Annotated[
    Path | None,
    _system("--ca", help="What an https:// target is checked against."),
]
CertFile = Annotated[
    Path | None,
    _system("--cert", help="The certificate to show to an https:// target."),
]
KeyFile = Annotated[
    Path | None,
    _system("--key", help="The key of --cert, in a file."),
]
Insecure = Annotated[
    bool,
    _system("--insecure", help="Take any certificate of the target's."),
]


def tls_of(ca: Path | None, cert: Path | None, key: Path | None, insecure: bool) -> Tls:
    """How TLS is spoken. Raises UsageError for a file that cannot be used."""
    if key is not None and cert is None:
        raise UsageError("--key: this goes with --cert")
    files = [None if path is None else str(path) for path in (ca, cert, key)]
    tls = Tls(files[0], files[1], files[2], insecure)
    tls.context()
    return tls


BaseUrl = Annotated[
    str | None,
    _system(
        "--base-url",
        envvar="FLASHSALE_BASE_URL",
        help="Where the sale answers: http://, https:// or unix:/path/of/socket.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
