"""What an attack is made with."""

from collections.abc import Sequence
from dataclasses import dataclass

from flashsale.storm.attack.target import Target
from flashsale.storm.attack.wire import Reader
from flashsale.storm.workload.plan import Plan
from flashsale.storm.workload.scenario import Timeouts


@dataclass(frozen=True)
class Arsenal:
    """What an attack is made with: the bytes of each attempt, and for each `Step` who reads its
    answer."""

    target: Target
    plan: Plan
    requests: Sequence[bytes]
    timeouts: Timeouts
    readers: Sequence[Reader]
