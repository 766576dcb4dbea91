"""`flashsale verify`: judge a run by its attempts and by what Redis and MySQL hold."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flashsale.books import Books, ShopBooks
from flashsale.campaign.demands import EXERCISED, REQUIRE, only_exercising
from flashsale.campaign.judging import judge_run
from flashsale.campaign.stores import Stores, find_stores, shop_books, stack_of
from flashsale.cli.options import (
    BaseUrl,
    BooksRedisUrl,
    BooksUrl,
    CaFile,
    CertFile,
    Insecure,
    Json,
    KeyFile,
    LedgerUrl,
    MySQLUrl,
    RunStateDir,
    TargetFile,
    tls_of,
)
from flashsale.cli.terminal import TerminalTeller, console, tell_document, tell_workflow
from flashsale.errors import ExitCode, NothingJudgedError, UsageError, one_line
from flashsale.model import Verdict
from flashsale.report.wording import met
from flashsale.run.attempts_file import lines_of
from flashsale.run.folder import ATTEMPTS_FILE, LATEST_RUN, RunFolder, read_file
from flashsale.run.recording import scenario_of
from flashsale.scenario.scenario import books_of
from flashsale.verify import DRAIN_TIMEOUT_S
from flashsale.verify.finding import CheckResult, Finding, Judgement

_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red"}
_DOUBTFUL = "yellow"
_HELD = {Verdict.PASS: "hold", Verdict.FAIL: "are broken", Verdict.UNKNOWN: "could not be judged"}


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a storm's run.")] = LATEST_RUN,
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds that the order queue may stand still.", min=0)
    ] = DRAIN_TIMEOUT_S,
    require: Annotated[
        list[str] | None,
        typer.Option(
            REQUIRE,
            metavar="exercised:CHECK",
            help=f"A check that has to have met what it guards, such as "
            f"'{EXERCISED}duplicate_truthful', else exit 8. Repeatable.",
        ),
    ] = None,
    json: Json = False,
    state_dir: RunStateDir = None,
    ledger_url: LedgerUrl = None,
    mysql_url: MySQLUrl = None,
    target: TargetFile = None,
    base_url: BaseUrl = None,
    books_url: BooksUrl = None,
    books_redis_url: BooksRedisUrl = None,
    ca: CaFile = None,
    cert: CertFile = None,
    key: KeyFile = None,
    insecure: Insecure = False,
) -> None:
    """Judge a run: nothing oversold, nothing sold twice, nothing lost, nobody told a lie.

    Reads the storm's record, Redis and MySQL, and writes to neither. Exits with 3 where a rule is
    broken, naming every order that breaks it, and with 8 where nothing could be judged.
    """
    if not math.isfinite(drain_timeout):
        raise UsageError(f"--drain-timeout: expected seconds, got {drain_timeout}")
    required = only_exercising(require or [])
    if not (run / ATTEMPTS_FILE).is_file():
        raise NothingJudgedError(f"{run}: no attempts to judge; name the folder of a storm's run")
    books = _books(run, target)
    stores: Stores | ShopBooks
    if books is not None:
        where, tls = base_url or _stormed(run), tls_of(ca, cert, key, insecure)
        stores = shop_books(books, where, books_url, books_redis_url, tls)
    else:
        # The cache is none of verify's business, so whoever names the other two named enough.
        stores = find_stores(stack_of(run, state_dir), ledger_url, ledger_url, mysql_url)
    found = judge_run(run, stores, TerminalTeller("verify"), drain_timeout, required=required)
    if json:
        tell_document(found.judgement.to_json())
    else:
        show(found.judgement, console(), found.verdict, found.exit_code)
    if found.summary is not None:
        tell_workflow(found.summary)
    raise typer.Exit(found.exit_code)


def _books(run: Path, target: str | None) -> Books | None:
    """The books of the shop that was stormed; None where it was one of the family."""
    with suppress(OSError, ValueError):
        scenario = scenario_of(read_file(RunFolder(run).scenario))
        if target is None:
            return scenario.books
    return None if target is None else books_of(target)


def _stormed(run: Path) -> str:
    """Where the storm went, by its record."""
    with suppress(OSError, ValueError, StopIteration):
        return str(next(lines_of(RunFolder(run).attempts, 1)).get("base_url", ""))
    return ""


def show(judgement: Judgement, console: Console, run_verdict: Verdict, exit_code: ExitCode) -> None:
    """Print what each check found, everyone it names, and the verdict of the run.

    A table in a terminal, a line a fact anywhere else.
    """
    short = [judgement.shortfall] if judgement.shortfall else []
    end = [*_figures(judgement), *short, _verdict(judgement, run_verdict, exit_code)]
    if console.is_terminal:
        console.print(_table(judgement))
        lines = [f"  {line}" for line in end]
    else:
        lines = [*_lines(judgement), *end]
    for line in lines:
        console.print(one_line(line), highlight=False, soft_wrap=True)


def _figures(judgement: Judgement) -> Iterator[str]:
    if judgement.accepted is not None and judgement.persisted is not None:
        yield _orders(judgement)
    if judgement.rests_on:
        yield f"rests on {'; '.join(judgement.rests_on)}"
    latency = judgement.latency_ms
    if latency and latency["count"]:
        yield _latency(latency)


def _verdict(judgement: Judgement, run_verdict: Verdict, exit_code: ExitCode) -> str:
    """The run's verdict: a run that fell short in itself passes no more for keeping the rules."""
    if judgement.reason:
        because = f": {judgement.reason}"
    elif judgement.verdict != run_verdict:
        because = f": the sale's rules {_HELD[judgement.verdict]}, the run itself falls short"
    else:
        because = ""
    return f"verdict {run_verdict}{because} (exit {int(exit_code)})"


def _orders(judgement: Judgement) -> str:
    drained = "" if judgement.drain_s is None else f", the last row {judgement.drain_s:.3f} s later"
    open_ = f", {judgement.unanswered:,} claims without an answer" if judgement.unanswered else ""
    return f"orders {judgement.accepted:,} accepted{open_}, {judgement.persisted:,} rows{drained}"


def _latency(latency: dict[str, Any]) -> str:
    names = ("p50", "p90", "p99", "p99.9", "max")
    figures = ", ".join(f"{name} {latency[name]:,}" for name in names if latency[name] is not None)
    return (
        f"acceptance to row, ms: {figures} "
        f"(MySQL's clock {latency['clock_offset_ms']:+.1f} ± {latency['clock_error_ms']:.1f} ms)"
    )


def _lines(judgement: Judgement) -> Iterator[str]:
    for check in judgement.checks:
        yield f"{check.verdict:<8}{check.name:<20}{_headline(check)}"
        for finding in _told(check):
            for offence in finding.offences:
                yield f"{'':<8}{offence.text}"
            if finding.total > len(finding.offences):
                yield f"{'':<8}and {finding.total - len(finding.offences):,} more"
        if check.exercised:
            yield f"{'':<8}{met(check.exercised)}"


def _headline(check: CheckResult) -> str:
    told = _told(check)
    return "; ".join(f"{f.rule} ({f.total:,})" for f in told) if told else check.detail


def _told(check: CheckResult) -> list[Finding]:
    return [finding for finding in check.findings if finding.verdict == check.verdict]


def _table(judgement: Judgement) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim")
    for name in ("check", "", "detail"):
        table.add_column(name, overflow="fold")
    for check in judgement.checks:
        style = _STYLES.get(check.verdict, _DOUBTFUL)
        named = [o.text for f in _told(check) for o in f.offences]
        detail = Text("\n".join((_headline(check), *named)))
        if check.exercised:
            detail.append(f"\n{met(check.exercised)}", style="dim")
        table.add_row(check.name, Text(check.verdict, style=style), detail)
    return table
