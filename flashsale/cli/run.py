"""A run in its folder: `flashsale verify` judges it, `flashsale report` renders it again, holds it
against others or merges it."""

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
from typer.core import TyperGroup

from flashsale.books import Books, ShopBooks
from flashsale.campaign.campaign import Stores, find_stores, shop_books, stack_of
from flashsale.campaign.judging import (
    EXERCISED,
    MAX_REGRESS,
    REQUIRE,
    judge_run,
    only_exercising,
    parse_regress,
)
from flashsale.campaign.merging import merge_shards
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
from flashsale.cli.storm_options import Csv, Out
from flashsale.cli.terminal import TerminalTeller, console, tell_document, tell_workflow
from flashsale.errors import ExitCode, NothingJudgedError, UsageError, one_line, worst
from flashsale.model import Verdict
from flashsale.report.compare import asked, compare, ensure_comparable
from flashsale.report.console import print_comparison, print_summary
from flashsale.report.files import (
    read_figures,
    read_run,
    restore_latencies,
    write_counted,
    write_sheet,
)
from flashsale.report.wording import met
from flashsale.run.attempts_file import lines_of
from flashsale.run.folder import (
    ATTEMPTS_FILE,
    LATEST_RUN,
    RunFolder,
    cure_without,
    read_file,
    telling,
)
from flashsale.run.summary import summary_schema
from flashsale.scenario.scenario import books_of, scenario_of
from flashsale.verify.finding import CheckResult, Finding, Judgement
from flashsale.verify.verdict import DRAIN_TIMEOUT_S

_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red"}
_DOUBTFUL = "yellow"
_HELD = {Verdict.PASS: "hold", Verdict.FAIL: "are broken", Verdict.UNKNOWN: "could not be judged"}


def verify(
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
        raise NothingJudgedError(f"{run}: no attempts to judge; {cure_without(run)}")
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
        console.print(_judgement_table(judgement))
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


def _judgement_table(judgement: Judgement) -> Table:
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


# Reporting ---------------------------------------------------------------------------------------

_DEFAULT = "render"


class _RunsByDefault(TyperGroup):
    """What is no subcommand is a run's folder. A folder called `merge` is reached as `./merge`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the group's, with the default subcommand put in front where none is named."""
        named = bool(args) and (args[0] in self.commands or args[0] in ("--help", "-h"))
        return super().parse_args(ctx, args if named else [_DEFAULT, *args])


report = typer.Typer(
    cls=_RunsByDefault,
    help="Render a run's report again: `flashsale report RUN`.",
    subcommand_metavar="[RUN | COMMAND]",
)


@report.command(_DEFAULT)
def render(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN…",
            help="Folders of runs; of several, each is held against the first.",
            show_default=str(LATEST_RUN),
        ),
    ] = None,
    max_regress: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Of several runs: exit with 5 where one is worse than the first by more.",
            show_default=f"marks {MAX_REGRESS}, exits with 0",
        ),
    ] = None,
    csv: Csv = False,
) -> None:
    """Draw one run's table, charts and files again; or hold several against the first.

    What was judged stands: a run's verdict is not judged anew, and is not the exit code.
    """
    first, *others = runs or [LATEST_RUN]
    if others:
        raise typer.Exit(_compare(first, others, max_regress))
    if max_regress is not None:
        raise UsageError("--max-regress: this goes with two runs or more, the first the baseline")
    _render(first, csv)


@report.command("schema")
def schema() -> None:
    """Print the JSON Schema of summary.json."""
    tell_document(summary_schema())


def _render(run: Path, csv: bool) -> None:
    folder, summary = read_run(run)
    counted, teller = read_figures(folder), TerminalTeller("report")
    unwritten: list[str] = []
    if counted is None:
        teller.say(f"no {folder.attempts.name} in {run}, so no charts")
    else:
        with telling(unwritten.append):
            restore_latencies(folder, counted.figures)
    write_counted(folder, summary, counted, unwritten.append)
    if csv and counted is not None:
        with telling(unwritten.append):
            write_sheet(folder.attempts, folder.sheet)
    for line in unwritten:
        teller.say(line)
    if counted is not None and counted.shortfall:
        teller.say(counted.shortfall)
    print_summary(console(), summary, folder.path)
    if unwritten:
        raise typer.Exit(ExitCode.USAGE)


def _compare(first: Path, others: list[Path], max_regress: str | None) -> ExitCode:
    """Show what became of the first run in the others; nothing is written."""
    _, before = read_run(first)
    allowed, code = parse_regress(max_regress or MAX_REGRESS), ExitCode.PASS
    for other in others:
        _, after = read_run(other)
        try:
            ensure_comparable(before, after.scenario, asked(after))
        except ValueError as error:
            raise UsageError(f"{first} beside {other}: {error}") from error
        found = compare(before, after, allowed, str(first))
        print_comparison(console(), found, after.run)
        code = worst(code, found.exit_code) if max_regress is not None else code
    return code


@report.command("merge")
def merge(
    shards: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="The folders that all shards left.")
    ],
    out: Out = None,
) -> None:
    """Make one run of the shards that several machines fired, for `verify` and `report`.

    The shards have to be all of one storm, each once. Exits as one storm of it all would.
    """
    run = merge_shards(shards, out, TerminalTeller("report"))
    raise typer.Exit(run.summary.exit_code)
