"""An alarm for a planned instant: the event loop's own timers come round by the millisecond.

On Linux it is a timerfd (timerfd_create(2)), called through libc since Python has it from 3.13 on
only. Elsewhere it is the loop's timer, and the start lag says what that costs.
"""

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from time import monotonic_ns

_CLOCK_MONOTONIC, _ABSOLUTE, _SECOND_NS = 1, 1, 1_000_000_000


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
        if self._file is not None:
            loop.add_reader(self._file, self._rung)

    def __repr__(self) -> str:
        return f"<Alarm timerfd={self._file}>"

    def set(self, at_ns: int) -> None:
        """Ring at `at_ns` on the monotonic clock, at once where that has passed."""
        if self._file is None:
            self._loop.call_later(max(0, at_ns - monotonic_ns()) / _SECOND_NS, self._ring)
            return
        spec = _Spec(0, 0, *divmod(max(1, at_ns), _SECOND_NS))
        _LIBC.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(spec), None)

    def close(self) -> None:
        """Ring no more."""
        if self._file is not None:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = None

    def _rung(self) -> None:
        assert self._file is not None
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # set anew in the meantime
            return
        self._ring()


_LIBC = ctypes.CDLL(None, use_errno=True)


def _timer_file() -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    made: int = _LIBC.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    return None if made < 0 else made
