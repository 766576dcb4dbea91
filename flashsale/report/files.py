"""The files of a run that are rendered from the others, and can be rendered again."""

from flashsale.errors import UsageError
from flashsale.report.html import html
from flashsale.report.junit import junit
from flashsale.storm.attempts import read_ledger
from flashsale.storm.figures import Figures
from flashsale.storm.plan_lines import read_plan
from flashsale.storm.runfolder import RunFolder
from flashsale.storm.summary import Summary


def write_reports(folder: RunFolder, summary: Summary, figures: Figures | None = None) -> None:
    """Write junit.xml and report.html; the figures are counted from the attempts if not given.

    Raises UsageError where those are damaged.
    """
    if figures is None:
        figures = read_figures(folder, summary)
    folder.junit.write_bytes(junit(summary))
    folder.report.write_text(html(summary, figures), encoding="utf-8")


def restore_latencies(folder: RunFolder, figures: Figures) -> None:
    """Write latency.hgrm and latency.hlog where they are missing.

    Attempts hold whole µs, so the storm's own files are truer by up to one, and stay.
    """
    if not folder.hgrm.exists():
        folder.hgrm.write_text(figures.latency("response").hgrm(), encoding="utf-8")
    if not folder.hlog.exists():
        folder.hlog.write_text(figures.hlog(), encoding="utf-8")


def read_figures(folder: RunFolder, summary: Summary) -> Figures | None:
    """The figures of a run, counted from its attempts; None where those are not in the folder.

    Raises UsageError where they are damaged.
    """
    try:
        ledger, asks = read_ledger(folder.attempts), read_plan(folder.attempts).asks
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(
            f"{folder.attempts}: damaged, so no charts; `flashsale verify` names the line"
        ) from error
    return Figures(ledger, asks)
