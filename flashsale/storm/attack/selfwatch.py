"""The generator watches itself: what it costs, how late its loop comes round, who has its core; and
whether this machine has the open files and the ports that its connections take.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns, process_time_ns

from flashsale.errors import UsageError
from flashsale.run.histogram import Histogram
from flashsale.storm.figures.effort import Look, SelfReport, samples_of

_SCHEDSTAT = Path("/proc/thread-self/schedstat")

SPARE_DESCRIPTORS = 64
"""Files, event loop, logs and the status polls, beside one descriptor a connection."""


_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
SPARE_PORTS = 64
"""The preflight, the resolver, and whatever else this machine has to do there."""


class SelfWatch:
    """Counts the storm's own CPU time, and how late its event loop comes round."""

    def __init__(self) -> None:
        self._cpu_ns = self._wall_ns = 0
        self._lags_us: list[int] = []
        self._looks: list[Look] = []
        self._worst_us = 0

    def __repr__(self) -> str:
        return f"<SelfWatch cpu={self._cpu_ns / 1e6:.0f}ms ticks={len(self._lags_us)}>"

    @contextmanager
    def counting(self) -> Iterator[None]:
        """What runs inside is part of the cost of the requests."""
        cpu, wall = process_time_ns(), monotonic_ns()
        try:
            yield
        finally:
            self._cpu_ns += process_time_ns() - cpu
            self._wall_ns += monotonic_ns() - wall

    def late_by(self, lag_ns: int, every_ns: int) -> None:
        """A round of the loop, due `every_ns` after the one before, came this much later.

        The rounds that it kept from being are counted, too, each as late as it would have been:
        else a loop that stands still for a second would be late once, for a second.
        """
        lag_us, every_us = max(0, lag_ns) // 1000, every_ns // 1000
        self._lags_us.append(lag_us)
        self._lags_us.extend(range(lag_us - every_us, 0, -every_us))
        self._worst_us = max(self._worst_us, lag_us)

    def look(self, at_ns: int, in_flight: int) -> None:
        """Read the clocks, `at_ns` after the barrier. It costs some 20 µs: ten a second will do."""
        self._looks.append(Look(at_ns, process_time_ns(), waited_ns(), self._worst_us, in_flight))
        self._worst_us = 0

    def report(self) -> SelfReport:
        """Everything so far."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        samples = tuple(samples_of(self._looks))
        return SelfReport(self._cpu_ns, self._wall_ns, Histogram(self._lags_us), limit, samples)


def waited_ns() -> int:
    """For how long this thread was ready to run and another had its core, since it began.

    Linux counts that (its sched-stats.rst: the second number of schedstat); elsewhere it is 0.
    """
    try:
        return int(_SCHEDSTAT.read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def ensure_descriptors(connections: int) -> None:
    """Raise this process's limit on open files to what `connections` need.

    Raises UsageError where the system does not allow it.
    """
    needed = connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UsageError(
            f"{connections:,} connections need {needed:,} open files and the limit is {hard:,}; "
            f"raise it (`ulimit -n {needed}` as root, or LimitNOFILE), or lower load.connections"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def ensure_ports(connections: int) -> None:
    """See that there are as many ports as `connections` to one target take.

    Raises UsageError with the cure. Where the system does not tell its range, nothing is seen.
    """
    try:
        first, last = map(int, _RANGE.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return
    ports = last - first + 1
    if connections + SPARE_PORTS > ports:
        raise UsageError(
            f"{connections:,} connections need {connections + SPARE_PORTS:,} local ports and there "
            f'are {ports:,}; widen them (`sysctl -w net.ipv4.ip_local_port_range="1024 65535"`), '
            "storm in shards from several machines, or lower load.connections"
        )
