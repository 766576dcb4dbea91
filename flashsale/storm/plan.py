"""The plan: who does what, over which connection and at which instant. Decided before the storm.

A plan is a pure function of the scenario, the users and the seed, and its hash names it: equal
hashes mean that the very same requests were to be sent in the same order.
"""

import hashlib
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from random import Random

from flashsale.model import ID_MAX
from flashsale.storm.scenario import Browse, Load, Sale

UNKNOWN_FROM = 2**40
"""No shop has an id as high: who asks for one asks for what is not there."""

LAST = -1
"""In `Plan.following`: nothing follows on this connection."""


@dataclass(frozen=True)
class Plan:
    """Attempts 0 … n−1, in the order in which they are due.

    Attempt `i` is the claim of `users[i]` on `vouchers[i]` over `connections[i]`, not before
    `at_us[i]` µs after the barrier. `following[i]` is the next attempt on the same connection:
    it is due when attempt `i` has its answer.

    A plan of reads has `shops` instead of users and vouchers. In an `open` plan every attempt is
    due at its own instant, whatever became of the others, and takes any connection that is free.
    """

    users: "array[int]"
    vouchers: "array[int]"
    connections: "array[int]"
    at_us: "array[int]"
    following: "array[int]"
    connection_count: int
    shops: "array[int]" = field(default_factory=lambda: array("q"))
    open: bool = False
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    """In a part of a plan: what its attempts are called in the whole. No part of the digest."""

    def __len__(self) -> int:
        return len(self.at_us)

    def __repr__(self) -> str:
        return f"<Plan {self.digest} attempts={len(self)} connections={self.connection_count}>"

    @property
    def first_attempts(self) -> range:
        """The attempts that are due at their own instant, ascending; the others wait for one."""
        return range(len(self) if self.open else self.connection_count)

    @property
    def closed(self) -> bool:
        """Whether attempts wait for others: then the server's pace is the storm's."""
        return not self.open and len(self) > self.connection_count

    def part(self, number: int, of: int) -> "Plan":
        """Part `number` (1 to `of`) of this plan, its attempts and connections counted from 0.

        The parts of a plan have each of its attempts and connections once. A closed plan is
        parted by connection, so that chains stay whole, an open one attempt by attempt in turn.
        Raises ValueError where a part would have no connection.
        """
        connections = range(number - 1, self.connection_count, of)
        if not 1 <= number <= of <= self.connection_count:
            raise ValueError(
                f"part {number} of {of}, and the plan has {self.connection_count} connections"
            )
        keys = range(len(self)) if self.open else self.connections
        chosen = array("q", (i for i, key in enumerate(keys) if key % of == number - 1))
        place = dict(zip(chosen, range(len(chosen)), strict=True)) | {LAST: LAST}
        columns = {name: _at(chosen, column) for name, column in self._columns().items()}
        columns["following"] = array("q", map(place.__getitem__, columns["following"]))
        if not self.open:
            columns["connections"] = array("q", (c // of for c in columns["connections"]))
        return replace(self, **columns, numbers=chosen, connection_count=len(connections))  # type: ignore[arg-type]

    def _columns(self) -> "dict[str, array[int]]":
        """The columns that say something of each attempt."""
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value for name, value in values if isinstance(value, array) and len(value)}

    def asked(self) -> tuple[int, int]:
        """How many distinct shops that exist are read, and how many reads are of unknown ids."""
        known = [shop for shop in self.shops if shop < UNKNOWN_FROM]
        return len(set(known)), len(self.shops) - len(known)

    @cached_property
    def digest(self) -> str:
        """The plan's hash, the same on every machine."""
        digest = hashlib.blake2b(b"flashsale-plan-1", digest_size=16)
        columns = [self.users, self.vouchers, self.connections, self.at_us, self.following]
        for column in columns + [self.shops] * bool(self.shops):
            little_endian = array(column.typecode, column)
            if sys.byteorder == "big":
                little_endian.byteswap()
            digest.update(little_endian.tobytes())
        return digest.hexdigest()


def plan_stampede(load: Load, sale: Sale, user_ids: Sequence[int]) -> Plan:
    """Everybody at once: each of the first `load.users` users claims one unit.

    The seed decides who comes first. Buyer `i` of that order takes voucher `i mod vouchers` over
    connection `i mod connections`; first attempts are spread evenly at random over `spread_ms`.
    """
    if len(user_ids) < load.users:
        raise ValueError(f"{len(user_ids)} users, and the plan needs {load.users}")
    random = Random(load.seed)
    users = array("q", user_ids[: load.users])
    random.shuffle(users)
    count, width = load.users, load.connections
    starts = _starts(load, random)
    return Plan(
        users=users,
        vouchers=_in_turn(sale.voucher_ids, count),
        connections=_in_turn(range(width), count),
        at_us=_in_turn(starts, count),
        following=array("q", range(width, count)) + array("q", [LAST]) * width,
        connection_count=width,
    )


def plan_browse(load: Load, browse: Browse) -> Plan:
    """Reads of shops, their ids drawn as `browse` says: at the instants of `load.stages`, or in
    a stampede of `load.users` readers, each of whom reads one shop.
    """
    random = Random(load.seed)
    if load.model == "rate":
        at_us, connections = array("q", _arrivals(load, random)), array("q")
        following = array("q", [LAST]) * len(at_us)
    else:
        count, width = load.users, load.connections
        at_us = _in_turn(_starts(load, random), count)
        connections = _in_turn(range(width), count)
        following = array("q", range(width, count)) + array("q", [LAST]) * width
    return Plan(
        users=array("q"),
        vouchers=array("q"),
        connections=connections,
        at_us=at_us,
        following=following,
        connection_count=load.connections,
        shops=array("q", (_drawn(browse, random) for _ in at_us)),
        open=load.model == "rate",
    )


def _starts(load: Load, random: Random) -> list[int]:
    return sorted(int(random.random() * load.spread_ms * 1000) for _ in range(load.connections))


def _arrivals(load: Load, random: Random) -> list[int]:
    """The instants of all stages in µs. In each, they are as many as its rate says."""
    begin_us, instants = 0, []
    for stage in load.parsed_stages:
        length_us, count = round(stage.duration_s * 1e6), stage.arrivals
        if load.arrivals == "even":
            instants += [begin_us + length_us * i // count for i in range(count)]
        else:  # a Poisson process, given how many come: independent and uniform
            instants += sorted(begin_us + int(random.random() * length_us) for _ in range(count))
        begin_us += length_us
    return instants


def _drawn(browse: Browse, random: Random) -> int:
    if random.random() < browse.unknown_share:
        return random.randrange(UNKNOWN_FROM, ID_MAX)
    return random.randrange(browse.first_shop, browse.first_shop + browse.shops)


def _at(places: "array[int]", column: "array[int]") -> "array[int]":
    return array(column.typecode, map(column.__getitem__, places))


def _in_turn(values: Sequence[int], count: int) -> "array[int]":
    """`values` over and over, `count` in all."""
    return (array("q", values) * (count // len(values) + 1))[:count]
