"""How long work shows itself: bars on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from flashsale.seeding.progress import Progress

if TYPE_CHECKING:
    from rich import progress as rich_progress

_PLAIN_INTERVAL_S = 5.0


@contextmanager
def shown(command: str) -> Iterator[Progress]:
    """A Progress on standard error, for the time of the block."""
    if not sys.stderr.isatty():
        yield PlainProgress(lambda line: typer.echo(f"{command}: {line}", err=True))
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description:<12}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bars:
        yield BarProgress(bars, command)


class BarProgress:
    """A bar a stage; notes stand above the bars."""

    def __init__(self, bars: "rich_progress.Progress", command: str) -> None:
        self._bars = bars
        self._command = command
        self._stage: rich_progress.TaskID | None = None

    def begin(self, stage: str, total: int) -> None:
        """Show a new bar."""
        self._stage = self._bars.add_task(stage, total=total)

    def advance(self, steps: int) -> None:
        """Lengthen the current bar."""
        if self._stage is not None:
            self._bars.advance(self._stage, steps)

    def note(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(f"{self._command}: {line}", markup=False, highlight=False)


class PlainProgress:
    """A line when a stage is complete, and one every few seconds until then."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self.begin("", 0)

    def begin(self, stage: str, total: int) -> None:
        """Count a new stage from nothing."""
        self._stage, self._total, self._done = stage, total, 0
        self._told_at = self._clock()

    def advance(self, steps: int) -> None:
        """Count on; say so at the end, and before it when it is time."""
        self._done += steps
        if self._done >= self._total or self._clock() - self._told_at >= _PLAIN_INTERVAL_S:
            self._told_at = self._clock()
            self._say(f"{self._stage} {self._done:,} of {self._total:,}")

    def note(self, line: str) -> None:
        """Print the line."""
        self._say(line)
