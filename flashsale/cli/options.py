"""Options that several commands share: the system that they work on."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flashsale.secret_file import with_password
from flashsale.settings import Durability
from flashsale.store_urls import read_mysql_url, read_redis_url


def _store(option: str, variable: str) -> Callable[[str | None], str | None]:
    """See that a store's URL is one, and put the password into one that came without."""

    def check(url: str | None) -> str | None:
        if not url:
            return url
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
        rich_help_panel="System",
    ),
]
RunStateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="FLASHSALE_STATE_DIR",
        help="The state folder of the stack that was stormed.",
        show_default="the run's own, else .flashsale",
        rich_help_panel="System",
    ),
]
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger-url",
        envvar="FLASHSALE_LEDGER_URL",
        callback=_store("--ledger-url", "FLASHSALE_LEDGER_PASSWORD"),
        help="The Redis that must lose nothing.",
        rich_help_panel="System",
    ),
]
Durable = Annotated[
    Durability | None,
    typer.Option(
        "--durability",
        envvar="FLASHSALE_STACK_DURABILITY",
        help="When the ledger acknowledges an order: `always` when it is on the disk, `everysec` "
        "up to two seconds before, which a power cut loses.",
        show_default="always",
        rich_help_panel="System",
    ),
]
CacheUrl = Annotated[
    str | None,
    typer.Option(
        "--cache-url",
        envvar="FLASHSALE_CACHE_URL",
        callback=_store("--cache-url", "FLASHSALE_CACHE_PASSWORD"),
        help="The Redis that may lose everything.",
        rich_help_panel="System",
    ),
]
MySQLUrl = Annotated[
    str | None,
    typer.Option(
        "--mysql-url",
        envvar="FLASHSALE_MYSQL_URL",
        callback=_store("--mysql-url", "FLASHSALE_MYSQL_PASSWORD"),
        help="mysql://user:password@host:port/database of MySQL 8 or MariaDB.",
        rich_help_panel="System",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        envvar="FLASHSALE_BASE_URL",
        help="Where the sale answers HTTP.",
        rich_help_panel="System",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
