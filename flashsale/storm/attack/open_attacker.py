"""The attack of an open plan: everybody comes at an instant of their own, served or not.

An attempt takes whichever connection is free. Where none is, it waits its turn, and its response
latency goes on all the while: a target that stalls delays everybody who comes meanwhile.
"""

from array import array
from time import monotonic_ns

from flashsale.run.attempts import NEVER
from flashsale.scenario.answer import Answer, unsent
from flashsale.storm.attack.arsenal import Arsenal
from flashsale.storm.attack.attacker import UNTENDED_MAX, Attacker
from flashsale.storm.attack.barrier import Barrier, at_once
from flashsale.storm.attack.progress import ShowProgress
from flashsale.storm.attack.records import Records
from flashsale.storm.attack.turns import Turns
from flashsale.storm.attack.wire import Connection


class OpenAttacker(Attacker):
    """One attack with open arrivals."""

    def __init__(
        self,
        arsenal: Arsenal,
        records: Records,
        show: ShowProgress,
        barrier: Barrier = at_once,
    ) -> None:
        super().__init__(arsenal, records, show, barrier)
        self._free = self._ledger.free_ns = array("q", [NEVER]) * len(self._plan)
        self._turns = Turns(self._plan.connection_count)

    def answered(self, connection: Connection, attempt: int, at_ns: int, answer: Answer) -> None:
        """Record the answer, and give the connection to whoever has waited longest."""
        settled = self._settle(attempt, at_ns, answer)
        self._release(connection.lane, at_ns)
        if not settled % UNTENDED_MAX:
            self._tend(at_ns)

    def _fire(self) -> None:
        """Send whatever is due, and come back for the next."""
        due, planned = self._due, self._plan.first_attempts.stop
        while self._fired < planned:
            i = self._fired
            if due[i] > monotonic_ns():
                self._fire_at(due[i])
                return
            self._fired += 1
            lane = self._turns.take(i)
            if lane is not None:
                self._give(lane, i)

    def _release(self, lane: int, at_ns: int) -> None:
        i = self._turns.give_back(lane)
        if i is not None:
            self._free[i] = at_ns
            self._give(lane, i)

    def _give(self, lane: int, i: int) -> None:
        connection = self.lanes.connections[lane]
        if connection is not None and connection.is_open:
            self._send(connection, i)
            return
        task = self._loop.create_task(self._reopen(lane, i))
        self._reviving.add(task)
        task.add_done_callback(self._reviving.discard)

    async def _reopen(self, lane: int, i: int) -> None:
        """Send attempt `i` over a new connection; without one it was never sent."""
        try:
            await self.lanes.revive(lane)
        except TimeoutError:
            now = monotonic_ns()
            self._settle(i, now, unsent("connect"))
            self._release(lane, now)
        else:
            self._free[i] = monotonic_ns()
            self._give(lane, i)

    def _settle_unsent(self, reason: str) -> None:
        self._turns.forget()
        super()._settle_unsent(reason)
