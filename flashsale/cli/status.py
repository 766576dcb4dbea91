"""The stack of a state folder: `flashsale status`, how it is; `stop`, its end; and `panels`, what
its dashboards show."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from flashsale.campaign.campaign import DEFAULT_STATE_DIR
from flashsale.cli.options import Json, StateDir
from flashsale.cli.terminal import console, tell, tell_document
from flashsale.doctor.findings import BOOKS, Diagnosis, compare_books, failures
from flashsale.errors import ExitCode, UnreachableError
from flashsale.observe import panels
from flashsale.observe.panels import Filled
from flashsale.stack.state import (
    StackHealth,
    StackState,
    check,
    read_state,
    stop_stack,
    supervisor_pid,
)

Timeout = Annotated[
    float, typer.Option("--timeout", min=1, help="Seconds of patience before it is killed.")
]
_STYLES = {"up": "green", "starting": "yellow"}


class Row(NamedTuple):
    """One process."""

    name: str
    kind: str
    phase: str
    pid: int
    port: int | None
    restarts: int


def table(title: str, rows: Iterable[Row]) -> Table:
    """The processes of a stack."""
    drawn = Table(title=title, title_justify="left")
    for heading in ("name", "kind", "state", "pid", "port", "restarts"):
        drawn.add_column(heading, justify="right" if heading in Row._fields[3:] else "left")
    for row in rows:
        phase = Text(row.phase, _STYLES.get(row.phase, "red"))
        pid, port = str(row.pid or "-"), str(row.port or "-")
        drawn.add_row(row.name, row.kind, phase, pid, port, str(row.restarts))
    return drawn


def status(state_dir: StateDir = DEFAULT_STATE_DIR, json: Json = False) -> None:
    """Show every process of the stack and whether it answers: exit 0 if all do, else 7.

    Where the ledger is behind MySQL or closed, or the books of a sale are wrong, that is told, and
    the exit code is 3.
    """
    state = read_state(state_dir)
    if state is None:
        starting = supervisor_pid(state_dir)
        raise UnreachableError(
            f"the stack in {state_dir} is still starting (process {starting})"
            if starting
            else f"no stack runs in {state_dir}; start one with `flashsale serve --detach`"
        )
    health = check(state)
    books = failures(compare_books(state.ledger_url, state.mysql_url))
    _print_json(state, health, books) if json else _print_table(state, health, books)
    if books:
        raise typer.Exit(ExitCode.VIOLATION)
    if not health.well:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _print_json(state: StackState, health: StackHealth, books: Sequence[Diagnosis]) -> None:
    told = {
        "healthy": health.well and not books,
        "answers": health.answers,
        "behind": [finding.found for finding in books],
    }
    tell_document(asdict(state) | told)


def _print_table(state: StackState, health: StackHealth, books: Sequence[Diagnosis]) -> None:
    rows = [
        Row(
            child.name,
            child.kind,
            "up" if health.answers[child.name] else "not answering",
            child.pid,
            child.port,
            child.restarts,
        )
        for child in state.children
    ]
    ready = "" if state.ready else "  (still starting)"
    console().print(table(f"{state.base_url}{ready}", rows))
    for finding in books:
        what = "nothing is sold" if finding.name == BOOKS else "the books are wrong"
        tell(f"{what}: {finding.found}; {finding.cure}")


def stop(state_dir: StateDir = DEFAULT_STATE_DIR, timeout: Timeout = 90.0) -> None:
    """Stop a stack: nginx first, then replicas and workers, then the stores."""
    stopped = stop_stack(state_dir, timeout)
    tell(f"stopped the stack in {state_dir}" if stopped else f"no stack runs in {state_dir}")


# Panels ------------------------------------------------------------------------------------------

_PATIENCE_S = 15.0
_PAUSE_S = 1.0


def panels_command(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    prometheus_url: Annotated[
        str | None, typer.Option(help="Another Prometheus, such as that of Compose.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="How far to look back.", show_default="the stack's life, 30"),
    ] = None,
    json: Json = False,
) -> None:
    """Run each panel's queries on the stack's Prometheus: exit 8 where one finds nothing."""
    window_s = 60 * (minutes or 30)
    if prometheus_url is None:
        state = read_state(state_dir)
        if state is None:
            raise UnreachableError(
                f"no stack runs in {state_dir}; start one with `flashsale serve --observe`"
            )
        prometheus_url = panels.prometheus_url(state)
        if minutes is None:
            window_s = _age_s(state)
    filled = panels.fill(prometheus_url, panels.queries(), window_s)
    _print_panels_json(filled) if json else _print_panels(filled)
    if not all(each.samples for each in filled):
        raise typer.Exit(ExitCode.NOTHING_JUDGED)


def show_when_filled(state: StackState) -> None:
    """Print the table once every panel shows something, or after a while what there is."""
    url, wanted = panels.prometheus_url(state), panels.queries()
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        filled = panels.fill(url, wanted, _age_s(state))
        if all(each.samples for each in filled) or time.monotonic() > give_up:
            return _print_panels(filled)
        time.sleep(_PAUSE_S)


def _age_s(state: StackState) -> float:
    """How long the stack has been up."""
    started = datetime.fromisoformat(state.started_at)
    return (datetime.now(UTC) - started).total_seconds()


def _print_panels(filled: Sequence[Filled]) -> None:
    """Dashboard, panel, query, series and samples; what found nothing stands out."""
    empty = [each for each in filled if not each.samples]
    drawn = Table(title=_title(filled, len(empty)), title_justify="left")
    for heading in ("dashboard", "panel", "query"):
        drawn.add_column(heading)
    for heading in ("series", "samples", "highest"):
        drawn.add_column(heading, justify="right")
    for each in filled:
        texts = (each.query.dashboard, each.query.panel, each.query.legend)
        style = None if each.samples else "red"
        drawn.add_row(
            *texts,
            f"{each.series:,}",
            f"{each.samples:,}",
            "-" if each.highest is None else f"{each.highest:.4g}",
            style=style,
        )
    console().print(drawn)


def _title(filled: Sequence[Filled], empty: int) -> str:
    shown = {(each.query.dashboard, each.query.panel) for each in filled}
    boards = {each.query.dashboard for each in filled}
    found = f"{empty} found nothing" if empty else "each found something"
    return f"{len(boards)} dashboards, {len(shown)} panels, {len(filled)} queries: {found}"


def _print_panels_json(filled: Sequence[Filled]) -> None:
    rows = [asdict(each) for each in filled]
    tell_document(rows)
