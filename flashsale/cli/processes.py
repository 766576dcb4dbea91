"""`flashsale replica`, `worker` and `schema`: one process each, for a supervisor or a container."""

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from flashsale import telemetry
from flashsale.cli.options import CacheUrl, LedgerUrl, MySQLUrl
from flashsale.errors import UsageError
from flashsale.orders.process import run_worker
from flashsale.server.replica import Replica
from flashsale.settings import ReplicaSettings, StoreSettings, WorkerSettings
from flashsale.storage.tables import create_schema


def replica(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")],
    name: Annotated[str, typer.Option(help="What the replica calls itself.")] = "r1",
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.", show_default="127.0.0.1")
    ] = None,
    socket: Annotated[
        Path | None,
        typer.Option(
            help="A Unix socket for a proxy: the sale answers there, the port for itself alone."
        ),
    ] = None,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Serve the sale from one process."""
    stores = StoreSettings.load(ledger_url=ledger_url, cache_url=cache_url, mysql_url=mysql_url)
    settings = ReplicaSettings.load(host=host)
    telemetry.configure(name)

    async def run() -> None:
        await Replica(name, port, stores, settings, socket=socket).run()

    uvloop.run(run())


def worker(
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
    stores = StoreSettings.load(ledger_url=ledger_url, cache_url=cache_url, mysql_url=mysql_url)
    run_worker(name, port, stores, WorkerSettings.load(host=host))


def schema(mysql_url: MySQLUrl = None) -> None:
    """Create the tables that are missing; those that exist stay as they are.

    `serve` and `seed` do so by themselves. Replicas and workers of your own want it done first.
    """
    if not mysql_url:
        raise UsageError("FLASHSALE_MYSQL_URL is not set; export it or give --mysql-url")
    create_schema(mysql_url)
    typer.echo("schema: every table is there")
