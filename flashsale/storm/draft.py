"""A draft of a plan: attempts in the order in which somebody thinks of them."""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from flashsale.storm.plan import FIRST, Plan
from flashsale.storm.step import Step


class Attempt(NamedTuple):
    """One attempt; `after` is the number that the draft gave to another, or FIRST."""

    step: Step
    user: int
    thing: int
    connection: int
    at_us: int
    after: int = FIRST


class Draft:
    """Collects attempts; `plan` puts those that wait for no other first."""

    def __init__(self) -> None:
        self._attempts: list[Attempt] = []

    def __repr__(self) -> str:
        return f"<Draft attempts={len(self._attempts)}>"

    def add(self, attempt: Attempt) -> int:
        """Take one more attempt; its number in the draft."""
        self._attempts.append(attempt)
        return len(self._attempts) - 1

    def plan(self, connection_count: int) -> Plan:
        """The plan: those that wait for no other by their instants, then the rest as drafted."""
        attempts = self._attempts
        order = sorted(
            range(len(attempts)),
            key=lambda i: (attempts[i].after != FIRST, attempts[i].at_us * _waits_not(attempts[i])),
        )
        place = array("q", order)  # of the right length; filled anew below
        for new, old in enumerate(order):
            place[old] = new
        chosen = [attempts[old] for old in order]
        return Plan(
            asks=array("b", [attempt.step for attempt in chosen]),
            users=_column([attempt.user for attempt in chosen]),
            things=_column([attempt.thing for attempt in chosen]),
            connections=_column([attempt.connection for attempt in chosen]),
            at_us=_column([attempt.at_us for attempt in chosen]),
            connection_count=connection_count,
            after=_column(
                [FIRST if attempt.after == FIRST else place[attempt.after] for attempt in chosen]
            ),
        )


def _waits_not(attempt: Attempt) -> bool:
    return attempt.after == FIRST


def _column(values: Sequence[int]) -> "array[int]":
    return array("q", values)
