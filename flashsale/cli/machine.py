"""This machine, and the stack of a state folder on it. `flashsale doctor`: what would break a
promise or slow a storm here, and the cure; `services`: the programs without which no server starts
here; `status`: how the stack is; `stop`: its end; `panels`: what its dashboards show.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from flashsale.campaign.campaign import DEFAULT_STATE_DIR
from flashsale.cli.options import BaseUrl, CacheUrl, Durable, Json, LedgerUrl, MySQLUrl, StateDir
from flashsale.cli.terminal import console, tell, tell_document
from flashsale.doctor import findings
from flashsale.doctor.findings import AWAY, BOOKS, SALES, Diagnosis, compare_books, failures
from flashsale.doctor.machine import examine_binaries, examine_machine
from flashsale.errors import ExitCode, UnreachableError
from flashsale.model import Durability
from flashsale.observe import panels
from flashsale.observe.panels import Filled
from flashsale.stack import binaries, packages
from flashsale.stack.binaries import Program
from flashsale.stack.state import (
    StackHealth,
    StackState,
    check,
    read_state,
    stop_stack,
    supervisor_pid,
)

_GRADE_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    ledger_url: LedgerUrl = None,
    cache_url: CacheUrl = None,
    mysql_url: MySQLUrl = None,
    base_url: BaseUrl = None,
    durability: Durable = None,
    json: Json = False,
) -> None:
    """Examine machine, programs, and the stores of a running or external stack.

    Of each setting on which a promise rests: the line that sets it, why, and the cure.
    """
    findings = [
        *examine_machine(state_dir),
        *examine_binaries(_wanted_programs(ledger_url, cache_url, mysql_url, base_url)),
        *_examine_stores(
            state_dir, (ledger_url, cache_url, mysql_url), durability or Durability.ALWAYS
        ),
    ]
    _print_findings_json(findings) if json else _print_findings(findings)
    if failures(findings):
        raise typer.Exit(ExitCode.UNREACHABLE)


def _wanted_programs(
    ledger_url: str | None, cache_url: str | None, mysql_url: str | None, base_url: str | None
) -> Iterator[Program]:
    """What would be started here: not the programs of what somebody else runs."""
    if not (ledger_url and cache_url):
        yield binaries.REDIS
    if not mysql_url:
        yield binaries.MARIADB
    if not base_url:
        yield binaries.NGINX


def _examine_stores(
    state_dir: Path, urls: Sequence[str | None], durability: Durability
) -> list[Diagnosis]:
    """The stores that are named, ledger, cache and MySQL, else those of the running stack."""
    state = read_state(state_dir)
    running = (state.ledger_url, state.cache_url, state.mysql_url) if state else (None,) * 3
    ledger, cache, mysql = (url or other for url, other in zip(urls, running, strict=True))
    return findings.survey(ledger, cache, mysql, durability)


def _print_findings_json(findings: Sequence[Diagnosis]) -> None:
    rows = [asdict(finding) for finding in findings]
    tell_document(rows)


def _print_findings(findings: Sequence[Diagnosis]) -> None:
    drawn = Table()
    for heading in ("subject", "what", "found", "verdict", "why, and the cure"):
        drawn.add_column(heading, overflow="fold")
    for finding in findings:
        verdict = Text(finding.grade, style=_GRADE_STYLES[finding.grade])
        told = Text(f"`{finding.line}`: {finding.why}" if finding.line else "", style="dim")
        if finding.cure:
            told = Text("\n").join([told, Text(finding.cure)]) if told else Text(finding.cure)
        drawn.add_row(finding.subject, finding.name, finding.found, verdict, told)
    console().print(drawn)


# Services ----------------------------------------------------------------------------------------

Observe = Annotated[
    bool,
    typer.Option(
        "--observe", help="Those of `serve --observe`: Prometheus, its tool and its exporters."
    ),
]

services = typer.Typer(
    help="The Redis, MariaDB and nginx programs that private servers run from.",
)


@services.callback(invoke_without_command=True)
def _services_root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@services.command("install")
def install(observe: Observe = False) -> None:
    """Fetch what is missing or does not start: Debian and Ubuntu, no root, run twice safely.

    The programs go into a per-user cache (FLASHSALE_SERVICES_DIR names another). Each is started
    once.
    """
    programs = binaries.OBSERVERS if observe else binaries.PROGRAMS
    for program, binary in zip(programs, packages.install(_say, programs), strict=True):
        _say(f"{program.name} {binary}")


@services.command("list")
def list_(observe: Observe = False) -> None:
    """Show which programs are found, where, and for which release they were fetched."""
    programs = binaries.OBSERVERS if observe else binaries.PROGRAMS
    found = [binaries.look(program) for program in programs]
    for program, binary in zip(programs, found, strict=True):
        tell(f"{program.name}  {binary or 'missing'}")
    for tree in packages.trees():
        tell(f"fetched  {tree}")
    for program, binary in zip(programs, found, strict=True):
        if binary is None:
            binaries.find(program)  # says what is wrong with it, and the cure


@services.command("remove")
def remove() -> None:
    """Remove every program that `install` fetched, for this and other releases."""
    packages.remove(_say)


def _say(line: str) -> None:
    tell(f"services: {line}")


# The stack of a state folder ----------------------------------------------------------------------

Timeout = Annotated[
    float, typer.Option("--timeout", min=1, help="Seconds of patience before it is killed.")
]
_PHASE_STYLES = {"up": "green", "starting": "yellow"}


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
        phase = Text(row.phase, _PHASE_STYLES.get(row.phase, "red"))
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
    is_away = any(finding.name == AWAY for finding in books)
    _print_status_json(state, health, books) if json else _print_status(state, health, books)
    if books and not is_away:
        raise typer.Exit(ExitCode.VIOLATION)
    if is_away or not health.well:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _print_status_json(state: StackState, health: StackHealth, books: Sequence[Diagnosis]) -> None:
    told = {
        "healthy": health.well and not books,
        "answers": health.answers,
        "behind": [finding.found for finding in books],
    }
    tell_document(asdict(state) | told)


def _print_status(state: StackState, health: StackHealth, books: Sequence[Diagnosis]) -> None:
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
        what = _WRONG[finding.name]
        tell(f"{what}: {finding.found}; {finding.cure}")


_WRONG = {
    BOOKS: "nothing is sold",
    SALES: "the books are wrong",
    AWAY: "lanes of the ledger cannot be asked",
}


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
