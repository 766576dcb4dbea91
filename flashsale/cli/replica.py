"""`flashsale replica`: one HTTP process of the sale, for a supervisor or a container."""

from typing import Annotated

import typer

from flashsale.cli.options import CacheUrl, LedgerUrl, MySQLUrl


def command(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")],
    name: Annotated[str, typer.Option(help="What the replica calls itself.")] = "r1",
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.", show_default="127.0.0.1")
    ] = None,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Serve the sale from one process."""
    import uvloop

    from flashsale import logs
    from flashsale.server.replica import Replica
    from flashsale.settings import ReplicaSettings, StoreSettings

    stores = StoreSettings.load(ledger_url=ledger_url, cache_url=cache_url, mysql_url=mysql_url)
    settings = ReplicaSettings.load(host=host)
    logs.configure(name)

    async def run() -> None:
        await Replica(name, port, stores, settings).run()

    uvloop.run(run())
