"""Two runs beside each other in the terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flashsale.report.number import amount
from flashsale.report.verdict import styled
from flashsale.run.summary import Comparison


def print_comparison(console: Console, found: Comparison, run: str = "") -> None:
    """Each figure of the earlier run, of this one (or of `run`), and what became of it."""
    title = f"{run} against {found.run}, at most {100 * found.max_regress:.4g} % worse"
    lines = [Text(title.strip(), style="dim")]
    lines += [Text(f"differs: {warning}", style="yellow") for warning in found.warnings]
    console.print(Padding(Group(*lines), (1, 0, 0, 2)))
    console.print(_changes(found))


def _changes(found: Comparison) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim")
    for name in ("figure", "before", "now", "change", ""):
        table.add_column(name, justify="right" if name in ("before", "now") else "left")
    for change in found.changes:
        before, now = (amount(value, change.unit) for value in (change.before, change.after))
        table.add_row(change.metric, before, now, change.detail, styled(change.verdict))
    return table
