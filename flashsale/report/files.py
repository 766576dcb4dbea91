"""The files of a run that are rendered from the others, and can be rendered again."""

from flashsale.report.html import html
from flashsale.report.junit import junit
from flashsale.storm.attempts import read_ledger
from flashsale.storm.figures import Figures
from flashsale.storm.runfolder import RunFolder
from flashsale.storm.summary import Summary


def write_reports(folder: RunFolder, summary: Summary, figures: Figures | None = None) -> None:
    """Write junit.xml and report.html; the figures are counted from the attempts if not given."""
    if figures is None:
        figures = Figures(read_ledger(folder.attempts))
    folder.junit.write_bytes(junit(summary))
    folder.report.write_text(html(summary, figures), encoding="utf-8")
