"""Several workers' outcomes become one order of events: by the instant at which each came. Pure."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from math import inf

from flashsale.storm.attack.answer import Answer
from flashsale.storm.crew.haul import Haul
from flashsale.storm.record.ledger import NEVER, Ledger

_Outcome = tuple[int, int, Answer]
"""The instant, the attempt, the answer."""


class Confluence:
    """Enters outcomes into one ledger in the order of their instants, whoever told of them when.

    An outcome waits until no worker can tell of an earlier one any more.
    """

    def __init__(self, ledger: Ledger, workers: int) -> None:
        self._ledger = ledger
        self._until_ns: list[float] = [0.0] * workers
        self._waiting: list[_Outcome] = []

    def __repr__(self) -> str:
        return f"<Confluence waiting={len(self._waiting)} {self._ledger!r}>"

    def take(self, worker: int, haul: Haul) -> None:
        """Take what `worker` (0, 1, …) tells, and enter whatever has its place now."""
        ledger = self._ledger
        if haul.free_ns and not ledger.free_ns:
            ledger.free_ns = array("q", [NEVER]) * len(ledger.answers)
        columns = [(ledger.due_ns, haul.due_ns), (ledger.sent_ns, haul.sent_ns)]
        if haul.free_ns:
            columns.append((ledger.free_ns, haul.free_ns))
        for column, values in columns:
            for attempt, instant_ns in zip(haul.attempts, values, strict=True):
                column[attempt] = instant_ns
        for attempt in haul.spared:
            ledger.spare(attempt)
        self._waiting += haul.outcomes()
        self._until_ns[worker] = haul.until_ns
        self._flow()

    def end(self, worker: int) -> None:
        """`worker` tells nothing more."""
        self._until_ns[worker] = inf
        self._flow()

    def untold(self, attempts: Iterable[int]) -> list[int]:
        """Those of `attempts` of which no outcome was told."""
        waiting = {attempt for _, attempt, _ in self._waiting}
        waiting.update(self._ledger.spared)
        answers = self._ledger.answers
        return [i for i in attempts if answers[i] is None and i not in waiting]

    def suppose(self, attempt: int, at_ns: int, answer: Answer) -> None:
        """Take it that `attempt` ended so, since nobody will tell."""
        self._waiting.append((at_ns, attempt, answer))

    def _flow(self) -> None:
        waiting, settle = self._waiting, self._ledger.settle
        waiting.sort()  # an attempt is there once, so that answers are never compared
        ready = bisect_right(waiting, min(self._until_ns), key=lambda outcome: outcome[0])
        for done_ns, attempt, answer in waiting[:ready]:
            settle(attempt, done_ns, answer)
        del waiting[:ready]
