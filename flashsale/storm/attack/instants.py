"""Instants of an attack: the barrier, before which nothing is sent, an alarm that rings at any
other, and what ends it before its plan does: its deadlines, or a signal.

An event loop's own timers come round by the millisecond. So on Linux the alarm is a timerfd
(timerfd_create(2)), called through libc since Python has it from 3.13 on only. Elsewhere it is the
loop's timer, and the start lag says what that costs. How well the wall clock is kept, by which
several machines open their barriers, is the kernel's own account (adjtimex(2)).
"""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from time import monotonic_ns
from types import FrameType

from flashsale.errors import ExitCode, UnreachableError
from flashsale.scenario.scenario import Timeouts

Hold = Callable[[int], Awaitable[None]]
"""Keeps every connection open for so many ns."""

Barrier = Callable[[Hold], Awaitable[int | None]]
"""Called when every connection is open; has them held, and answers with the instant at which the
barrier opens, on the monotonic clock. None: as soon as may be."""

LEAD_NS = 200_000_000
"""From the last connection to the barrier: who has to be told of it is ready by then."""

SETTLE_NS = 500_000_000
"""Nothing is done any more, this long before a barrier whose instant is known beforehand."""

_CLOCK_MONOTONIC, _ABSOLUTE, _SECOND_NS = 1, 1, 1_000_000_000


async def at_once(_hold: Hold) -> None:
    """Open as soon as every connection is open."""


def at_unix_us(instant_us: int) -> Barrier:
    """Open at this instant of the machine's wall clock, with every connection open until then.

    The two clocks are compared at the last moment, since the wall clock may be set meanwhile.
    Raises UnreachableError where connections are not open in time: others begin without us.
    """

    async def instant(hold: Hold) -> int:
        if (left_ns := until_unix_us(instant_us)) < LEAD_NS:
            raise UnreachableError(
                f"all connections stood only {(LEAD_NS - left_ns) / 1e6:,.0f} ms after the last "
                "moment for --start-at; give it more time, or look at timeouts.barrier_ms"
            )
        while (left_ns := until_unix_us(instant_us)) > SETTLE_NS:
            await hold(min(left_ns - SETTLE_NS, 1_000_000_000))
        return monotonic_ns() + left_ns

    return instant


def until_unix_us(instant_us: int) -> int:
    """How many ns from now the wall clock will show `instant_us`; negative when it is past."""
    return instant_us * 1000 - time.time_ns()


def unix_us_at(instant_ns: int) -> int:
    """What the wall clock shows, in µs, when the monotonic clock shows `instant_ns`."""
    return (time.time_ns() + instant_ns - monotonic_ns()) // 1000


async def wait_until(instant_ns: int) -> None:
    """Return at `instant_ns` on the monotonic clock, to within what the kernel can."""
    if instant_ns <= monotonic_ns():
        return
    rung = asyncio.Event()
    alarm = Alarm(asyncio.get_running_loop(), rung.set)
    try:
        alarm.set(instant_ns)
        await rung.wait()
    finally:
        alarm.close()


class _Spec(ctypes.Structure):
    """struct itimerspec: no interval, one instant."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """Calls `ring` once after each `set`, at the instant given. Close it when done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._file = _timer_file()
        self._at_ns: int | None = None
        self._spec = _Spec()
        self._spec_there = ctypes.byref(self._spec)
        if self._file is not None:
            loop.add_reader(self._file, self._rung)

    def __repr__(self) -> str:
        return f"<Alarm timerfd={self._file}>"

    def set(self, at_ns: int) -> None:
        """Ring at `at_ns` on the monotonic clock, at once where that has passed."""
        if self._file is None:
            self._loop.call_later(max(0, at_ns - monotonic_ns()) / _SECOND_NS, self._ring)
            return
        self._at_ns = at_ns
        self._spec.at_s, self._spec.at_ns = divmod(max(1, at_ns), _SECOND_NS)
        _LIBC.timerfd_settime(self._file, _ABSOLUTE, self._spec_there, None)

    def close(self) -> None:
        """Ring no more."""
        if self._file is not None:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = None

    def _rung(self) -> None:
        if self._at_ns is None or monotonic_ns() < self._at_ns:  # set anew in the meantime
            return
        self._at_ns = None
        self._ring()
        # A timer file that is set anew forgets that it has expired; else one has to read that.
        if self._at_ns is None and self._file is not None:
            with suppress(BlockingIOError):
                os.read(self._file, 8)


_LIBC = ctypes.CDLL(None, use_errno=True)


def _timer_file() -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    made: int = _LIBC.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    return None if made < 0 else made


_TIME_ERROR = 5
_UNSYNCHRONISED = 0x40


class _Timex(ctypes.Structure):
    """The head of struct timex, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),  # 0: only ask
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("max_error_us", ctypes.c_long),
        ("estimated_error_us", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def clock_error_us() -> int | None:
    """By how much the wall clock may be wrong, at most. None where nobody keeps it in time, or
    the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state in (-1, _TIME_ERROR) or timex.status & _UNSYNCHRONISED:
        return None
    return int(timex.max_error_us)


# Its end ------------------------------------------------------------------------------------------

INTERRUPT_GRACE_S = 1.0
"""What answers that are out get when the attack is told to stop."""

_EXIT_CODES = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
}
_MS = 1_000_000


class Deadlines:
    """When an attack gives up on what is out: told to stop, at the end of the run or of the drain.
    Pure: instants are handed in."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._run_ns, self._drain_ns = timeouts.run_ms * _MS, timeouts.drain_ms * _MS
        self._origin_ns = 0
        self._drained_ns: int | None = None
        self._stopped_ns: int | None = None  # when the grace ends
        self._reason = ""

    def __repr__(self) -> str:
        return f"<Deadlines {self._reason or 'running'}>"

    @property
    def stopped(self) -> bool:
        """Whether the attack was told to stop."""
        return self._stopped_ns is not None

    def start(self, origin_ns: int) -> None:
        """The barrier opens at `origin_ns`."""
        self._origin_ns = origin_ns

    def stop(self, now_ns: int, reason: str) -> bool:
        """Told to stop: what is out gets a moment; told twice, none. True for the first time."""
        is_first, self._reason = not self.stopped, reason
        self._stopped_ns = now_ns + round(INTERRUPT_GRACE_S * 1e9) if is_first else now_ns
        return is_first

    def passed(self, now_ns: int, all_sent: bool) -> str | None:
        """Why to give up now, None where there is time left; `all_sent` begins the drain."""
        if self._stopped_ns is not None:
            return self._reason if now_ns >= self._stopped_ns else None
        if now_ns >= self._origin_ns + self._run_ns:
            return "deadline"
        if all_sent:
            self._drained_ns = self._drained_ns or now_ns + self._drain_ns
            return "deadline" if now_ns >= self._drained_ns else None
        return None


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
