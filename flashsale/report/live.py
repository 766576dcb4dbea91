"""A storm under way: two lines that renew themselves in a terminal, elsewhere one a second."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flashsale.model import ENDINGS, Ending, Outcome
from flashsale.storm.attack.attack import Progress

_TTY_INTERVAL_S, _PLAIN_INTERVAL_S = 0.25, 1.0
_COST_SHARE_MAX = 0.01
_BAR_FROM_COLUMNS = 80
"""On a narrower terminal the figures take the room of the bar."""


class LiveProgress:
    """Shows how far a storm is; `units` is the stock before it, where it sells.

    It runs inside the storm's loop, so it measures itself, and comes round so rarely that it
    costs at most 1 % of a core.
    """

    def __init__(self, console: Console, quiet: bool = False, units: int | None = None) -> None:
        self._console, self._quiet, self._units = console, quiet, units
        self._renews = console.is_terminal and not console.is_dumb_terminal
        self._interval_s = _TTY_INTERVAL_S if self._renews else _PLAIN_INTERVAL_S
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next_s = 0.0
        self._before = (0.0, 0)

    def __enter__(self) -> Self:
        if self._renews and not self._quiet:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def __call__(self, progress: Progress) -> None:
        begun = time.monotonic()
        if self._quiet or begun < self._next_s:
            return
        rate = self._rate_now(progress)
        try:
            if self._live.is_started:
                self._live.update(self._view(progress, rate), refresh=True)
            else:
                line = Text(_line(progress, rate, self._stock(progress)))
                self._console.print(line, soft_wrap=True)
        except (OSError, SystemExit):  # rich exits where nobody reads on: no reason to stop
            self._quiet = True
        cost_s = time.monotonic() - begun
        self._next_s = begun + max(self._interval_s, cost_s / _COST_SHARE_MAX)

    def _rate_now(self, progress: Progress) -> float:
        """Attempts that ended a second, since the last look."""
        elapsed_s, settled = self._before
        passed_s = progress.elapsed_s - elapsed_s
        self._before = progress.elapsed_s, progress.settled
        return (progress.settled - settled) / passed_s if passed_s > 0 else 0.0

    def _stock(self, progress: Progress) -> str:
        """What the answers leave of the stock."""
        if self._units is None:
            return ""
        left = self._units - progress.outcomes.get(Outcome.SOLD, 0)
        return f"stock {left:,}" if left >= 0 else f"stock {left:,}, OVERSOLD"

    def _view(self, progress: Progress, rate: float) -> Group:
        done = progress.settled / progress.planned if progress.planned else 0.0
        facts = [
            f"{progress.elapsed_s:6.1f} s",
            f"{done:4.0%}",
            f"{rate:,.0f}/s",
            f"in flight {progress.in_flight:,}",
            self._stock(progress),
        ]
        if self._console.width < _BAR_FROM_COLUMNS:
            first: Text | Table = _one_line(Text("  ".join(filter(None, facts))))
        else:
            first = Table.grid(padding=(0, 2))
            bar = ProgressBar(total=max(1, progress.planned), completed=progress.settled, width=20)
            first.add_row(facts[0], bar, *facts[1:])
        return Group(first, _one_line(_outcomes(progress)))


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _line(progress: Progress, rate: float, stock: str) -> str:
    """The same as one plain line, with the outcomes as summary.json spells them."""
    facts = [
        f"storm {progress.elapsed_s:5.1f} s",
        f"{progress.settled:,} of {progress.planned:,}",
        f"in flight {progress.in_flight:,}",
        f"{rate:,.0f}/s",
        stock,
        *(f"{outcome} {count:,}" for outcome, count in _counted(progress)),
    ]
    return "  ".join(filter(None, facts))


def _outcomes(progress: Progress) -> Text:
    """Trouble before what was to be expected: a narrow terminal cuts the end off."""
    counted = sorted(_counted(progress), key=lambda pair: (not _won(pair[0]), pair[0].is_expected))
    text = Text("          ")
    for outcome, count in counted:
        style = "green" if _won(outcome) else "" if outcome.is_expected else "yellow"
        text.append(f"{outcome.replace('_', ' ')} {count:,}  ", style=style)
    return text


def _counted(progress: Progress) -> list[tuple[Ending, int]]:
    counts = progress.outcomes
    return [(outcome, counts[outcome]) for outcome in ENDINGS if counts.get(outcome, 0)]


def _won(outcome: Ending) -> bool:
    return outcome is Outcome.SOLD
