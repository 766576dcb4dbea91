"""A child's first act: bind its life to ours and take all descriptors it may have."""

import ctypes
import os
import resource
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_DESCRIPTORS_MAX = 1_048_576  # some limits are a billion, and programs size tables by them


def tether(death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What `subprocess.Popen(preexec_fn=...)` runs in the child, between fork and exec.

    The kernel sends `death_signal` to the child when the *thread* that started it ends, so
    tethered children are started from the main thread only. Everything is looked up here, in the
    parent: the function itself only makes system calls.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)
        raise_descriptor_limit()

    return bind


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to its hard limit; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
