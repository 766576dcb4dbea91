"""The schedule of a plan: what an ended attempt makes due, when, and on whose connection. Pure.

Whoever fires a plan hands in the instants: `start` says when the barrier opens, `pop` gives what is
due by now with the free connection that it goes over, `ended` takes note of an attempt that ended.
Three questions tell plans apart, and one schedule answers them for all:

1. What waits for an answer? Nothing (open arrivals, cold connections). One attempt that is due with
   the answer, on the connection that it frees: a chain, one look into a column. Or any number of
   attempts after pauses of their own, some only if a claim came to nothing: they go into a heap.
2. Whose is a connection? The plan's, attempt by attempt, or in an open plan nobody's.
3. Who finds none free? He waits for his own, or in an open plan for whichever is free next; first
   come, first served.
"""

from array import array
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Protocol

from flashsale.model import Outcome
from flashsale.run.attempts import ALWAYS, NEVER
from flashsale.scenario.answer import Answer, wants_retry
from flashsale.scenario.load import Step
from flashsale.storm.plan.plan import LAST, Plan


class Schedule:
    """Every attempt of a plan becomes due once, or is spared, in whatever order others end.

    `due_ns` holds the instant at which each attempt was due, `free_ns` that at which one that had
    to wait for a connection got it. `spared` are conditional attempts for which there was no need.
    `has_pauses` says that an attempt that ends can make others due, which `pop` gives.
    """

    def __init__(self, plan: Plan) -> None:
        is_chain = plan.is_chained and not plan.open
        self.due_ns = array("q", [NEVER]) * len(plan)
        # In a chain nobody waits for others; to open what broke is a part of its start lag.
        self.free_ns = array("q", [] if is_chain and not plan.cold else [NEVER]) * len(plan)
        self.spared: list[int] = []
        self._plan = plan
        self._next = self._last = 0  # of the attempts that are due at instants of their own
        self._pausing: list[tuple[int, int]] = []  # a heap of instants and attempts
        self._chain = plan.following if is_chain else None
        self._followers = _Followers(plan) if plan.closed and not is_chain else None
        self.has_pauses = self._followers is not None
        self._free: _Free = (
            _AnyConnection(plan.connection_count)
            if plan.open
            else _OwnConnection(plan.connections, plan.connection_count)
        )

    def __repr__(self) -> str:
        to_come = self._last - self._next
        return f"<Schedule to_come={to_come} pausing={len(self._pausing)} {self._free!r}>"

    @property
    def next_ns(self) -> int | None:
        """The earliest instant at which `pop` has anything to give; None where nothing is known
        to be due before another attempt ends."""
        instants = [self._pausing[0][0]] if self._pausing else []
        if self._next < self._last:
            instants.append(self.due_ns[self._next])
        return min(instants, default=None)

    def start(self, origin_ns: int) -> None:
        """The barrier opens at `origin_ns`."""
        at_us = self._plan.at_us
        self._last = len(self._plan.first_attempts)
        for i in range(self._last):
            self.due_ns[i] = origin_ns + at_us[i] * 1000

    def pop(self, now_ns: int) -> tuple[int, int] | None:
        """The next attempt that is due by `now_ns`, and the connection it takes; None where there
        is none. One whose connection is not free waits for it, until `ended` gives it."""
        pausing, due_ns = self._pausing, self.due_ns
        while True:
            i = self._next
            if pausing and (i == self._last or pausing[0] < (due_ns[i], i)):
                if pausing[0][0] > now_ns:
                    return None
                i = heappop(pausing)[1]
            elif i < self._last and due_ns[i] <= now_ns:
                self._next = i + 1
            else:
                return None
            connection = self._free.take(i)
            if connection is not None:
                return i, connection

    def ended(self, attempt: int, connection: int, at_ns: int, answer: Answer) -> int | None:
        """Take note that `attempt` ended so, at `at_ns`. The attempt that now takes over its
        connection; None where the connection is free."""
        if self._chain is not None:
            following = self._chain[attempt]
            if following == LAST:
                return None
            self.due_ns[following] = at_ns
            return following
        if self._followers is not None:
            due, spared = self._followers.of(attempt, answer)
            self.spared += spared
            for i in due:
                self.due_ns[i] = at_ns + self._plan.at_us[i] * 1000
                heappush(self._pausing, (self.due_ns[i], i))
        waiting = self._free.give_back(connection)
        if waiting is not None:
            self.free_ns[waiting] = at_ns
        return waiting

    def reopened(self, attempt: int, begun_ns: int, at_ns: int) -> None:
        """The connection of `attempt` had to be opened first. That took the target from `begun_ns`
        to `at_ns`; how late a cold one was begun is the storm's own doing."""
        if self.free_ns:
            cold_ns = self.due_ns[attempt] + at_ns - begun_ns
            self.free_ns[attempt] = cold_ns if self._plan.cold else at_ns

    def close(self) -> None:
        """Nothing becomes due any more, whatever ends; who waits for a connection gets none."""
        self._next = self._last
        self._pausing.clear()
        self._free.forget()
        self._chain = self._followers = None
        self.has_pauses = False


class _Followers:
    """Who waits for whom: for each attempt the first that waits for it, and who stands beside."""

    def __init__(self, plan: Plan) -> None:
        self._given, self._retry_on, self._asks = plan.given, plan.retry_on, plan.asks
        self._failed = bytearray(len(plan) if plan.given else 0)
        self._sold = bytearray(len(plan) if plan.given else 0)
        self._first = array("q", [LAST]) * len(plan)
        self._beside = array("q", [LAST]) * len(plan)
        for i in reversed(range(len(plan.first_attempts), len(plan))):
            self._beside[i] = self._first[plan.after[i]]
            self._first[plan.after[i]] = i

    def of(self, attempt: int, answer: Answer) -> tuple[list[int], list[int]]:
        """Those who are due some time after this end of `attempt`, and those who are spared. Who
        waits for an attempt that is spared waits for this one instead."""
        if self._given:
            self._failed[attempt] = wants_retry(answer, self._retry_on)
            if answer.outcome is Outcome.SOLD:
                self._note_sold(attempt)
        due: list[int] = []
        spared: list[int] = []
        ended = [attempt]
        while ended:
            for i in self._waiting_for(ended.pop()):
                if self._is_needless(i):
                    spared.append(i)
                    ended.append(i)
                else:
                    due.append(i)
        return due, spared

    def _is_needless(self, attempt: int) -> bool:
        """A claim once more is for who came to nothing, what follows an order for who has one."""
        if not self._given or self._given[attempt] == ALWAYS:
            return False
        needs_order = Step(self._asks[attempt]).needs_order
        fulfilled = self._sold if needs_order else self._failed
        return not fulfilled[self._given[attempt]]

    def _note_sold(self, attempt: int) -> None:
        """The claim sold, and so did the first of which it is a repetition."""
        while attempt != ALWAYS:
            self._sold[attempt] = True
            attempt = self._given[attempt]

    def _waiting_for(self, attempt: int) -> Iterator[int]:
        i = self._first[attempt]
        while i != LAST:
            yield i
            i = self._beside[i]


class _Free(Protocol):
    """Which connections are free, and who waits for one."""

    def take(self, attempt: int) -> int | None:
        """The connection that `attempt` goes over; None where it has to wait."""

    def give_back(self, connection: int) -> int | None:
        """The attempt that takes it over; None where nobody waits, and the connection is free."""

    def forget(self) -> None:
        """Nobody waits any more."""


class _OwnConnection:
    """Every attempt goes over the connection that the plan names, one at a time."""

    def __init__(self, connections: "array[int]", count: int) -> None:
        self._own = connections
        self._busy = bytearray(count)
        self._waiting: dict[int, deque[int]] = {}  # by busy connection

    def __repr__(self) -> str:
        return f"busy={sum(self._busy)} waiting={sum(map(len, self._waiting.values()))}"

    def take(self, attempt: int) -> int | None:
        connection = self._own[attempt]
        if self._busy[connection]:
            self._waiting.setdefault(connection, deque()).append(attempt)
            return None
        self._busy[connection] = True
        return connection

    def give_back(self, connection: int) -> int | None:
        waiting = self._waiting.get(connection)
        if waiting:
            return waiting.popleft()
        self._busy[connection] = False
        return None

    def forget(self) -> None:
        self._waiting.clear()


class _AnyConnection:
    """Whoever is due takes any that is free; where none is, who has waited longest goes next."""

    def __init__(self, count: int) -> None:
        self._idle = deque(range(count))
        self._waiting: deque[int] = deque()

    def __repr__(self) -> str:
        return f"idle={len(self._idle)} waiting={len(self._waiting)}"

    def take(self, attempt: int) -> int | None:
        if self._idle:
            return self._idle.popleft()
        self._waiting.append(attempt)
        return None

    def give_back(self, connection: int) -> int | None:
        if self._waiting:
            return self._waiting.popleft()
        self._idle.append(connection)
        return None

    def forget(self) -> None:
        self._waiting.clear()
