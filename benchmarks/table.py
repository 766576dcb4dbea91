"""One figure a line, beside its limit and its peers, as a terminal shows it."""

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """A measured value. `limit` and `holds` are empty for a peer that is there to compare."""

    what: str
    value: str
    limit: str = ""
    holds: bool | None = None


@dataclass
class Section:
    """The figures of one benchmark, and how they were come by."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, value: str, limit: str = "", holds: bool | None = None) -> None:
        """Add a figure."""
        self.figures.append(Figure(what, value, limit, holds))

    def add_ratio(self, what: str, times: float, most: float) -> None:
        """Add a figure that is a multiple of a yardstick from the same run."""
        self.add(what, f"{times:.2f} ×", f"≤ {most:g} ×", times <= most)

    def print(self, console: Console) -> None:
        """Print the section."""
        table = Table(title=self.title, title_justify="left", show_edge=False)
        table.add_column("what")
        table.add_column("figure", justify="right")
        table.add_column("limit", justify="right")
        table.add_column("")
        for figure in self.figures:
            sign = {None: "", True: "[green]holds[/]", False: "[red]missed[/]"}[figure.holds]
            table.add_row(figure.what, figure.value, figure.limit, sign)
        console.print(table)
        for note in self.notes:
            console.print(f"  [dim]{note}[/]")
        console.print()

    @property
    def holds(self) -> bool:
        """True where no limit is missed."""
        return all(figure.holds is not False for figure in self.figures)


def spread(values: list[float], digits: int = 0) -> str:
    """The median, and the smallest and largest."""
    ordered = sorted(values)
    median = ordered[len(ordered) // 2]
    return f"{median:,.{digits}f} ({ordered[0]:,.{digits}f} … {ordered[-1]:,.{digits}f})"


def median(values: list[float]) -> float:
    """The middle one of an odd number of values."""
    return sorted(values)[len(values) // 2]
