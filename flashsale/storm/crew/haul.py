"""What a worker tells of its attempts: the outcomes of a moment, in columns. Pure."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from flashsale.model import Ending
from flashsale.storm.attack.answer import Answer
from flashsale.storm.record.ledger import Ledger

Kind: TypeAlias = tuple[Ending, int | None, str | None]
"""An answer without its order: outcome, status and error. A storm knows a handful."""


@dataclass(frozen=True)
class Haul:
    """Outcomes in the order in which they came; position k is the same attempt in each column.

    `attempts` are numbered as in the whole plan. `free_ns` is empty where nobody waits for a
    connection; `spared` are attempts for which there was no need. No later haul of the same worker
    holds an outcome from before `until_ns`.
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
        return f"<Haul outcomes={len(self.attempts)} until={self.until_ns}>"

    def outcomes(self) -> Iterator[tuple[int, int, Answer]]:
        """The instant, the attempt and its answer, in their order."""
        alike = [Answer(outcome, status, None, error) for outcome, status, error in self.known]
        columns = zip(self.done_ns, self.attempts, self.kinds, self.orders, strict=True)
        for done_ns, attempt, kind, order in columns:
            answer = alike[kind]
            if order is not None:
                answer = Answer(answer.outcome, answer.status, order, answer.error)
            yield done_ns, attempt, answer

    def endings(self) -> Counter[Ending]:
        """How many ended how."""
        endings: Counter[Ending] = Counter()
        for kind, count in Counter(self.kinds).items():
            endings[self.known[kind][0]] += count
        return endings


def haul(
    ledger: Ledger, since: int, numbers: Sequence[int], until_ns: int, spared_since: int = 0
) -> Haul:
    """What came into `ledger` from the `since`th outcome on, and was spared from the
    `spared_since`th on; `numbers` names its attempts."""
    attempts = ledger.arrivals[since:]
    kinds, known, orders = array("L"), dict[Kind, int](), list[str | None]()
    for _, (outcome, status, order, error) in ledger.settled(since):
        kinds.append(known.setdefault((outcome, status, error), len(known)))
        orders.append(order)
    return Haul(
        attempts=array("q", map(numbers.__getitem__, attempts)),
        due_ns=_at(attempts, ledger.due_ns),
        sent_ns=_at(attempts, ledger.sent_ns),
        done_ns=_at(attempts, ledger.done_ns),
        free_ns=_at(attempts, ledger.free_ns) if ledger.free_ns else array("q"),
        kinds=kinds,
        known=list(known),
        orders=orders,
        until_ns=until_ns,
        spared=[numbers[i] for i in ledger.spared[spared_since:]],
    )


def _at(attempts: Sequence[int], column: "array[int]") -> "array[int]":
    return array("q", map(column.__getitem__, attempts))
