"""Who attacks, and with what: the plan's kind of attacker, armed for a plan or a part of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from flashsale.scenario.answer import MESSAGES
from flashsale.scenario.load import Step
from flashsale.scenario.scenario import Scenario
from flashsale.scenario.target import Target
from flashsale.storm.attack.arsenal import Arsenal
from flashsale.storm.attack.attacker import Attacker
from flashsale.storm.attack.barrier import Barrier, at_once
from flashsale.storm.attack.closed_attacker import ClosedAttacker
from flashsale.storm.attack.cold_attacker import ColdAttacker
from flashsale.storm.attack.open_attacker import OpenAttacker
from flashsale.storm.attack.progress import ShowProgress
from flashsale.storm.attack.records import Records
from flashsale.storm.attack.requests import requests_of
from flashsale.storm.attack.visit_attacker import VisitAttacker
from flashsale.storm.attack.wire import BrowseReader, Reader, SignReader
from flashsale.storm.figures.effort import Effort
from flashsale.storm.plan.plan import Plan

_READERS = {Step.BUY: Reader, Step.BROWSE: BrowseReader, Step.SIGN: SignReader}


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
    return _kind(mission.plan)(_armed(mission), records, show, barrier)


def _kind(plan: Plan) -> type[Attacker]:
    """The leanest that can do it: pauses and several followers cost a heap and an alarm."""
    if plan.cold:
        return ColdAttacker
    if plan.open:
        return VisitAttacker if plan.closed or len(plan.steps) > 1 else OpenAttacker
    return Attacker if plan.is_chained else ClosedAttacker


def _armed(mission: Mission) -> Arsenal:
    scenario = mission.scenario
    messages = {**MESSAGES, **scenario.messages}
    return Arsenal(
        target=mission.target,
        plan=mission.plan,
        requests=requests_of(mission.plan, mission.target, mission.tokens),
        timeouts=scenario.timeouts,
        readers=[_READERS[step](messages) for step in Step],
    )
