"""A judgement as a person reads it: a table in a terminal, a line a fact anywhere else."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flashsale.errors import ExitCode
from flashsale.model import Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from flashsale.verify.finding import Finding
    from flashsale.verify.verdict import Judged, Judgement

_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red"}
_DOUBTFUL = "yellow"
_HELD = {Verdict.PASS: "hold", Verdict.FAIL: "are broken", Verdict.UNKNOWN: "could not be judged"}


def show(
    judgement: "Judgement", console: "Console", run_verdict: Verdict, exit_code: ExitCode
) -> None:
    """Print the verdict of every check, everyone they name, and the verdict of the run."""
    short = [judgement.shortfall] if judgement.shortfall else []
    end = [*_figures(judgement), *short, _verdict(judgement, run_verdict, exit_code)]
    if console.is_terminal:
        console.print(_table(judgement))
        lines = [f"  {line}" for line in end]
    else:
        lines = [*_lines(judgement), *end]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _figures(judgement: "Judgement") -> Iterator[str]:
    if judgement.accepted is not None and judgement.persisted is not None:
        yield _orders(judgement)
    latency = judgement.latency_ms
    if latency and latency["count"]:
        yield _latency(latency)


def _verdict(judgement: "Judgement", run_verdict: Verdict, exit_code: ExitCode) -> str:
    """The run's verdict: a run that fell short in itself passes no more for keeping the rules."""
    if judgement.reason:
        because = f": {judgement.reason}"
    elif judgement.verdict != run_verdict:
        because = f": the sale's rules {_HELD[judgement.verdict]}, the run itself falls short"
    else:
        because = ""
    return f"verdict {run_verdict}{because} (exit {int(exit_code)})"


def _orders(judgement: "Judgement") -> str:
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


def _lines(judgement: "Judgement") -> Iterator[str]:
    for check in judgement.checks:
        yield f"{check.verdict:<8}{check.name:<20}{_headline(check)}"
        for finding in _told(check):
            for offence in finding.offences:
                yield f"{'':<8}{offence.text}"
            if finding.total > len(finding.offences):
                yield f"{'':<8}and {finding.total - len(finding.offences):,} more"


def _headline(check: "Judged") -> str:
    told = _told(check)
    return "; ".join(f"{f.rule} ({f.total:,})" for f in told) if told else check.detail


def _told(check: "Judged") -> list["Finding"]:
    return [finding for finding in check.findings if finding.verdict == check.verdict]


def _table(judgement: "Judgement") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="dim")
    for name in ("check", "", "detail"):
        table.add_column(name, overflow="fold")
    for check in judgement.checks:
        style = _STYLES.get(check.verdict, _DOUBTFUL)
        named = [o.text for f in _told(check) for o in f.offences]
        detail = "\n".join((_headline(check), *named))
        table.add_row(check.name, Text(check.verdict, style=style), Text(detail))
    return table
