"""`flashsale schema`: the tables of a sale, for stores that somebody else runs."""

import typer

from flashsale.cli.options import MySQLUrl
from flashsale.errors import UsageError


def command(mysql_url: MySQLUrl = None) -> None:
    """Create the tables that are missing; those that exist stay as they are.

    `serve` and `seed` do so by themselves. Replicas and workers of your own want it done first.
    """
    from flashsale.stack.schema import create_schema

    if not mysql_url:
        raise UsageError("FLASHSALE_MYSQL_URL is not set; export it or give --mysql-url")
    create_schema(mysql_url)
    typer.echo("schema: every table is there")
