"""The files of a run that are rendered from the others, and can be rendered again."""

from pathlib import Path

from flashsale.errors import UsageError
from flashsale.report.charts import Run
from flashsale.report.html import html
from flashsale.report.junit import junit
from flashsale.run.attempts_file import read_record
from flashsale.run.folder import SUMMARY_FILE, RunFolder
from flashsale.run.summary import Summary
from flashsale.storm.figures.figures import Figures
from flashsale.storm.figures.sale import Asked, claims_by_voucher, sale_figures


def write_reports(
    folder: RunFolder,
    summary: Summary,
    figures: Figures | None = None,
    baseline: RunFolder | None = None,
) -> None:
    """Write junit.xml and report.html; the figures are counted from the attempts if not given.

    `baseline` is laid over the charts: where none is given, the one that the summary was held
    against, if it is still there. Raises UsageError where attempts are damaged.
    """
    if figures is None:
        figures = read_figures(folder, summary)
    if figures is not None:
        summary = _with_sale(folder, summary, figures)
    if baseline is None and summary.baseline is not None:
        baseline = RunFolder(folder.path / summary.baseline.folder)
    folder.junit.write_bytes(junit(summary))
    page = html(summary, figures, _read_baseline(baseline) if baseline is not None else None)
    folder.report.write_text(page, encoding="utf-8")


def _with_sale(folder: RunFolder, summary: Summary, figures: Figures) -> Summary:
    """The figures of the sale counted again for a summary that is older than they are."""
    if summary.sale is not None or not summary.orders.accepted:
        return summary
    asked = Asked.of(read_record(folder.attempts))
    sale = sale_figures(claims_by_voucher(figures.attempts, asked))
    return summary.model_copy(update={"sale": sale})


def _read_baseline(folder: RunFolder) -> Run | None:
    """The run to lay over the charts, None where it is gone: they are worth drawing without it."""
    try:
        summary = Summary.read(folder.summary)
        figures = read_figures(folder, summary)
    except (OSError, ValueError, UsageError):
        return None
    return None if figures is None else Run(summary, figures)


def restore_latencies(folder: RunFolder, figures: Figures) -> None:
    """Write latency.hgrm and latency.hlog where they are missing.

    Attempts hold whole µs, so the storm's own files are truer by up to one, and stay.
    """
    if not folder.hgrm.exists():
        folder.hgrm.write_text(figures.latency("response").hgrm(), encoding="utf-8")
    if not folder.hlog.exists():
        folder.hlog.write_text(figures.hlog(), encoding="utf-8")


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


def read_figures(folder: RunFolder, summary: Summary) -> Figures | None:
    """The figures of a run, counted from its attempts; None where those are not in the folder.

    Raises UsageError where they are damaged.
    """
    try:
        record = read_record(folder.attempts)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(
            f"{folder.attempts}: damaged, so no charts; `flashsale verify` names the line"
        ) from error
    return Figures(record.attempts, record.plan.asks)
