"""`flashsale doctor`: what would break a promise or slow a storm here, and the cure; and
`flashsale services`: the programs without which no server starts here."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from flashsale.campaign.campaign import DEFAULT_STATE_DIR
from flashsale.cli.options import BaseUrl, CacheUrl, Durable, Json, LedgerUrl, MySQLUrl, StateDir
from flashsale.cli.terminal import console, tell, tell_document
from flashsale.doctor import findings
from flashsale.doctor.findings import Diagnosis, failures
from flashsale.doctor.machine import examine_binaries, examine_machine
from flashsale.errors import ExitCode
from flashsale.model import Durability
from flashsale.stack import binaries, packages
from flashsale.stack.binaries import Program
from flashsale.stack.state import read_state

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


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
    _print_json(findings) if json else _print_table(findings)
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


def _print_json(findings: Sequence[Diagnosis]) -> None:
    rows = [asdict(finding) for finding in findings]
    tell_document(rows)


def _print_table(findings: Sequence[Diagnosis]) -> None:
    drawn = Table()
    for heading in ("subject", "what", "found", "verdict", "why, and the cure"):
        drawn.add_column(heading, overflow="fold")
    for finding in findings:
        verdict = Text(finding.grade, style=_STYLES[finding.grade])
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
