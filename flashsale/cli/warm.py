"""`flashsale warm`: every sale of MySQL into the ledger, and the catalogue into the cache."""

import typer

from flashsale.cli.options import (
    DEFAULT_STATE_DIR,
    CacheUrl,
    LedgerUrl,
    MySQLUrl,
    StateDir,
    find_stores,
)


def command(
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
    from flashsale.cli.progress import shown
    from flashsale.seeding import warm

    with shown("warm") as progress:
        report = warm.warm(stores, progress)
        cached = ", ".join(f"{count:,} {name}" for name, count in report.cached.items())
        progress.note(f"in the cache: {cached}")
    typer.echo(
        f"warm: {len(report.loaded):,} sales loaded, {len(report.already_loaded):,} already loaded"
    )
