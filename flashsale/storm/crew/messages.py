"""What the processes of one storm tell each other, over a socket that nobody else has an end of.

A process that fires is told its `Mission` first. It tells the outcomes of its attempts as columns,
and `EventOrder` makes one order of events of what several tell.
"""

import asyncio
import pickle
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias, cast

from flashsale.errors import FlashsaleError
from flashsale.model import Ending
from flashsale.run.attempts import NEVER, Attempts
from flashsale.scenario.answer import Answer
from flashsale.storm.figures.generator import ProcessEffort

Kind: TypeAlias = tuple[Ending, int | None, str | None, str | None]
"""An answer without its order: outcome, status, error and what it said. A storm knows a handful,
and of those with evidence so many as the wire keeps."""


@dataclass(frozen=True)
class OutcomeColumns:
    """Outcomes in the order in which they came; position k is the same attempt in each column.

    `attempts` are numbered as in the whole plan. `free_ns` is empty where nobody waits for a
    connection; `spared` are attempts for which there was no need. No later columns of the same
    process hold an outcome from before `until_ns`.
    """

    attempts: "array[int]"
    due_ns: "array[int]"
    sent_ns: "array[int]"
    done_ns: "array[int]"
    free_ns: "array[int]"
    kinds: "array[int]"
    known: list[Kind]
    orders: list[str | None]
    until_ns: int
    spared: list[int] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<OutcomeColumns outcomes={len(self.attempts)} until={self.until_ns}>"

    def outcomes(self) -> Iterator[tuple[int, int, Answer]]:
        """The instant, the attempt and its answer, in their order."""
        alike = [Answer(outcome, status, None, *why) for outcome, status, *why in self.known]
        columns = zip(self.done_ns, self.attempts, self.kinds, self.orders, strict=True)
        for done_ns, attempt, kind, order in columns:
            answer = alike[kind]
            if order is not None:
                answer = Answer(answer.outcome, answer.status, order, answer.error, answer.said)
            yield done_ns, attempt, answer

    def endings(self) -> Counter[Ending]:
        """How many ended how."""
        endings: Counter[Ending] = Counter()
        for kind, count in Counter(self.kinds).items():
            endings[self.known[kind][0]] += count
        return endings


def outcomes_since(
    attempts: Attempts, since: int, numbers: Sequence[int], until_ns: int, spared_since: int = 0
) -> OutcomeColumns:
    """What came into `attempts` from the `since`th outcome on, and was spared from the
    `spared_since`th on; `numbers` names its attempts."""
    ended = attempts.arrivals[since:]
    kinds, known, orders = array("L"), dict[Kind, int](), list[str | None]()
    for _, (outcome, status, order, error, said) in attempts.settled(since):
        kinds.append(known.setdefault((outcome, status, error, said), len(known)))
        orders.append(order)
    return OutcomeColumns(
        attempts=array("q", map(numbers.__getitem__, ended)),
        due_ns=_at(ended, attempts.due_ns),
        sent_ns=_at(ended, attempts.sent_ns),
        done_ns=_at(ended, attempts.done_ns),
        free_ns=_at(ended, attempts.free_ns) if attempts.free_ns else array("q"),
        kinds=kinds,
        known=list(known),
        orders=orders,
        until_ns=until_ns,
        spared=[numbers[i] for i in attempts.spared[spared_since:]],
    )


def _at(ended: Sequence[int], column: "array[int]") -> "array[int]":
    return array("q", map(column.__getitem__, ended))


_Outcome = tuple[int, int, Answer]
"""The instant, the attempt, the answer."""


class EventOrder:
    """Enters outcomes into one record in the order of their instants, whoever told of them when.

    An outcome waits until no process can tell of an earlier one any more.
    """

    def __init__(self, attempts: Attempts, processes: int) -> None:
        self._attempts = attempts
        self._until_ns: list[float] = [0.0] * processes
        self._waiting: list[_Outcome] = []

    def __repr__(self) -> str:
        return f"<EventOrder waiting={len(self._waiting)} {self._attempts!r}>"

    def take(self, process: int, told: OutcomeColumns) -> None:
        """Take what `process` (0, 1, …) tells, and enter whatever has its place now."""
        attempts = self._attempts
        if told.free_ns and not attempts.free_ns:
            attempts.free_ns = array("q", [NEVER]) * len(attempts.answers)
        columns = [(attempts.due_ns, told.due_ns), (attempts.sent_ns, told.sent_ns)]
        if told.free_ns:
            columns.append((attempts.free_ns, told.free_ns))
        for column, values in columns:
            for attempt, instant_ns in zip(told.attempts, values, strict=True):
                column[attempt] = instant_ns
        for attempt in told.spared:
            attempts.spare(attempt)
        self._waiting += told.outcomes()
        self._until_ns[process] = told.until_ns
        self._enter()

    def end(self, process: int) -> None:
        """`process` tells nothing more."""
        self._until_ns[process] = inf
        self._enter()

    def untold(self, attempts: Iterable[int]) -> list[int]:
        """Those of `attempts` of which no outcome was told."""
        waiting = {attempt for _, attempt, _ in self._waiting}
        waiting.update(self._attempts.spared)
        answers = self._attempts.answers
        return [i for i in attempts if answers[i] is None and i not in waiting]

    def suppose(self, attempt: int, at_ns: int, answer: Answer) -> None:
        """Take it that `attempt` ended so, since nobody will tell."""
        self._waiting.append((at_ns, attempt, answer))

    def _enter(self) -> None:
        waiting, settle = self._waiting, self._attempts.settle
        waiting.sort()  # an attempt is there once, so that answers are never compared
        ready = bisect_right(waiting, min(self._until_ns), key=lambda outcome: outcome[0])
        for done_ns, attempt, answer in waiting[:ready]:
            settle(attempt, done_ns, answer)
        del waiting[:ready]


_LENGTH_BYTES = 8


class Pipe(asyncio.Protocol):
    """Both directions at once; nothing here waits. Each message is a pickle behind its length."""

    def __init__(self, heard: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._heard, self._lost = heard, lost
        self._data = bytearray()

    def __repr__(self) -> str:
        return f"<Pipe unread={len(self._data)}>"

    def tell(self, message: object) -> None:
        """Send it, now or as soon as the other side reads on."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._transport.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    def close(self) -> None:
        """Send what was told, then say goodbye."""
        self._transport.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._data[:_LENGTH_BYTES], "big")
            if len(self._data) < end:
                return
            with memoryview(self._data) as view:
                message = pickle.loads(view[_LENGTH_BYTES:end])  # noqa: S301 - our own process
            del self._data[:end]
            self._heard(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


@dataclass(frozen=True)
class Go:
    """To a process: the barrier opens at this instant of the clock that all processes share."""

    at_ns: int


@dataclass(frozen=True)
class StopSending:
    """To a process: send nothing more. Told twice, do not wait for answers either."""

    reason: str


@dataclass(frozen=True)
class Ready:
    """From a process: every connection is up."""


@dataclass(frozen=True)
class NewOutcomes:
    """From a process: new outcomes, and how many attempts wait for an answer."""

    outcomes: OutcomeColumns
    in_flight: int


@dataclass(frozen=True)
class Failed:
    """From a process: it cannot go on, for a reason that the user can cure, or by a defect."""

    error: FlashsaleError | None
    trace: str = ""


@dataclass(frozen=True)
class Done:
    """From a process: every attempt of its part has an outcome; how it did."""

    effort: ProcessEffort
