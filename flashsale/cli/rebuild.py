"""`flashsale rebuild`: a ledger that is behind or has lost keys, made whole from what is left."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flashsale.campaign.rebuilding import RebuildReport, rebuild
from flashsale.campaign.stores import DEFAULT_STATE_DIR, find_stores
from flashsale.cli.options import Json, LedgerUrl, MySQLUrl, StateDir
from flashsale.cli.terminal import console, tell, tell_document
from flashsale.errors import ExitCode

_NAMED_MAX = 1_000


def command(
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without this it is only shown.")
    ] = False,
    run: Annotated[
        Path | None,
        typer.Option(help="A storm's run: name the orders of it that were told and are gone."),
    ] = None,
    json: Json = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Restore a ledger from MySQL, its receipts and what survives of its stream.

    Shows what differs and what would be done; with --apply it closes all sales, does it, and opens
    them again. It may be interrupted and repeated, and replicas may run beside it. Exits with 3
    where something differs and nothing was done about it, and where orders are gone or oversold.
    Sessions are not restored: `flashsale seed` makes them anew, or users sign in again.
    """
    # The cache is no part of this, so whoever names the other two has named enough.
    stores = find_stores(state_dir, ledger_url, ledger_url, mysql_url)
    report = rebuild(stores, apply=apply, run=run)
    _tell_json(report) if json else _tell(report)
    is_left = bool(report.differences) and report.done is None
    if is_left or report.gone or report.oversold:
        raise typer.Exit(ExitCode.VIOLATION)


def _tell(report: RebuildReport) -> None:
    if report.differences:
        drawn = Table()
        for heading in ("what", "found", "to be done" if report.done is None else "done"):
            drawn.add_column(heading, overflow="fold")
        for difference in report.differences:
            drawn.add_row(*difference)
        console().print(drawn)
    for order_id in (report.gone or ())[:_NAMED_MAX]:
        tell(f"order {order_id} was acknowledged, and is gone")
    if report.gone is not None:
        tell(f"rebuild: {len(report.gone):,} acknowledged orders of the run are gone")
    if report.done is not None:
        tell(
            f"rebuild: done in {report.done.rounds:,} rounds, {report.done.requeued:,} orders "
            "written to the stream again; the sales go on"
        )
    elif report.differences:
        tell("rebuild: nothing was changed; `flashsale rebuild --apply` does it")
    else:
        tell("rebuild: the ledger is as it ought to be")


def _tell_json(report: RebuildReport) -> None:
    tell_document(
        {
            "differences": [difference._asdict() for difference in report.differences],
            "applied": None if report.done is None else asdict(report.done),
            "gone": None if report.gone is None else [str(order) for order in report.gone],
            "oversold": report.oversold,
        }
    )
