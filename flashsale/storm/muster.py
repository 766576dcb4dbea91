"""Who attacks, and with what: the scenario's kind of attacker, armed for a plan or a part of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flashsale.storm.answer import MESSAGES
from flashsale.storm.attacker import Arsenal, Attacker, Records
from flashsale.storm.barrier import Barrier, at_once
from flashsale.storm.effort import Effort
from flashsale.storm.open_attacker import OpenAttacker
from flashsale.storm.plan import Plan
from flashsale.storm.progress import ShowProgress
from flashsale.storm.scenario import Scenario
from flashsale.storm.target import Target
from flashsale.storm.wire import BrowseReader, Reader


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


def muster(
    mission: Mission, records: Records, show: ShowProgress, barrier: Barrier = at_once
) -> Attacker:
    """The attacker that fires the mission's plan."""
    kind = OpenAttacker if mission.plan.open else Attacker
    return kind(_armed(mission), records, show, barrier)


def _armed(mission: Mission) -> Arsenal:
    scenario, reads = mission.scenario, bool(mission.plan.shops)
    return Arsenal(
        target=mission.target,
        plan=mission.plan,
        requests=_requests(mission),
        timeouts=scenario.timeouts,
        reader=BrowseReader() if reads else Reader({**MESSAGES, **scenario.messages}),
    )


def _requests(mission: Mission) -> Sequence[bytes]:
    plan = mission.plan
    if plan.shops:
        return mission.target.reads(plan.shops)
    tokens = map(mission.tokens.__getitem__, plan.users)
    return mission.target.claims(zip(plan.vouchers, tokens, strict=True))
