"""The attack over cold connections: each is opened at the instant at which its user is due.

So the handshake is part of the response, and what a listen queue drops shows in it. The storm is
late by what lies between the due instant and the begin of the handshake, no more.
"""

from array import array
from time import monotonic_ns

from flashsale.run.attempts import NEVER
from flashsale.scenario.answer import unsent
from flashsale.storm.attack.arsenal import Arsenal
from flashsale.storm.attack.attacker import Attacker
from flashsale.storm.attack.barrier import Barrier, at_once
from flashsale.storm.attack.progress import ShowProgress
from flashsale.storm.attack.records import Records


class ColdAttacker(Attacker):
    """One attack in which every user comes over a connection of its own."""

    def __init__(
        self,
        arsenal: Arsenal,
        records: Records,
        show: ShowProgress,
        barrier: Barrier = at_once,
    ) -> None:
        super().__init__(arsenal, records, show, barrier)
        self._free = self._ledger.free_ns = array("q", [NEVER]) * len(self._plan)

    async def _continue(self, i: int) -> None:
        """Open the connection of attempt `i` and send it; without one it was never sent."""
        begun = monotonic_ns()
        try:
            connection = await self.lanes.revive(self._plan.connections[i])
        except TimeoutError:
            self._settle(i, monotonic_ns(), unsent("connect"))
        else:
            self._free[i] = self._due[i] + monotonic_ns() - begun
            self._send(connection, i)
