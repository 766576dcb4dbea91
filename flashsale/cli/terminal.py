"""What a person or a workflow sees of a command: lines, bars, tables, a storm under way, GitHub's
annotations.

The one door for text, whoever it is from: nothing in it is taken for markup, and nothing steers the
terminal, or the CI server that reads the log. Streams that cannot take it are the front door's
matter (`cli/__init__.py`).
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Self

import orjson
import typer
from rich import progress as rich_progress
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from flashsale.campaign.campaign import StormRun, Teller
from flashsale.errors import one_line, plain, plain_json
from flashsale.model import ENDINGS, Ending, Outcome
from flashsale.report.ci import annotations, step_summary
from flashsale.report.console import print_summary
from flashsale.run.summary import Summary
from flashsale.seeding.settings import StageProgress
from flashsale.storm.attack.attack import Progress, ShowProgress

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
    typer.echo(plain_json(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()))


class TerminalTeller(Teller):
    """Lines and progress on standard error, tables on standard output."""

    def __init__(self, command: str, quiet: bool = False) -> None:
        self._command, self._quiet = command, quiet

    def say(self, line: str) -> None:
        tell(f"{self._command}: {line}", err=True)

    @contextmanager
    def working(self, command: str) -> Iterator[StageProgress]:
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
def shown(command: str) -> Iterator[StageProgress]:
    """Stages on standard error for the time of the block: bars, or lines without a terminal."""
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
        typer.echo(line, err=True)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(path, "ab", opener=_at_once) as file:
                file.write(plain(step_summary(summary)).encode("utf-8", "replace"))
        except (OSError, ValueError) as error:
            tell(f"flashsale: no step summary: {path}: {error}", err=True)


def _at_once(path: str, flags: int) -> int:
    """Open what may be a pipe that nobody reads, which would be waited for."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


# A storm under way -------------------------------------------------------------------------------

_TTY_INTERVAL_S, _LINE_INTERVAL_S = 0.25, 1.0
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
        self._interval_s = _TTY_INTERVAL_S if self._renews else _LINE_INTERVAL_S
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next_s = 0.0
        self._before = (0.0, 0)

    def __enter__(self) -> Self:
        if self._renews and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
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
