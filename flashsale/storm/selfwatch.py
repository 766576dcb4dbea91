"""The generator watches itself: a load test says something only if its own load was the plan's."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic_ns, process_time_ns

from flashsale.errors import UsageError
from flashsale.storm.histogram import Histogram

START_LAG_SHARE_MAX = 0.20
"""Of the response p99: an open run whose start lag exceeds it measured itself."""

SPARE_DESCRIPTORS = 64
"""Files, event loop, logs and the status polls, beside one descriptor a connection."""


class Health(StrEnum):
    """Whether the generator did what the plan said."""

    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True)
class SelfReport:
    """What the generator cost and how late it was."""

    cpu_ns: int
    wall_ns: int
    loop_lag: Histogram
    descriptors_limit: int

    @property
    def cpu_share(self) -> float:
        """Of one core, from the barrier to the end of the drain."""
        return self.cpu_ns / self.wall_ns if self.wall_ns else 0.0


class SelfWatch:
    """Counts the storm's own CPU time, and how late its event loop comes round."""

    def __init__(self) -> None:
        self._cpu_ns = self._wall_ns = 0
        self._lags_us: list[int] = []

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

    def late_by(self, lag_ns: int) -> None:
        """One round of the loop came this much later than asked for."""
        self._lags_us.append(max(0, lag_ns) // 1000)

    def report(self) -> SelfReport:
        """Everything so far."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return SelfReport(self._cpu_ns, self._wall_ns, Histogram(self._lags_us), limit)


def complaints(
    *, planned: int, sent: int, open_run: bool, start_lag: Histogram, response: Histogram
) -> list[str]:
    """Why a run proves nothing about its target; empty for a valid one. Pure.

    Only an open run has arrivals of its own to be late for: a closed one waits for its answers,
    and a stampede without spread saturates its core by nature, so their lag is reported only.
    """
    found = []
    if sent != planned:
        found.append(f"{sent:,} of {planned:,} planned attempts were sent")
    if open_run and start_lag.count:
        lag, latency = (_tail_us(histogram) for histogram in (start_lag, response))
        if lag > START_LAG_SHARE_MAX * latency:
            found.append(
                f"start lag p99 {lag / 1000:.1f} ms is more than "
                f"{START_LAG_SHARE_MAX:.0%} of the response p99 {latency / 1000:.1f} ms"
            )
    return found


def _tail_us(histogram: Histogram) -> int:
    """The p99, or the maximum where there are too few samples for one."""
    (p99,) = histogram.percentiles_us(99)
    return histogram.max_us if p99 is None else p99


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
