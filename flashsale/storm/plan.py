"""The plan: who does what, over which connection and at which instant. Decided before the storm.

A plan is a pure function of the scenario, the users and the seed, and its hash names it: equal
hashes mean that the very same requests were to be sent in the same order.
"""

import hashlib
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from flashsale.storm.scenario import Load, Sale

LAST = -1
"""In `Plan.following`: nothing follows on this connection."""


@dataclass(frozen=True)
class Plan:
    """Attempts 0 … n−1, in the order in which they are due.

    Attempt `i` is the claim of `users[i]` on `vouchers[i]` over `connections[i]`, not before
    `at_us[i]` µs after the barrier. `following[i]` is the next attempt on the same connection:
    it is due when attempt `i` has its answer.
    """

    users: "array[int]"
    vouchers: "array[int]"
    connections: "array[int]"
    at_us: "array[int]"
    following: "array[int]"
    connection_count: int

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"<Plan {self.digest} attempts={len(self)} connections={self.connection_count}>"

    @property
    def first_attempts(self) -> range:
        """The first attempt of every connection, due at its own instant, ascending."""
        return range(self.connection_count)

    @property
    def closed(self) -> bool:
        """Whether attempts wait for others: then the server's pace is the storm's."""
        return len(self) > self.connection_count

    @cached_property
    def digest(self) -> str:
        """The plan's hash, the same on every machine."""
        digest = hashlib.blake2b(b"flashsale-plan-1", digest_size=16)
        for column in (self.users, self.vouchers, self.connections, self.at_us, self.following):
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
    starts = sorted(int(random.random() * load.spread_ms * 1000) for _ in range(width))
    return Plan(
        users=users,
        vouchers=_in_turn(sale.voucher_ids, count),
        connections=_in_turn(range(width), count),
        at_us=_in_turn(starts, count),
        following=array("q", range(width, count)) + array("q", [LAST]) * width,
        connection_count=width,
    )


def _in_turn(values: Sequence[int], count: int) -> "array[int]":
    """`values` over and over, `count` in all."""
    return (array("q", values) * (count // len(values) + 1))[:count]
