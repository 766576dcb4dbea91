"""Ctrl-C and SIGTERM while a storm runs: remembered, and told to whoever can stop it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from flashsale.errors import ExitCode

_EXIT_CODES = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
}


class Interrupts:
    """The first signal that came, and what to call for each."""

    def __init__(self) -> None:
        self.exit_code: ExitCode | None = None
        self._stop: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<Interrupts {self.exit_code!r}>"

    @contextmanager
    def told(self, stop: Callable[[], object]) -> Iterator[None]:
        """Call `stop` for every signal while this lasts; at once if one has already come."""
        self._stop = stop
        if self.exit_code is not None:
            stop()
        try:
            yield
        finally:
            self._stop = None

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.exit_code is None:
            self.exit_code = _EXIT_CODES[signal.Signals(number)]
        if self._stop is not None:
            self._stop()


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Take both signals for as long as this lasts, so that no file is left half written.

    Outside the main thread Python hands out no signals, and none are taken.
    """
    taken = Interrupts()
    if current_thread() is not main_thread():
        yield taken
        return
    before = {number: signal.signal(number, taken._take) for number in _EXIT_CODES}
    try:
        yield taken
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore both signals for the rest of the process, which is short: the work is done."""
    for number in _EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)
