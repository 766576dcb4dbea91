"""`flashsale seed` and `flashsale warm`: a data set into the stores, its sales and pages ready."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flashsale.campaign.campaign import DEFAULT_STATE_DIR, TOKENS, Stores, find_stores
from flashsale.cli.options import CacheUrl, LedgerUrl, MySQLUrl, StateDir
from flashsale.cli.terminal import shown, tell
from flashsale.errors import UsageError
from flashsale.seeding import load
from flashsale.seeding.load import SeedReport
from flashsale.seeding.settings import SeedSettings, parse_moment
from flashsale.seeding.warm import warm as warm_stores
from flashsale.store_urls import read_ledger_url, read_mysql_url, read_redis_url


def seed(
    users: Annotated[int, typer.Option(help="Users, with the ids from 1.")] = SeedSettings.users,
    shops: Annotated[int, typer.Option(help="Shops, with the ids from 1.")] = SeedSettings.shops,
    vouchers: Annotated[int, typer.Option(help="Vouchers on sale.")] = SeedSettings.vouchers,
    first_voucher: Annotated[
        int, typer.Option(help="The id of the first of them.")
    ] = SeedSettings.first_voucher,
    units: Annotated[
        int, typer.Option(help="Units of all vouchers together, spread evenly.")
    ] = SeedSettings.units,
    begin: Annotated[
        str | None,
        typer.Option(help="When the sales open, ISO 8601.", show_default="an hour ago"),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(help="When the sales end, ISO 8601.", show_default="a week ahead"),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="All data but the tokens follow from it.")
    ] = SeedSettings.seed,
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Delete the rows and keys of this database's data set first."),
    ] = SeedSettings.reset,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --reset.")] = False,
    tokens: Annotated[
        Path | None,
        typer.Option(help="Where the tokens go.", show_default=f"{TOKENS} in the state folder"),
    ] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Bring a data set about: schema, users with sessions, shops, blogs, vouchers on sale.

    What exists already stays as it is, so a second run changes nothing and a larger one extends.
    """
    settings = SeedSettings(
        users=users,
        shops=shops,
        vouchers=vouchers,
        first_voucher=first_voucher,
        units=units,
        begin=parse_moment("--begin", begin),
        end=parse_moment("--end", end),
        seed=seed,
        reset=reset,
    )
    stores = find_stores(state_dir, ledger_url, cache_url, mysql_url)
    if reset and not yes:
        _confirm(stores)
    with shown("seed") as progress:
        try:
            report = load.seed(settings, stores, tokens or state_dir / TOKENS, progress)
        except KeyboardInterrupt:
            progress.note("interrupted; the same command goes on from here")
            raise
    tell(f"seed: {summary(settings, report)}")


def summary(settings: SeedSettings, report: SeedReport) -> str:
    """What a run did, on one line."""
    what = f"{report.added:,} rows and sessions added" if report.changed else "nothing changed"
    return (
        f"{what} in {report.seconds:.1f} s (users {settings.users:,}, shops {settings.shops:,}, "
        f"vouchers {settings.vouchers:,}, units {settings.units:,}); "
        f"data set {report.dataset_id}, tokens in {report.tokens_path}"
    )


def _confirm(stores: Stores) -> None:
    if not sys.stdin.isatty():
        raise UsageError("--reset: deletes data, expected --yes where there is no terminal to ask")
    database = read_mysql_url(stores.mysql_url, "--mysql-url")
    ledger = read_ledger_url(stores.ledger_url, "--ledger-url")
    cache = read_redis_url(stores.cache_url, "--cache-url")
    question = (
        f"Delete the data set in {database}, with its sales, orders and sessions in {ledger} and "
        f"its pages in {cache}?"
    )
    if not typer.confirm(question, err=True):
        raise UsageError("--reset: not confirmed, nothing was deleted")


def warm(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Load every voucher's sale into the ledger, and the catalogue into the cache.

    A sale that is loaded already stays as it is. The cache gets the filters of ids, the geo
    indexes of all types, and the hot shops.
    """
    stores = find_stores(state_dir, ledger_url, cache_url, mysql_url)
    with shown("warm") as progress:
        report = warm_stores(stores, progress)
        cached = ", ".join(f"{count:,} {name}" for name, count in report.cached.items())
        progress.note(f"in the cache: {cached}")
    tell(
        f"warm: {len(report.loaded):,} sales loaded, {len(report.already_loaded):,} already loaded"
    )
