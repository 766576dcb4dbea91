"""A child's first act: bind its life to ours and take all descriptors it may have."""

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1
_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
        raise_descriptor_limit()

    return bind


@contextmanager
def undisturbed_fork() -> Iterator[None]:
    """Hold signals back while a tethered child is forked.

    What a handler raises inside the hooks that run around a fork is printed and lost, so a Ctrl-C
    in that moment would do nothing.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to its hard limit; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
