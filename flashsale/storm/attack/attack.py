"""An attack as others see it: what it is given, what it is asked, what it leaves and tells."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flashsale.model import Ending
from flashsale.run.attempts import Attempts
from flashsale.scenario.scenario import Scenario
from flashsale.scenario.target import Target
from flashsale.storm.attack.selfwatch import SelfWatch
from flashsale.storm.figures.effort import Effort
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
