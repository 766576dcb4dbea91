"""The plan: who does what, over which connection and at which instant. Decided before the storm.

A plan is a pure function of the scenario, the users and the seed, and its hash names it: equal
hashes mean that the very same requests were to be sent in the same order.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

from flashsale.run.attempts import ALWAYS, FIRST, HASHED, PlanColumns
from flashsale.scenario.load import Step

UNKNOWN_FROM = 2**40
"""No shop has an id as high: who asks for one asks for what is not there."""

LAST = -1
"""In `Plan.following`: nothing follows."""


@dataclass(frozen=True, repr=False)
class Plan(PlanColumns):
    """The columns of a plan, and what follows from them. Made by `planning`, or read from a run."""

    @classmethod
    def of(cls, columns: PlanColumns) -> Self:
        """The plan that has these columns."""
        return cls(**{each.name: getattr(columns, each.name) for each in fields(columns)})

    @cached_property
    def first_attempts(self) -> range:
        """The attempts that are due at their own instant, ascending; the others wait for one."""
        return range(self.after.count(FIRST) if self.after else len(self))

    @property
    def closed(self) -> bool:
        """Whether attempts wait for others: then the server's pace is the storm's."""
        return len(self.first_attempts) < len(self)

    @cached_property
    def following(self) -> "array[int]":
        """The first attempt that waits for each, or LAST."""
        following = array("q", [LAST]) * len(self)
        for i in reversed(range(len(self.first_attempts), len(self))):
            following[self.after[i]] = i
        return following

    @cached_property
    def is_chained(self) -> bool:
        """Whether each attempt asks the same, and is followed at once by at most one other."""
        waiting = self.after[len(self.first_attempts) :]
        at_once = not any(self.at_us[len(self.first_attempts) :])
        is_plain = len(self.steps) == 1 and not self.given
        return is_plain and at_once and len(set(waiting)) == len(waiting)

    def is_conditional(self, attempt: int) -> bool:
        """Whether it depends on another's answer that the attempt is made at all."""
        return bool(self.given) and self.given[attempt] != ALWAYS

    def part(self, number: int, of: int) -> "Plan":
        """Part `number` (1 to `of`) of this plan, its attempts and connections counted from 0.

        The parts of a plan have each of its attempts and connections once. A closed plan is
        parted by connection, an open one by first attempt in turn, so that chains stay whole.
        Raises ValueError where a part would have no connection.
        """
        virtual_users = self.connection_count // self.clicks
        if not 1 <= number <= of <= virtual_users:
            raise ValueError(f"part {number} of {of}, and the plan has {virtual_users} connections")
        keys = self._roots() if self.open else [c // self.clicks for c in self.connections]
        chosen = array("q", (i for i, key in enumerate(keys) if key % of == number - 1))
        place = dict(zip(chosen, range(len(chosen)), strict=True)) | {FIRST: FIRST}
        columns = {name: _at(chosen, column) for name, column in self._columns().items()}
        for name in columns.keys() & _OTHERS:
            columns[name] = array("q", map(place.__getitem__, columns[name]))
        if not self.open:
            moved = (self._moved(c, of) for c in columns["connections"])
            columns["connections"] = array("q", moved)
        count = self.clicks * len(range(number - 1, virtual_users, of))
        return replace(self, **columns, numbers=chosen, connection_count=count)  # type: ignore[arg-type]

    def _roots(self) -> Sequence[int]:
        """The first attempt that each attempt waits for in the end; itself, where it is one."""
        if not self.closed:
            return range(len(self))
        roots = array("q", range(len(self)))
        for i in range(len(self.first_attempts), len(self)):
            roots[i] = roots[self.after[i]]  # which comes before it
        return roots

    def _moved(self, connection: int, of: int) -> int:
        """What a connection is called in its part of the plan; a user's stay together."""
        user, click = divmod(connection, self.clicks)
        return user // of * self.clicks + click

    def _columns(self) -> "dict[str, array[int]]":
        """The columns that say something of each attempt."""
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        named = {name: value for name, value in values if isinstance(value, array) and value}
        named.pop("numbers", None)
        return named

    def asked(self) -> tuple[int, int]:
        """How many distinct shops that exist are read, and how many reads are of unknown ids."""
        shops = [
            thing for ask, thing in zip(self.asks, self.things, strict=True) if ask == Step.BROWSE
        ]
        known = [shop for shop in shops if shop < UNKNOWN_FROM]
        return len(set(known)), len(shops) - len(known)


def whole(parts: Sequence[Plan]) -> Plan:
    """The plan of which these are the parts, all of them and in their order.

    Raises ValueError where they do not make one.
    """
    count = sum(map(len, parts))
    if sorted(i for part in parts for i in part.numbers) != list(range(count)):
        raise ValueError("the parts have not each attempt of a plan once")
    columns: dict[str, array[int]] = {}
    for index, part in enumerate(parts):
        for name, column in part._columns().items():
            blank = [FIRST if name in _OTHERS else 0]
            into = columns.setdefault(name, array(column.typecode, blank) * count)
            for i, value in zip(
                part.numbers, _in_whole(name, part, index, len(parts)), strict=True
            ):
                into[i] = value
    named = {name: columns.get(name, array("q")) for name in HASHED}
    count = sum(part.connection_count for part in parts)
    return replace(parts[0], **named, numbers=array("q"), connection_count=count)  # type: ignore[arg-type]


_OTHERS = ("after", "given")
"""Columns that name other attempts."""


def _in_whole(name: str, part: Plan, index: int, of: int) -> Iterable[int]:
    """A column of a part, as the whole has it."""
    if name == "connections":
        virtual_users = (divmod(connection, part.clicks) for connection in part.connections)
        return ((user * of + index) * part.clicks + click for user, click in virtual_users)
    column: array[int] = getattr(part, name)
    if name in _OTHERS:
        return (FIRST if i == FIRST else part.numbers[i] for i in column)
    return column


def _at(places: "array[int]", column: "array[int]") -> "array[int]":
    return array(column.typecode, map(column.__getitem__, places))
