"""An attack as others see it: what it is given, what it is asked, what it leaves and tells."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from flashsale.model import Ending
from flashsale.run.attempts import Attempts
from flashsale.scenario.load import Step
from flashsale.scenario.scenario import Scenario
from flashsale.scenario.target import Target
from flashsale.storm.attack.selfwatch import SelfWatch
from flashsale.storm.figures.effort import Effort
from flashsale.storm.plan.plan import Plan


@dataclass(frozen=True)
class Mission:
    """What is to be fired at whom; `tokens` are the sessions of the plan's users."""

    scenario: Scenario
    target: Target
    plan: Plan
    tokens: Mapping[int, str]


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


def requests_of(plan: Plan, target: Target, tokens: Mapping[int, str]) -> list[bytes]:
    """What to send for each attempt, made before the storm. Raises KeyError where a user of the
    plan has no token."""
    if plan.steps == (Step.BUY,):
        owners = map(tokens.__getitem__, plan.users)
        return target.claims(zip(plan.things, owners, strict=True))
    if not plan.users:
        return target.reads(plan.things)
    columns = zip(plan.asks, plan.users, plan.things, strict=True)
    return [_request(target, ask, tokens[user], thing) for ask, user, thing in columns]


def _request(target: Target, ask: int, token: str, thing: int) -> bytes:
    match ask:
        case Step.BUY:
            return target.claim(thing, token)
        case Step.BROWSE:
            return target.read_by(thing, token)
        case _:
            return target.sign_in(token)
