"""A stack as a terminal shows it: a table that stays, or a line per event."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import typer

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from flashsale.stack.stack import Stack

_STYLES = {"up": "green", "starting": "yellow"}


class Row(NamedTuple):
    """One process."""

    name: str
    kind: str
    phase: str
    pid: int
    port: int | None
    restarts: int


def table(title: str, rows: Iterable[Row]) -> "Table":
    """The processes of a stack."""
    from rich.table import Table

    drawn = Table(title=title, title_justify="left")
    for heading in ("name", "kind", "state", "pid", "port", "restarts"):
        drawn.add_column(heading, justify="right" if heading in Row._fields[3:] else "left")
    for row in rows:
        style = _STYLES.get(row.phase, "red")
        phase = f"[{style}]{row.phase}[/{style}]"
        pid, port = str(row.pid or "-"), str(row.port or "-")
        drawn.add_row(row.name, row.kind, phase, pid, port, str(row.restarts))
    return drawn


class PlainWatcher:
    """One line per event, with its time; for logs and pipes."""

    def say(self, line: str) -> None:
        with suppress(OSError):  # the terminal is gone; the stack still is to be stopped
            typer.echo(f"{datetime.now():%H:%M:%S} {line}")

    def show(self, stack: "Stack") -> None:
        """The events have said it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing was put up that has to be taken down."""


class LiveWatcher(PlainWatcher):
    """A table that is drawn anew when something changes, with the events above it."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def say(self, line: str) -> None:
        if self._live is None:
            super().say(line)
            return
        with suppress(OSError):
            line = f"{datetime.now():%H:%M:%S} {line}"
            self._live.console.print(line, markup=False, highlight=False)

    def show(self, stack: "Stack") -> None:
        rows = [
            Row(
                member.service.name,
                member.service.kind,
                member.phase,
                member.service.process.pid if member.service.process else 0,
                member.service.port.number,
                member.restarts,
            )
            for member in stack.members
        ]
        drawn = table(f"{stack.base_url}  (Ctrl-C stops)", rows)
        with suppress(OSError):
            if self._live is None:
                self._live = _live(drawn)
            self._live.update(drawn, refresh=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()


def _live(drawn: "Table") -> "Live":
    from rich.console import Console
    from rich.live import Live

    # No thread: it draws when it is told to. In the end the events stay, the table goes.
    live = Live(drawn, console=Console(), auto_refresh=False, transient=True)
    live.start()
    return live
