"""What a person or a workflow sees of a command: lines, bars, tables, GitHub's annotations.

The one door for text, whoever it is from: nothing in it is taken for markup, and nothing steers the
terminal. Streams that cannot take it are the front door's matter (`cli/__init__.py`).
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import typer
from rich import progress as rich_progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from flashsale.campaign.teller import StormRun, Teller
from flashsale.errors import one_line, plain
from flashsale.report.ci import annotations, step_summary
from flashsale.report.console import print_summary
from flashsale.report.live import LiveProgress
from flashsale.run.summary import Summary
from flashsale.seeding.settings import Progress
from flashsale.storm.attack.attack import ShowProgress

_PLAIN_INTERVAL_S = 5.0


class _PlainConsole(Console):
    """Draws what it is given, and obeys nothing that stands in a text."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich does, with what would steer a terminal spelt out."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain(text), style, control)


def console(err: bool = False) -> Console:
    """Standard output, or standard error, for tables."""
    return _PlainConsole(stderr=err, markup=False, emoji=False)


def tell(line: str, err: bool = False) -> None:
    """Write one line, whatever is in it."""
    typer.echo(one_line(line), err=err)


def tell_document(document: object) -> None:
    """Write something as JSON."""
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


class TerminalTeller(Teller):
    """Lines and progress on standard error, tables on standard output."""

    def __init__(self, command: str, quiet: bool = False) -> None:
        self._command, self._quiet = command, quiet

    def say(self, line: str) -> None:
        tell(f"{self._command}: {line}", err=True)

    @contextmanager
    def working(self, command: str) -> Iterator[Progress]:
        with shown(command) as progress:
            yield progress

    @contextmanager
    def storming(self, units: int | None) -> Iterator[ShowProgress]:
        with LiveProgress(console(err=True), self._quiet, units) as show:
            yield show

    @contextmanager
    def waiting(self) -> Iterator[Callable[[int], None]]:
        if not sys.stderr.isatty():
            yield lambda left: None
            return
        with console(err=True).status("reading the stores") as status:
            yield lambda left: status.update(
                f"waiting for {left:,} orders to become rows" if left else "reading the stores"
            )

    def stormed(self, run: StormRun) -> None:
        print_summary(console(), run.summary, run.folder.path)


@contextmanager
def shown(command: str) -> Iterator[Progress]:
    """A Progress on standard error for the time of the block: bars, or lines without a terminal."""
    if not sys.stderr.isatty():
        yield PlainProgress(lambda line: tell(f"{command}: {line}", err=True))
        return
    columns = (
        rich_progress.TextColumn("{task.description:<12}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
    )
    with rich_progress.Progress(*columns, console=console(err=True)) as bars:
        yield BarProgress(bars, command)


class BarProgress:
    """A bar a stage; notes stand above the bars."""

    def __init__(self, bars: rich_progress.Progress, command: str) -> None:
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
        self._bars.console.print(one_line(f"{self._command}: {line}"), highlight=False)


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


def tell_workflow(summary: Summary) -> None:
    """Append the run to the step's summary and annotate what did not pass, under GitHub Actions.

    Annotations go to standard error, so that standard output stays what it is.
    """
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    for line in annotations(summary):
        tell(line, err=True)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(path).open("a", encoding="utf-8", errors="replace") as file:
                file.write(plain(step_summary(summary)))
        except (OSError, ValueError) as error:
            tell(f"flashsale: no step summary: {path}: {error}", err=True)
