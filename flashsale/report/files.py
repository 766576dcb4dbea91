"""The files of a run that are rendered from the others, and can be rendered again.

attempts.csv has one row an attempt, for spreadsheets, pandas and databases.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from flashsale.errors import UsageError
from flashsale.report.charts.chart import Run
from flashsale.report.ci import junit
from flashsale.report.html import html
from flashsale.run.attempts import FIRST, Attempts, PlanColumns
from flashsale.run.attempts_file import Record, read_record
from flashsale.run.folder import SUMMARY_FILE, RunFolder, cure_without, telling, write_file
from flashsale.run.parts import read_faults
from flashsale.run.summary import Summary
from flashsale.scenario.load import Step
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.sale import AskedVouchers, claims_by_voucher, sale_figures

COLUMNS = (
    "attempt",  # its number in the plan
    "endpoint",  # buy, browse or sign
    "user",
    "voucher",
    "shop",
    "connection",  # empty where any would do
    "due_us",  # µs after the barrier, as are the next three
    "sent_us",
    "done_us",
    "response_us",  # done - due
    "service_us",  # done - sent
    "outcome",
    "status",  # HTTP
    "order",
    "error",
    "resolved",  # what an indeterminate claim turned out to be: sold or none
    "after",  # the attempt that this one waited for
)
"""What stands in a row. What there is none of is empty."""

Cell = int | str | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_sheet(attempts: Path, sheet: Path) -> None:
    """Write the attempts in `attempts` to `sheet`, in the order of the plan.

    Raises UsageError where it cannot be written, or `attempts` is not a file of attempts.
    """
    try:
        record = read_record(attempts)
    except OSError as error:
        raise UsageError(f"{attempts}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{attempts}: damaged, so no {sheet.name} ({error})") from error
    write_file(sheet, _lines(record))


class _Line:
    """What a writer of the csv module writes to: it keeps the last line."""

    def write(self, line: str) -> None:
        self.last = line.encode("utf-8", "replace")


def _lines(record: Record) -> Iterator[bytes]:
    line = _Line()
    writer = csv.writer(line, lineterminator="\n")
    for row in chain([COLUMNS], rows(record)):
        writer.writerow([_plain(cell) for cell in row])
        yield line.last


def _plain(cell: Cell) -> Cell:
    """A cell that no spreadsheet takes for a formula: text that begins like one is quoted."""
    formula = isinstance(cell, str) and cell.startswith(_FORMULA)
    return f"'{cell}" if formula else cell


def rows(record: Record) -> Iterator[Sequence[Cell]]:
    """The rows, as COLUMNS has them. Pure."""
    plan, attempts = record.plan, record.attempts
    for i in range(len(plan)):
        step = Step(plan.asks[i])
        after = plan.after[i] if plan.after else FIRST
        yield (
            i,
            step.endpoint,
            plan.users[i] or None if plan.users else None,
            plan.things[i] if step is Step.BUY else None,
            plan.things[i] if step is Step.BROWSE else None,
            plan.connections[i] if plan.connections else None,
            *_result(plan, attempts, i),
            attempts.resolved.get(i),
            None if after == FIRST else after,
        )


def _result(plan: PlanColumns, attempts: Attempts, i: int) -> Sequence[Cell]:
    answer = attempts.answers[i]
    due, sent, done = (
        attempts.after_barrier_us(column[i])
        for column in (attempts.due_ns, attempts.sent_ns, attempts.done_ns)
    )
    if due is None and not (plan.after and plan.after[i] != FIRST):
        due = plan.at_us[i]
    if answer is None:  # on record as planned, and nothing more: a storm that was killed
        return due, sent, done, None, None, "indeterminate", None, None, "no record"
    response = None if due is None or done is None or sent is None else done - due
    service = None if sent is None or done is None else done - sent
    return (due, sent, done, response, service, answer.outcome.value, answer.status,
            answer.order, answer.error)  # fmt: skip


@dataclass(frozen=True)
class Counted:
    """The figures that a record gave, and what the record lacks, in a sentence."""

    figures: Figures
    shortfall: str | None = None


def write_reports(
    folder: RunFolder,
    summary: Summary,
    tell: Callable[[str], None],
    figures: Figures | None = None,
    baseline: RunFolder | None = None,
) -> None:
    """Write junit.xml and report.html; the figures are counted from the attempts if not given.

    `baseline` is laid over the charts: where none is given, the one that the summary was held
    against, if it is still there. A file that cannot be written, and attempts that cannot be read,
    are told in a line each: by now there is a verdict.
    """
    counted = None if figures is None else Counted(figures)
    if counted is None:
        with telling(tell):
            counted = read_figures(folder)
    write_counted(folder, summary, counted, tell, baseline)


def write_counted(
    folder: RunFolder,
    summary: Summary,
    counted: Counted | None,
    tell: Callable[[str], None],
    baseline: RunFolder | None = None,
) -> None:
    """The same with what was counted, tables alone where nothing was."""
    figures = None if counted is None else counted.figures
    if figures is not None:
        with telling(tell):
            summary = _with_sale(folder, summary, figures)
    if baseline is None and summary.baseline is not None:
        baseline = RunFolder(folder.path / summary.baseline.folder)
    with telling(tell):
        write_file(folder.junit, junit(summary))
    shortfall = None if counted is None else counted.shortfall
    with telling(tell):
        over = _read_baseline(baseline) if baseline is not None else None
        page = html(summary, figures, over, shortfall, read_faults(folder))
        write_file(folder.report, page.encode("utf-8", "replace"))


def _with_sale(folder: RunFolder, summary: Summary, figures: Figures) -> Summary:
    """The figures of the sale counted again for a summary that is older than they are."""
    if summary.sale is not None or not summary.orders.accepted:
        return summary
    asked = AskedVouchers.of(_record(folder))
    sale = sale_figures(claims_by_voucher(figures.attempts, asked))
    return summary.model_copy(update={"sale": sale})


def _read_baseline(folder: RunFolder) -> Run | None:
    """The run to lay over the charts, None where it is gone: they are worth drawing without it."""
    try:
        summary = Summary.read(folder.summary)
        counted = read_figures(folder)
    except (OSError, ValueError, UsageError):
        return None
    return None if counted is None else Run(summary, counted.figures)


def restore_latencies(folder: RunFolder, figures: Figures) -> None:
    """Write latency.hgrm and latency.hlog where they are missing.

    Attempts hold whole µs, so the storm's own files are truer by up to one, and stay. Raises
    NotWrittenError.
    """
    if not folder.hgrm.exists():
        write_file(folder.hgrm, figures.latency("response").hgrm().encode())
    if not folder.hlog.exists():
        write_file(folder.hlog, figures.hlog().encode())


def read_run(run: Path, option: str = "") -> tuple[RunFolder, Summary]:
    """The run in this folder, or of this summary.json.

    Raises UsageError with one line, which begins with `option`.
    """
    folder = RunFolder(run.parent if run.name == SUMMARY_FILE else run)
    try:
        return folder, Summary.read(folder.summary)
    except FileNotFoundError:
        raise UsageError(
            f"{option}{run}: no {SUMMARY_FILE}, so no finished run; {cure_without(run)}"
        ) from None
    except OSError as error:
        raise UsageError(f"{option}{folder.summary}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{option}{folder.summary}: damaged, or of another version") from error


def read_figures(folder: RunFolder) -> Counted | None:
    """The figures of a run, counted from its attempts; None where those are not in the folder.

    Raises UsageError where they are damaged.
    """
    if not folder.attempts.exists():
        return None
    record = _record(folder)
    return Counted(Figures(record.attempts, record.plan.asks), record.shortfall)


def _record(folder: RunFolder) -> Record:
    try:
        return read_record(folder.attempts)
    except OSError as error:
        raise UsageError(f"{folder.attempts}: {error.strerror}, so no charts") from error
    except ValueError as error:
        raise UsageError(
            f"{folder.attempts}: damaged, so no charts; `flashsale verify` names the line"
        ) from error
