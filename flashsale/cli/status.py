"""`flashsale status` and `flashsale stop`: how the stack of a state folder is, and its end."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from flashsale.campaign.stores import DEFAULT_STATE_DIR
from flashsale.cli.options import Json, StateDir
from flashsale.cli.terminal import console, tell, tell_document
from flashsale.doctor.findings import BOOKS, Finding, compare_books, failures
from flashsale.errors import ExitCode, UnreachableError
from flashsale.stack.launch import stop_stack
from flashsale.stack.state import Health, StackState, check, read_state, supervisor_pid

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


def _print_json(state: StackState, health: Health, books: Sequence[Finding]) -> None:
    told = {
        "healthy": health.well and not books,
        "answers": health.answers,
        "behind": [finding.found for finding in books],
    }
    tell_document(asdict(state) | told)


def _print_table(state: StackState, health: Health, books: Sequence[Finding]) -> None:
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
