"""Instants: the barrier, before which nothing is sent, and an alarm that rings at any other.

An event loop's own timers come round by the millisecond. So on Linux the alarm is a timerfd
(timerfd_create(2)), called through libc since Python has it from 3.13 on only. Elsewhere it is the
loop's timer, and the start lag says what that costs.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic_ns

from flashsale.errors import UnreachableError

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
