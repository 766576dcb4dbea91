"""A draft of a plan: attempts in the order in which somebody thinks of them."""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

from flashsale.storm.workload.plan import ALWAYS, FIRST, Plan
from flashsale.storm.workload.step import Step

ANY = -1
"""In place of a connection: whichever is free."""


class Attempt(NamedTuple):
    """One attempt; `after` and `given` are the numbers that the draft gave to others."""

    step: Step
    user: int
    thing: int
    connection: int
    at_us: int
    after: int = FIRST
    given: int = ALWAYS


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

    def plan(self, connections: int, clicks: int = 1, retry_on: tuple[str, ...] = ()) -> Plan:
        """The plan: those that wait for no other by their instants, then the rest as drafted."""
        order = self._order()
        place = array("q", order)  # of the right length; filled anew
        for new, old in enumerate(order):
            place[old] = new
        chosen = [self._attempts[old] for old in order]
        users = [attempt.user for attempt in chosen]
        lanes = {attempt.connection for attempt in chosen}
        given = [_placed(attempt.given, place) for attempt in chosen]
        return Plan(
            asks=array("b", [attempt.step for attempt in chosen]),
            users=_column(users if any(users) else ()),
            things=_column(attempt.thing for attempt in chosen),
            connections=_column(() if lanes == {ANY} else [each.connection for each in chosen]),
            at_us=_column(attempt.at_us for attempt in chosen),
            connection_count=connections,
            after=_column(_placed(attempt.after, place) for attempt in chosen),
            given=_column(given if any(i != ALWAYS for i in given) else ()),
            retry_on=retry_on,
            clicks=clicks,
        )

    def _order(self) -> list[int]:
        attempts = self._attempts
        first = [i for i, attempt in enumerate(attempts) if attempt.after == FIRST]
        first.sort(key=lambda i: attempts[i].at_us)
        return first + [i for i, attempt in enumerate(attempts) if attempt.after != FIRST]


def _placed(number: int, place: "array[int]") -> int:
    """Where the plan has what the draft calls so; FIRST and ALWAYS stay what they are."""
    return number if number < 0 else place[number]


def _column(values: Iterable[int]) -> "array[int]":
    return array("q", values)
