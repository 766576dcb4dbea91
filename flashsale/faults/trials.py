"""What one seed of chaos came to, and the table of all of them. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any

from flashsale.errors import ExitCode, worst

SOLD_BEHIND = "sold_while_behind"
"""A rule of chaos alone: a ledger that has forgotten something sells nothing until its rebuild."""


class Fate(StrEnum):
    """What became of a trial."""

    HELD = "held"
    BROKEN = "broken"  # safety: a rule of the sale
    STUCK = "stuck"  # liveness: it did not sell again, or was not drained
    UNJUDGED = "not judged"


_CODES = {
    Fate.HELD: ExitCode.PASS,
    Fate.BROKEN: ExitCode.VIOLATION,
    Fate.STUCK: ExitCode.VIOLATION,
    Fate.UNJUDGED: ExitCode.NOTHING_JUDGED,
}


@dataclass(frozen=True)
class Trial:
    """One seed: a storm with its faults, healed, drained and verified.

    `broken` are the rules that were breached, `expected` those of them whose breach is right for
    these faults. `lost` are acknowledged orders without a row, `gone` those of them that a ledger
    had forgotten before a worker could write them. `recovered_s` runs from the healing to the first
    order of a claim that was sent after it; None where none came.
    """

    seed: int
    faults: Sequence[str]
    run: str
    broken: Sequence[str] = ()
    expected: Sequence[str] = ()
    acknowledged: int = 0
    lost: int = 0
    gone: int = 0
    doubled: int = 0
    recovered_s: float | None = None
    sent_after: int = 0
    drained: bool = False
    why: str = ""
    within_s: float = field(default=10.0, repr=False)

    @property
    def fate(self) -> Fate:
        """Safety first: what is broken is no less so where something is stuck, too."""
        if set(self.broken) - set(self.expected):
            return Fate.BROKEN
        if self.why or not self.acknowledged:
            return Fate.UNJUDGED
        if not self.drained:
            return Fate.STUCK
        if not self.sent_after:
            return Fate.UNJUDGED
        if self.recovered_s is None or self.recovered_s > self.within_s:
            return Fate.STUCK
        return Fate.HELD

    def to_json(self) -> dict[str, Any]:
        """As it stands in chaos.json."""
        return {**asdict(self), "fate": str(self.fate)}


def exit_code_of(trials: Iterable[Trial]) -> ExitCode:
    """What chaos ends with."""
    return worst(ExitCode.PASS, *(_CODES[trial.fate] for trial in trials))


_HEAD = ("fault", "trials", "held", "orders", "lost", "gone", "twice", "again s", "breached")
"""Narrow enough for a terminal of 80 columns: `orders` were acknowledged, `again s` are the median
and the most seconds until the sale sold again."""


def table(trials: Sequence[Trial]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The head and the rows: one for each fault, over all trials that it was in, and their sum."""
    faults = sorted({name for trial in trials for name in trial.faults})
    rows = [_row(name, [it for it in trials if name in it.faults]) for name in faults]
    return _HEAD, [*rows, _row("all", trials)]


def _row(name: str, trials: Sequence[Trial]) -> Sequence[str]:
    recovered = [it.recovered_s for it in trials if it.recovered_s is not None]
    times = f"{median(recovered):.1f} ≤ {max(recovered):.1f}" if recovered else "–"
    return (
        name,
        f"{len(trials):,}",
        f"{sum(it.fate is Fate.HELD for it in trials):,}",
        f"{sum(it.acknowledged for it in trials):,}",
        f"{sum(it.lost for it in trials):,}",
        f"{sum(it.gone for it in trials):,}",
        f"{sum(it.doubled for it in trials):,}",
        times,
        ", ".join(_breached(trials)) or "none",
    )


def _breached(trials: Sequence[Trial]) -> Iterator[str]:
    """The rules that were breached, how often, and those that were to be."""
    for rule in dict.fromkeys(rule for trial in trials for rule in trial.broken):
        those = [trial for trial in trials if rule in trial.broken]
        right = sum(rule in trial.expected for trial in those)
        told = f"{rule} ×{len(those)}"
        yield f"{told} (as expected)" if right == len(those) else told


def markdown(title: str, trials: Sequence[Trial], lines: Sequence[str] = ()) -> str:
    """The table as a step's summary shows it, and what failed."""
    head, rows = table(trials)
    told = [f"## {title}", "", _bar(head), _bar(["---"] * len(head)), *map(_bar, rows), ""]
    return "\n".join([*told, *(f"- {_cell(line)}" for line in lines), ""])


def _bar(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
