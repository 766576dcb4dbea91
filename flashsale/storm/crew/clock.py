"""How well this machine's wall clock is kept, by the kernel's own account (adjtimex(2))."""

import ctypes
import sys

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
