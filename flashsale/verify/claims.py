"""What was asked of one sale and what was told, in columns.

A million claims are a few dozen megabytes of integers here; an object each would be a gigabyte.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from flashsale.model import Outcome

Column: TypeAlias = "array[int]"

NEVER = -1
"""An instant that is not known: never sent, never answered, or not written down."""
NO_ORDER = 0
"""No order id came with the answer."""
GARBLED = -1
"""An order is said to exist, under no id that can be read; `Claims.garbled` has the text."""

OUTCOMES = tuple(Outcome)
SOLD = OUTCOMES.index(Outcome.SOLD)
SOLD_OUT = OUTCOMES.index(Outcome.SOLD_OUT)
DUPLICATE = OUTCOMES.index(Outcome.DUPLICATE)
UNANSWERED = OUTCOMES.index(Outcome.INDETERMINATE)
INDETERMINATE = frozenset(n for n, outcome in enumerate(OUTCOMES) if outcome.is_indeterminate)


def column() -> Column:
    """A new column: signed 64-bit integers."""
    return array("q")


@dataclass(slots=True)
class Claims:
    """The claims on one voucher, a column a fact: position k is the same claim in each.

    Two instants can be compared where they were read from the same `clock`.

    `order` is NO_ORDER or GARBLED where no id was read; `resolved` is the order id that the
    status route named later for a claim without an answer. Instants are µs after the barrier.
    """

    user: Column = field(default_factory=column)
    sent_us: Column = field(default_factory=column)
    done_us: Column = field(default_factory=column)
    outcome: Column = field(default_factory=column)
    order: Column = field(default_factory=column)
    resolved: Column = field(default_factory=column)
    clock: Column = field(default_factory=column)
    garbled: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def columns(self) -> tuple[Column, ...]:
        """All columns, in the order of the fields."""
        return (
            self.user,
            self.sent_us,
            self.done_us,
            self.outcome,
            self.order,
            self.resolved,
            self.clock,
        )

    def promised(self) -> Iterator[tuple[int, int]]:
        """Position and order id (or NO_ORDER) of each claim whose user was told of an order."""
        for k, code in enumerate(self.outcome):
            if code == SOLD:
                yield k, max(self.order[k], NO_ORDER)
            elif self.resolved[k] and code in INDETERMINATE:
                yield k, max(self.resolved[k], NO_ORDER)

    def told(self, outcome: int) -> Iterator[int]:
        """Positions of the claims that were answered so."""
        return (k for k, code in enumerate(self.outcome) if code == outcome)

    def open(self) -> Iterator[int]:
        """Positions of the claims that may or may not have sold."""
        return (k for k, code in enumerate(self.outcome) if code in INDETERMINATE)

    def select(self, chosen: Sequence[int]) -> "Claims":
        """A copy of the claims at these positions."""
        columns = (array("q", [column[i] for i in chosen]) for column in self.columns())
        user, sent_us, done_us, outcome, order, resolved, clock = columns
        garbled = {k: self.garbled[i] for k, i in enumerate(chosen) if i in self.garbled}
        return Claims(user, sent_us, done_us, outcome, order, resolved, clock, garbled)
