"""`flashsale worker`: one order worker, for a supervisor or a container."""

from typing import Annotated

import typer

from flashsale.cli.options import CacheUrl, LedgerUrl, MySQLUrl


def command(
    name: Annotated[str, typer.Option(help="The consumer name; never shared by two workers.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where /healthz and /metrics answer; 0: nowhere.")
    ] = 0,
    host: Annotated[
        str | None, typer.Option(help="The address of that port.", show_default="127.0.0.1")
    ] = None,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Carry accepted orders from the stream to MySQL."""
    from flashsale.orders.process import run_worker
    from flashsale.settings import StoreSettings, WorkerSettings

    stores = StoreSettings.load(ledger_url=ledger_url, cache_url=cache_url, mysql_url=mysql_url)
    run_worker(name, port, stores, WorkerSettings.load(host=host))
