"""An attack as others see it: what it is given, what it is asked, what it leaves and tells; and its
watch on itself, what it costs, how late its loop comes round, who has its core.
"""

import resource
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns, process_time_ns
from typing import Protocol

from flashsale.model import Ending
from flashsale.run.attempts import Attempts
from flashsale.run.histogram import Histogram
from flashsale.scenario.scenario import Scenario
from flashsale.scenario.target import Target
from flashsale.storm.figures.generator import Effort, RawSample, SelfReport, samples_of
from flashsale.storm.plan.plan import Plan


@dataclass(frozen=True)
class Mission:
    """What is to be fired at whom; `tokens` are the sessions of the plan's users, `columns` what
    else their file says of them, and `run` is the storm's name."""

    scenario: Scenario
    target: Target
    plan: Plan
    tokens: Mapping[int, str]
    columns: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    run: str = ""

    @property
    def polls(self) -> bool:
        """Whether a claim can be queued, and is asked after then."""
        buy = self.scenario.target.buy
        return buy is not None and buy.poll is not None


class Attack(Protocol):
    """One firing of a plan, by one process or by several."""

    async def run(self) -> None:
        """Connect, open the barrier, fire; then every attempt has an outcome. Raises
        UnreachableError where the barrier cannot open; then nothing was sent."""

    def stop(self, reason: str = "interrupted") -> None:
        """Send nothing more. Answers that are out get a moment; told twice, none."""

    def effort(self) -> Effort:
        """What it has taken so far."""


class Writer(Protocol):
    """Who writes down what has happened, a few times a second."""

    @property
    def outcomes(self) -> Counter[Ending]:
        """How many attempts have ended how, as far as it was written."""

    def write_barrier(self, unix_us: int) -> None:
        """The barrier opens."""

    def write_results(self, attempts: Attempts, /) -> None:
        """Write every outcome that has come since the last time."""


_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class SelfWatch:
    """Counts the storm's own CPU time, and how late its event loop comes round."""

    def __init__(self) -> None:
        self._cpu_ns = self._wall_ns = 0
        self._lags_us: list[int] = []
        self._looks: list[RawSample] = []
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
        self._looks.append(
            RawSample(at_ns, process_time_ns(), waited_ns(), self._worst_us, in_flight)
        )
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


@dataclass(frozen=True)
class Records:
    """Where an attack leaves its traces: attempts in memory, who writes them down, what it took."""

    attempts: Attempts
    writer: Writer
    watch: SelfWatch


@dataclass(frozen=True)
class Progress:
    """One look at a storm that is under way."""

    elapsed_s: float
    planned: int
    settled: int
    in_flight: int
    outcomes: Mapping[Ending, int]


ShowProgress = Callable[[Progress], None]
"""Called a few times a second from the storm's own loop: it has to be quick."""
