"""The files of a run that are rendered from the others, and can be rendered again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flashsale.errors import UsageError
from flashsale.report.charts import Run
from flashsale.report.html import html
from flashsale.report.junit import junit
from flashsale.run.attempts_file import Record, read_record
from flashsale.run.faults import read_faults
from flashsale.run.folder import SUMMARY_FILE, RunFolder, telling, write_file
from flashsale.run.summary import Summary
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.sale import Asked, claims_by_voucher, sale_figures


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
    asked = Asked.of(_record(folder))
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
            f"{option}{run}: no {SUMMARY_FILE}, so no finished run; name a run's folder"
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
