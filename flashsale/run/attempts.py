"""The storm's record of its attempts: three instants and an answer each, allocated beforehand.

Instants are `monotonic_ns`, as read; they become µs after the barrier only when they are written
or counted, in bulk. Every later figure is computed from those µs, so that it comes out the same
from memory and from the file.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from flashsale.model import Outcome
from flashsale.run.histogram import Histogram
from flashsale.scenario.answer import Answer

NEVER = -1
"""An instant that has not come."""

CENSORED, LOST = "censored", "lost"
_CENSORED_BY = frozenset({"timeout", "deadline", "interrupted", "aborted", "worker"})
"""Errors of attempts that the storm stopped waiting for: the true latency is longer."""


@dataclass(frozen=True)
class ClockReading:
    """By how much another's clock is ahead of this machine's, and how wrong that may be."""

    offset_us: int
    error_us: int

    @classmethod
    def of(cls, asked_us: int, told_us: int, round_trip_us: int) -> "ClockReading":
        """Of one question, as NTP reckons (RFC 5905): what was told is taken for the middle of the
        round trip, and cannot be further from the truth than half of it."""
        half_us = -(-round_trip_us // 2)
        return cls(told_us - asked_us - half_us, half_us)

    @staticmethod
    def best(readings: Iterable["ClockReading"]) -> "ClockReading":
        """The one whose round trip was the shortest: the least can have held it up."""
        return min(readings, key=lambda reading: reading.error_us)


class Attempts:
    """What became of each attempt of a plan."""

    def __init__(self, attempts: int) -> None:
        self.due_ns = array("q", [NEVER]) * attempts
        self.sent_ns = array("q", [NEVER]) * attempts
        self.done_ns = array("q", [NEVER]) * attempts
        self.free_ns = array("q")  # open arrivals: when one that had to wait got a connection
        self.answers: list[Answer | None] = [None] * attempts
        self.arrivals: list[int] = []  # attempts in the order in which their answers came
        self.spared: list[int] = []  # conditional attempts for which there was no need
        self.resolved: dict[int, str] = {}  # what the status route said: `sold` or `none`
        self.found: dict[int, str] = {}  # the order ids that it told of claims that had sold
        self.origin_ns = 0
        self.barrier_unix_us = 0

    def __repr__(self) -> str:
        return f"<Attempts attempts={len(self.answers)} open={self.open}>"

    def settle(self, attempt: int, at_ns: int, answer: Answer) -> int:
        """Record the first and only outcome of `attempt`; how many have one now."""
        self.done_ns[attempt] = at_ns
        self.answers[attempt] = answer
        self.arrivals.append(attempt)
        return len(self.arrivals)

    def spare(self, attempt: int) -> None:
        """Record that there was no need for `attempt`: it was not sent, and has no outcome."""
        self.spared.append(attempt)

    def resolve(self, attempt: int, outcome: str, order: str | None) -> None:
        """Record what the status route said of an attempt in doubt: `sold` or `none`."""
        self.resolved[attempt] = outcome
        if order is not None:
            self.found[attempt] = order

    @property
    def planned(self) -> int:
        """Attempts that were made or had to be."""
        return len(self.answers) - len(self.spared)

    @property
    def open(self) -> int:
        """Attempts without an outcome."""
        return len(self.answers) - len(self.arrivals) - len(self.spared)

    @property
    def late(self) -> int:
        """Attempts without a readable answer that had sold, as the status route said later."""
        return sum(said == Outcome.SOLD for said in self.resolved.values())

    @property
    def sent(self) -> int:
        """Attempts written to a connection."""
        return len(self.sent_ns) - self.sent_ns.count(NEVER)

    def last_answer_ns(self) -> int:
        """The instant of the last answer that was read; of the barrier where there was none."""
        done, answers = self.done_ns, self.answers
        latest = (i for i in reversed(self.arrivals) if (it := answers[i]) and it.status)
        return next((done[i] for i in latest), self.origin_ns)

    def settled(self, since: int = 0) -> Iterator[tuple[int, Answer]]:
        """Attempts with their answers, in order of arrival, from the `since`th on."""
        for attempt in self.arrivals[since:]:
            answer = self.answers[attempt]
            assert answer is not None
            yield attempt, answer

    def after_barrier_us(self, instant_ns: int) -> int | None:
        """`instant_ns` in µs after the barrier, None if it never came."""
        return None if instant_ns == NEVER else (instant_ns - self.origin_ns) // 1000

    def latencies_us(self, attempts: Sequence[int], since: "array[int]") -> list[int]:
        """From `since` (`due_ns` or `sent_ns`) to the outcome, for attempts that were sent."""
        done, origin = self.done_ns, self.origin_ns
        return [(done[i] - origin) // 1000 - (since[i] - origin) // 1000 for i in attempts]

    def start_lag(self) -> Histogram:
        """How late attempts were sent, compared with the plan."""
        return Histogram(lag for _, lag in self.start_lags_us())

    def start_lags_us(self) -> Iterator[tuple[int, int]]:
        """Each attempt that was sent, and how late compared with the plan, in µs.

        Where all connections were busy, from the instant at which one was free: the wait for that
        is the target's doing and part of the response, this is the storm's own.
        """
        could_ns = map(max, self.due_ns, self.free_ns) if self.free_ns else self.due_ns
        origin, pairs = self.origin_ns, zip(self.sent_ns, could_ns, strict=True)
        for i, (sent, could) in enumerate(pairs):
            if sent != NEVER:
                yield i, (sent - origin) // 1000 - (could - origin) // 1000

    def by_label(self) -> dict[str, list[int]]:
        """The attempts that were sent, under what their latency says.

        1. answered: the outcome; the latency is what the caller saw.
        2. CENSORED: the storm stopped waiting, so the latency is a lower bound.
        3. LOST: the connection broke, so there is no answer to have a latency.
        """
        labels: dict[str, list[int]] = {}
        for attempt, answer in self.settled():
            if self.sent_ns[attempt] != NEVER:
                labels.setdefault(label_of(answer), []).append(attempt)
        return labels


def label_of(answer: Answer) -> str:
    if answer.status is not None:
        return answer.outcome.value
    return CENSORED if answer.error in _CENSORED_BY else LOST
