"""`flashsale sale`: what is on sale, and changing it while it runs."""

import getpass
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flashsale.campaign.campaign import DEFAULT_STATE_DIR, find_stores
from flashsale.cli.options import Json, LedgerUrl, MySQLUrl, StateDir
from flashsale.cli.terminal import console, tell, tell_document
from flashsale.errors import (
    Indeterminate,
    NothingJudgedError,
    Unavailable,
    UnreachableError,
    UsageError,
    ViolationError,
)
from flashsale.model import ID_MAX, Outcome
from flashsale.orders.closing import close_books, compare_books
from flashsale.seckill import journal
from flashsale.seckill.control import (
    UNITS_MAX,
    Changed,
    LedgerUnits,
    SaleControl,
    loaded_sales,
    read_units,
)
from flashsale.seckill.journal import Line
from flashsale.seckill.sale import OPEN, PAUSED, SaleTerms, read_terms
from flashsale.seeding.stores import OpenStores, opened
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import call

_LINES_MAX = 50
_DRAIN_TIMEOUT_S = 60.0

Voucher = Annotated[int, typer.Argument(min=1, max=ID_MAX, help="The voucher on sale.")]
Vouchers = Annotated[
    list[int] | None, typer.Argument(min=1, max=ID_MAX, help="The vouchers on sale.")
]
All = Annotated[bool, typer.Option("--all", help="Every sale in the ledger.")]
Reason = Annotated[str, typer.Option(help="Why, for the journal.")]
By = Annotated[
    str | None, typer.Option(help="Who does it, for the journal.", show_default="user@host")
]

command = typer.Typer(
    help="What is on sale, and changing it while it runs; each change is a line in the journal.",
)


@command.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@contextmanager
def working_on(
    state_dir: Path, ledger_url: str | None, mysql_url: str | None
) -> Iterator[OpenStores]:
    """The stores that are named, else the stack's; their trouble is one line, exit 7."""
    # The cache is none of these commands' business: who names the other two has named enough.
    with opened(find_stores(state_dir, ledger_url, ledger_url, mysql_url)) as stores:
        try:
            yield stores
        except (Unavailable, Indeterminate) as trouble:
            line = " ".join(str(trouble).split()).rstrip(".")
            raise UnreachableError(
                f"{line}; see what stands with `flashsale sale list`, then repeat the command"
            ) from trouble


def actor(named: str | None) -> str:
    """Who the journal names."""
    if named is not None:
        if not 0 < len(named.strip()) <= journal.ACTOR_MAX:
            raise UsageError(f"--by: expected 1 to {journal.ACTOR_MAX} characters")
        return named.strip()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[: journal.ACTOR_MAX]


# Looking ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sale:
    """One sale from both stores; `terms` is None where MySQL has no such sale."""

    units: LedgerUnits
    terms: SaleTerms | None
    now_ms: int

    @property
    def told(self) -> Outcome:
        """What a claim is answered now that comes from somebody without an order."""
        units = self.units
        if units.state is None or not units.is_loaded:
            return Outcome.NOT_LOADED
        if units.state == PAUSED:
            return Outcome.PAUSED
        if self.now_ms < (units.begin_ms or 0):
            return Outcome.NOT_OPEN
        if units.state != OPEN or self.now_ms >= (units.end_ms or 0):
            return Outcome.ENDED
        return Outcome.SOLD if (units.left or 0) > 0 else Outcome.SOLD_OUT

    def to_json(self) -> dict[str, Any]:
        units, terms = self.units, self.terms
        return {
            "voucher_id": units.voucher_id,
            "state": units.state,
            "claims_are_told": self.told,
            "begins": _moment(units.begin_ms),
            "ends": _moment(units.end_ms),
            "offered": units.offered,
            "left": units.left,
            "held": units.held,
            "imbalance": units.imbalance or None,
            "mysql": terms
            and {
                "initial": terms.initial,
                "stock": terms.stock,
                "live_orders": terms.live_orders,
            },
        }


def _moment(unix_ms: int | None) -> str | None:
    if unix_ms is None:
        return None
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds")


def _sales(stores: OpenStores) -> list[_Sale]:
    terms = {each.voucher_id: each for each in read_terms(stores.pool)}
    vouchers = sorted({*terms, *loaded_sales(stores.ledgers)})
    seconds, micros = call(stores.ledgers.home.time)
    now_ms = seconds * 1000 + micros // 1000
    return [
        _Sale(units, terms.get(units.voucher_id), now_ms)
        for units in read_units(stores.ledgers, vouchers)
    ]


@command.command("list")
def list_(
    json: Json = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Show every sale: its state, what claims are told now, its units in both stores."""
    with working_on(state_dir, ledger_url, mysql_url) as stores:
        sales = _sales(stores)
    if json:
        tell_document({"sales": [sale.to_json() for sale in sales]})
        return
    table = Table()
    for heading in ("voucher", "state", "claims are told"):
        table.add_column(heading)
    for heading in ("offered", "left", "held", "rows", "MySQL's stock"):
        table.add_column(heading, justify="right")
    for sale in sales:
        units, terms = sale.units, sale.terms
        numbers = (
            *(units.offered, units.left, units.held),
            *((terms.live_orders, terms.stock) if terms else (None, None)),
        )
        shown = ("-" if number is None else f"{number:,}" for number in numbers)
        table.add_row(str(units.voucher_id), units.state or "-", sale.told, *shown)
    console().print(table)


@command.command()
def show(
    voucher: Voucher,
    json: Json = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Show one sale: state, hours, units, what its books say, and its last lines in the journal."""
    with working_on(state_dir, ledger_url, mysql_url) as stores:
        sale = next((s for s in _sales(stores) if s.units.voucher_id == voucher), None)
        if sale is None:
            raise UsageError(f"voucher {voucher} is on sale nowhere; see `flashsale sale list`")
        ledger = stores.ledgers.of(voucher)
        problems = list(compare_books(ledger, stores.pool, voucher)) if sale.terms else []
        with transaction(stores.pool) as connection:
            lines = journal.of_sale(connection, voucher, _LINES_MAX)
    if json:
        written = [line.to_json() for line in lines]
        tell_document({**sale.to_json(), "books": problems, "journal": written})
        return
    for text in _shown(sale, problems, lines):
        tell(text)


def _shown(sale: _Sale, problems: Sequence[str], lines: Sequence[Line]) -> Iterator[str]:
    units, terms = sale.units, sale.terms
    yield f"voucher {units.voucher_id}: {units.state or 'not loaded'}; claims are told {sale.told}"
    if units.is_loaded:
        yield f"  hours   {_moment(units.begin_ms)} to {_moment(units.end_ms)}"
        yield f"  ledger  {units.offered} offered, {units.left} left, {units.held} held"
    if terms:
        figures = f"{terms.initial} offered, {terms.stock} left, {terms.live_orders} live rows"
        yield f"  MySQL   {figures}"
    yield from (f"  books   {text}" for text in problems)
    yield from (f"  {described(line)}" for line in lines)


def described(line: Line) -> str:
    """A line of the journal in one line."""
    at = line.at.isoformat(sep=" ", timespec="seconds") if line.at else ""
    what = f"ends line {line.ends}" if line.ends else f"{line.was} → {line.becomes}"
    order = f" order {line.order_id}" if line.order_id else ""
    why = f": {line.reason}" if line.reason else ""
    return f"{line.number}  {at}  {line.actor}  {line.action}{order} {line.step}, {what}{why}"


# Changing ---------------------------------------------------------------------------------------


def _turning(name: str, told: str, turn: Callable[[SaleControl, int, str], Changed]) -> None:
    """The command that brings sales into another state by `turn`."""

    def run(
        vouchers: Vouchers = None,
        every: All = False,
        reason: Reason = "",
        by: By = None,
        state_dir: StateDir = DEFAULT_STATE_DIR,
        ledger_url: LedgerUrl = None,
        mysql_url: MySQLUrl = None,
    ) -> None:
        with working_on(state_dir, ledger_url, mysql_url) as stores:
            control = _control(stores, by)
            _each(_chosen(stores, vouchers, every), lambda v: turn(control, v, reason))

    run.__doc__ = told
    command.command(name)(run)


_turning(
    "open",
    "Put a closed sale on sale again, or one that is not in the ledger yet.",
    SaleControl.open,
)
_turning(
    "pause",
    "Refuse every claim as paused, on all replicas at once; nothing is lost by it.",
    SaleControl.pause,
)
_turning("resume", "Let a paused sale go on.", SaleControl.resume)


@command.command()
def restock(
    voucher: Voucher,
    add: Annotated[
        int, typer.Option(min=0, max=UNITS_MAX, help="Units to offer beside the others.")
    ] = 0,
    remove: Annotated[
        int, typer.Option(min=0, max=UNITS_MAX, help="Units to offer no more; never sold ones.")
    ] = 0,
    reason: Reason = "",
    by: By = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """Offer more units of a sale, or fewer, while it runs; exit 3 where fewer are left than are to
    go."""
    if bool(add) == bool(remove):
        raise UsageError("expected --add UNITS or --remove UNITS")
    with working_on(state_dir, ledger_url, mysql_url) as stores:
        _tell_change(_control(stores, by).restock(voucher, add or -remove, reason))


@command.command()
def close(
    voucher: Voucher,
    drain_timeout: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds that the queue may stand still.")
    ] = _DRAIN_TIMEOUT_S,
    reason: Reason = "",
    by: By = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    mysql_url: MySQLUrl = None,
) -> None:
    """End a sale: refuse claims as ended, wait for its last rows, compare its books, trim.

    What is trimmed are entries of the stream that are rows. Exits with 3 where the books disagree,
    and with 8 where orders are left that are no rows. The sale stays closed; the same command goes
    on from there.
    """
    with working_on(state_dir, ledger_url, mysql_url) as stores:
        _tell_change(_control(stores, by).close(voucher, reason))
        closing = close_books(stores.ledgers.of(voucher), stores.pool, voucher, drain_timeout)
    if closing.left:
        raise NothingJudgedError(
            f"voucher {voucher} is closed, but {closing.left:,} orders or units are under way; "
            f"see that a worker runs (`flashsale status`), then `flashsale sale close {voucher}`"
        )
    if closing.problems:
        raise ViolationError(
            f"voucher {voucher} is closed, but its books disagree: {'; '.join(closing.problems)}"
        )
    tell(
        f"voucher {voucher}: {closing.held:,} of {closing.offered:,} units sold, the books agree; "
        f"{closing.trimmed:,} entries trimmed"
    )


def _control(stores: OpenStores, by: str | None) -> SaleControl:
    return SaleControl(stores.pool, stores.ledgers, actor(by))


def _chosen(stores: OpenStores, vouchers: Sequence[int] | None, every: bool) -> Sequence[int]:
    if bool(vouchers) == every:
        raise UsageError("expected vouchers or --all; see `flashsale sale list`")
    return loaded_sales(stores.ledgers) if every else list(dict.fromkeys(vouchers or ()))


def _each(vouchers: Sequence[int], change: Callable[[int], Changed]) -> None:
    """Change one after another; where several are asked for, what cannot be changed is told and
    the rest is not kept from it."""
    refused: list[UsageError] = []
    for voucher in vouchers:
        try:
            _tell_change(change(voucher))
        except UsageError as error:
            if len(vouchers) == 1:
                raise
            tell(f"sale: {error}", err=True)
            refused.append(error)
    if refused:
        raise UsageError(f"{len(refused):,} of {len(vouchers):,} sales were not changed")


def _tell_change(changed: Changed) -> None:
    if changed.line is None:
        tell(f"voucher {changed.voucher_id}: {changed.becomes} already")
    else:
        tell(
            f"voucher {changed.voucher_id}: {changed.was} → {changed.becomes} "
            f"(line {changed.line} of the journal)"
        )
