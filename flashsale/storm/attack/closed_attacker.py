"""The attack of a closed plan: users take their steps with pauses, each over its own connection.

What an answer makes due goes into one heap, and one alarm rings for its head.
"""

from array import array
from collections import deque
from heapq import heappop, heappush
from time import monotonic_ns

from flashsale.run.attempts import NEVER
from flashsale.scenario.answer import Answer, unsent, wants_retry
from flashsale.storm.attack.arsenal import Arsenal
from flashsale.storm.attack.attacker import UNTENDED_MAX, Attacker
from flashsale.storm.attack.barrier import Barrier, at_once
from flashsale.storm.attack.course import Course
from flashsale.storm.attack.progress import ShowProgress
from flashsale.storm.attack.records import Records
from flashsale.storm.attack.wire import Connection


class ClosedAttacker(Attacker):
    """One attack by users who think."""

    def __init__(
        self,
        arsenal: Arsenal,
        records: Records,
        show: ShowProgress,
        barrier: Barrier = at_once,
    ) -> None:
        super().__init__(arsenal, records, show, barrier)
        self._free = self._ledger.free_ns = array("q", [NEVER]) * len(self._plan)
        self._readers = arsenal.readers
        self._course: Course | None = Course(self._plan)
        self._thinking: list[tuple[int, int]] = []  # a heap of instants and attempts
        self._busy = bytearray(self._plan.connection_count)
        self._queues: dict[int, deque[int]] = {}  # of attempts that are due, by busy connection

    def answered(self, connection: Connection, attempt: int, at_ns: int, answer: Answer) -> None:
        """Record the answer, and see to what was waiting for it or for its connection."""
        self._conclude(attempt, at_ns, answer)

    def _conclude(self, attempt: int, at_ns: int, answer: Answer) -> None:
        settled = self._settle(attempt, at_ns, answer)
        self._release(self._lane(attempt), at_ns)
        self._follow(attempt, at_ns)
        if not settled % UNTENDED_MAX:
            self._tend(at_ns)

    def _follow(self, attempt: int, at_ns: int) -> None:
        if self._course is None:
            return
        due, spared = self._course.after(attempt, self._failed)
        for i in spared:
            self._spare(i)
        for i in due:
            self._due[i] = at_ns + self._plan.at_us[i] * 1000
            heappush(self._thinking, (self._due[i], i))
        self._fire()

    def _failed(self, claim: int) -> bool:
        return wants_retry(self._ledger.answers[claim], self._plan.retry_on)

    def _spare(self, i: int) -> None:
        self._ledger.spare(i)
        self._planned -= 1
        if len(self._ledger.arrivals) == self._planned:
            self._over.set()

    def _open_barrier(self, origin: int) -> None:
        at_us = self._plan.at_us  # the first attempts ascend, so they are a heap as they stand
        self._thinking = [(origin + at_us[i] * 1000, i) for i in self._plan.first_attempts]
        super()._open_barrier(origin)

    def _fire(self) -> None:
        """Send whatever is due, and come back for the next."""
        thinking = self._thinking
        while thinking:
            due_ns, i = thinking[0]
            if due_ns > monotonic_ns():
                self._fire_at(due_ns)
                return
            heappop(thinking)
            self._go(i)

    def _lane(self, attempt: int) -> int:
        """The connection over which `attempt` goes."""
        return self._plan.connections[attempt]

    def _go(self, i: int) -> None:
        """Send attempt `i` over its connection, or have it wait until that is free."""
        lane = self._plan.connections[i]
        if self._busy[lane]:
            self._queues.setdefault(lane, deque()).append(i)
            return
        self._busy[lane] = True
        self._send(self.lanes.connections[lane], i)

    def _send(self, connection: Connection | None, i: int) -> None:
        if connection is not None:
            connection.expect(self._readers[self._plan.asks[i]])
        super()._send(connection, i)

    def _release(self, lane: int, at_ns: int) -> None:
        self._busy[lane] = False
        queue = self._queues.get(lane)
        if queue:
            i = queue.popleft()
            self._free[i] = at_ns
            self._go(i)

    async def _continue(self, i: int) -> None:
        """Send attempt `i` over a new connection; without one it was never sent."""
        try:
            connection = await self.lanes.revive(self._lane(i))
        except TimeoutError:
            self._conclude(i, monotonic_ns(), unsent("connect"))
        else:
            self._free[i] = monotonic_ns()
            self._send(connection, i)

    def _settle_unsent(self, reason: str) -> None:
        self._course = None
        self._were_spared = set(self._ledger.spared)
        self._thinking.clear()
        self._queues.clear()
        super()._settle_unsent(reason)

    def _settle_never(self, i: int, now: int, reason: str) -> None:
        """What was planned for a case that nobody will know is not missing."""
        if i in self._were_spared:
            return
        if self._plan.is_conditional(i):
            self._spare(i)
        else:
            super()._settle_never(i, now, reason)
