"""What an operator puts right by hand: `flashsale orders`, one order wherever it is and dead
letters settled; and `flashsale rebuild`, a ledger that is behind or has lost keys, made whole from
what is left."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flashsale.campaign.campaign import DEFAULT_STATE_DIR, find_stores
from flashsale.campaign.rebuilding import RebuildReport, rebuild
from flashsale.cli.options import Json, LedgerUrl, MySQLUrl, StateDir
from flashsale.cli.sale import By, Reason, actor, described, working_on
from flashsale.cli.terminal import console, tell, tell_document
from flashsale.errors import ExitCode, NothingJudgedError, UsageError
from flashsale.model import ID_MAX
from flashsale.orders.dead_letters import DeadLetters, Letter, Settled, chosen, read_letters
from flashsale.orders.trace import NOWHERE, PAY_STATUS, StreamEntry, Trace, trace
from flashsale.seeding.stores import OpenStores
from flashsale.settings import ClaimSettings

Ids = Annotated[
    list[str] | None, typer.Argument(help="Ids of orders, or of letters as `dead` shows them.")
]
All = Annotated[bool, typer.Option("--all", help="Every dead letter that holds an order.")]

orders = typer.Typer(
    help="One order wherever it is, and dead letters: orders that could not become rows.",
)


@orders.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@orders.command()
def dead(
    json: Json = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """List the dead letters, each with its reason."""
    with working_on(state_dir, ledger_url, mysql_url) as stores:
        letters = list(read_letters(stores.ledgers))
    if json:
        tell_document({"dead_letters": [letter.to_json() for letter in letters]})
    elif letters:
        console().print(_table(letters))
    else:
        tell("orders: no dead letter")


def _table(letters: Sequence[Letter]) -> Table:
    table = Table()
    for heading in ("letter", "set aside", "order", "user", "voucher", "reason"):
        table.add_column(heading, overflow="fold")
    for letter in letters:
        order = letter.order
        ids = (order.order_id, order.user_id, order.voucher_id) if order else ("-", "-", "-")
        at = letter.at.isoformat(sep=" ", timespec="seconds")
        table.add_row(letter.letter_id, at, *map(str, ids), letter.reason)
    return table


def _settling(name: str, told: str, settle: Callable[[DeadLetters, Letter, str], Settled]) -> None:
    """The command that settles dead letters by `settle`."""

    def run(
        ids: Ids = None,
        every: All = False,
        reason: Reason = "",
        by: By = None,
        state_dir: StateDir = DEFAULT_STATE_DIR,
        ledger_url: LedgerUrl = None,
        mysql_url: MySQLUrl = None,
    ) -> None:
        with working_on(state_dir, ledger_url, mysql_url) as stores:
            dead_letters = _dead_letters(stores, by)
            letters = _chosen(stores, ids, every)
            _each(letters, lambda letter: settle(dead_letters, letter, reason))

    run.__doc__ = told
    orders.command(name)(run)


_settling(
    "retry",
    "Put a dead letter's order back into the stream: right where its reason is mended.",
    DeadLetters.retry,
)
_settling(
    "release",
    "Give unit and place of a dead letter's order back to sale and user; its row is cancelled.",
    DeadLetters.release,
)


def _dead_letters(stores: OpenStores, by: str | None) -> DeadLetters:
    claim_timeout_ms = ClaimSettings.load().timeout_ms
    return DeadLetters(stores.pool, stores.ledgers, actor(by), claim_timeout_ms)


def _chosen(stores: OpenStores, ids: Sequence[str] | None, every: bool) -> list[Letter]:
    if bool(ids) == every:
        raise UsageError("expected ids or --all; see `flashsale orders dead`")
    letters = list(read_letters(stores.ledgers))
    return [each for each in letters if each.order] if every else chosen(letters, ids or ())


def _each(letters: Sequence[Letter], settle: Callable[[Letter], Settled]) -> None:
    """Settle one after another, and say what became of each."""
    unsettled = 0
    for letter in letters:
        settled = settle(letter)
        unsettled += settled is Settled.NO_RECEIPT
        name = f"order {letter.order.order_id}" if letter.order else f"letter {letter.letter_id}"
        tell(f"{name}: {settled}")
    if not letters:
        tell("orders: no dead letter")
    if unsettled:
        raise UsageError(
            f"{unsettled:,} of {len(letters):,} dead letters cannot be tried again; "
            "end them with `flashsale orders release`"
        )


@orders.command()
def show(
    order: Annotated[int, typer.Argument(min=1, max=ID_MAX, help="The order's id.")],
    json: Json = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Show everything known about an order: row, receipt, stream entry, dead letter, journal.

    Exits with 8 where nobody knows it.
    """
    with working_on(state_dir, ledger_url, mysql_url) as stores:
        found = trace(stores.ledgers.of_order(order), stores.pool, order)
    if json:
        tell_document(_document(found))
    elif found.state != NOWHERE or found.lines:
        for text in _lines(found):
            tell(text)
    if found.state == NOWHERE and not found.lines:
        raise NothingJudgedError(
            f"nobody knows order {order}: no row, receipt, entry of the stream or dead letter"
        )


def _document(found: Trace) -> dict[str, Any]:
    row = found.row
    return {
        "order_id": str(found.order_id),
        "state": found.state,
        "row": row
        and {
            name: str(value) if name == "id" else value
            for name, value in row.items()
            if name != "live"
        },
        "live": found.is_live,
        "unit_owed_to_ledger": found.owed,
        "receipts": [{"voucher_id": r.voucher_id, "user_id": r.user_id} for r in found.receipts],
        "entries": [_entry_document(entry) for entry in found.entries],
        "dead_letters": [letter.to_json() for letter in found.letters],
        "journal": [line.to_json() for line in found.lines],
    }


def _entry_document(entry: StreamEntry) -> dict[str, Any]:
    return {
        "entry": entry.entry_id,
        "state": _entry_state(entry),
        "consumer": entry.consumer,
        "idle_ms": entry.idle_ms,
        "deliveries": entry.deliveries,
    }


def _entry_state(entry: StreamEntry) -> str:
    if not entry.delivered:
        return "waiting"
    return "pending" if entry.consumer else "acknowledged"


def _lines(found: Trace) -> Iterator[str]:
    yield f"order {found.order_id}: {found.state}"
    row = found.row
    if row is None:
        yield "  row      none"
    else:
        yield (
            f"  row      user {row['user_id']}, voucher {row['voucher_id']}, "
            f"{PAY_STATUS.get(row['status'], row['status'])}, accepted {row['create_time']}, "
            f"written {row['persisted_at']}"
        )
    if found.owed:
        yield "  unit     owed to the ledger; a worker's sweeper gives it back"
    for receipt in found.receipts:
        yield f"  receipt  user {receipt.user_id}, voucher {receipt.voucher_id}"
    if not found.receipts:
        yield "  receipt  none"
    for entry in found.entries:
        with_whom = f" with {entry.consumer}, {entry.deliveries} deliveries" * bool(entry.consumer)
        yield f"  stream   {entry.entry_id} {_entry_state(entry)}{with_whom}"
    for letter in found.letters:
        yield f"  dead     {letter.letter_id}: {letter.reason}"
    yield from (f"  journal  {described(line)}" for line in found.lines)


# Rebuilding --------------------------------------------------------------------------------------

_NAMED_MAX = 1_000


def rebuild_command(
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
    where something differs and nothing was done about it, and where orders are gone, oversold or
    doubled.
    Sessions are not restored: `flashsale seed` makes them anew, or users sign in again.
    """
    # The cache is no part of this, so whoever names the other two has named enough.
    stores = find_stores(state_dir, ledger_url, ledger_url, mysql_url)
    report = rebuild(stores, apply=apply, run=run)
    _tell_rebuild_json(report) if json else _tell_rebuild(report)
    is_left = bool(report.differences) and report.done is None
    if is_left or report.gone or report.oversold or report.doubled:
        raise typer.Exit(ExitCode.VIOLATION)


def _tell_rebuild(report: RebuildReport) -> None:
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
    elif report.is_needed:
        tell("rebuild: nothing was changed; `flashsale rebuild --apply` does it")
    elif report.oversold or report.doubled:
        tell("rebuild: the ledger is as it ought to be; what was sold beyond it, no rebuild mends")
    else:
        tell("rebuild: the ledger is as it ought to be")


def _tell_rebuild_json(report: RebuildReport) -> None:
    tell_document(
        {
            "differences": [difference._asdict() for difference in report.differences],
            "applied": None if report.done is None else asdict(report.done),
            "gone": None if report.gone is None else [str(order) for order in report.gone],
            "oversold": report.oversold,
            "doubled": report.doubled,
        }
    )
