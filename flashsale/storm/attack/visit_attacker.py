"""The attack of an open plan with steps: users come at instants of their own, and stay a while.

Each step takes whichever connection is free when it is due. Where none is, it waits its turn, and
its response latency goes on all the while.
"""

from array import array

from flashsale.run.attempts import NEVER
from flashsale.storm.attack.arsenal import Arsenal
from flashsale.storm.attack.barrier import Barrier, at_once
from flashsale.storm.attack.closed_attacker import ClosedAttacker
from flashsale.storm.attack.progress import ShowProgress
from flashsale.storm.attack.records import Records
from flashsale.storm.attack.turns import Turns


class VisitAttacker(ClosedAttacker):
    """One attack by users who think, over connections that belong to nobody."""

    def __init__(
        self,
        arsenal: Arsenal,
        records: Records,
        show: ShowProgress,
        barrier: Barrier = at_once,
    ) -> None:
        super().__init__(arsenal, records, show, barrier)
        self._taken = array("q", [NEVER]) * len(self._plan)  # by each attempt that had its turn
        self._turns = Turns(self._plan.connection_count)

    def _lane(self, attempt: int) -> int:
        return self._taken[attempt]

    def _go(self, i: int) -> None:
        """Send attempt `i` over a free connection, or have it wait until one is."""
        lane = self._turns.take(i)
        if lane is not None:
            self._give(lane, i)

    def _release(self, lane: int, at_ns: int) -> None:
        i = self._turns.give_back(lane)
        if i is not None:
            self._free[i] = at_ns
            self._give(lane, i)

    def _give(self, lane: int, i: int) -> None:
        self._taken[i] = lane
        self._send(self.lanes.connections[lane], i)

    def _settle_unsent(self, reason: str) -> None:
        self._turns.forget()
        super()._settle_unsent(reason)
