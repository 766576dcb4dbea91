"""What an attack is made with."""

from collections.abc import Sequence
from dataclasses import dataclass

from flashsale.scenario.scenario import Timeouts
from flashsale.scenario.target import Target
from flashsale.storm.attack.wire import Reader
from flashsale.storm.plan.plan import Plan


@dataclass(frozen=True)
class Arsenal:
    """What an attack is made with: the bytes of each attempt, and for each `Step` who reads its
    answer."""

    target: Target
    plan: Plan
    requests: Sequence[bytes]
    timeouts: Timeouts
    readers: Sequence[Reader]
