"""The attempts of a run in memory, a column a fact: what was planned, and what came of it.

The plan's columns are hashed, and written a line an attempt; what follows from a plan (who waits
for whom, what is a part of it) is `storm.plan.plan`'s. What came is three instants and an answer
each, allocated beforehand. Instants are `monotonic_ns`, as read; they become µs after the barrier
only when they are written or counted, in bulk. Every later figure is computed from those µs, so
that it comes out the same from memory and from the file.
"""

import hashlib
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import Any, cast

import orjson

from flashsale.model import Outcome
from flashsale.run.histogram import Histogram
from flashsale.scenario.answer import Answer
from flashsale.scenario.load import STEP_OF, Step

FIRST = -1
"""In `PlanColumns.after`: the attempt waits for no other."""

ALWAYS = -1
"""In `PlanColumns.given`: the attempt is made whatever becomes of others."""

HASHED = ("asks", "users", "things", "connections", "at_us", "after", "given")
"""The columns that a plan's hash is of."""

_LATEST_US, _LARGEST = 4 * 10**15, 2**63 - 1
_ANY = -1
_HEADS = {
    Step.BUY: '{{"kind":"plan","i":{i},"user":{user},"voucher":{thing},',
    Step.BROWSE: '{{"kind":"plan","i":{i},"ask":"browse",{who}"shop":{thing},',
    Step.SIGN: '{{"kind":"plan","i":{i},"ask":"sign","user":{user},',
    **{
        step: f'{{{{"kind":"plan","i":{{i}},"ask":"{step.endpoint}","user":{{user}},'
        '"voucher":{thing},'
        for step in Step
        if step.is_shops_own
    },
}


def _column() -> "array[int]":
    return array("q")


@dataclass(frozen=True)
class PlanColumns:
    """A plan as its file has it. Attempts 0 … n−1, those that wait for no other first, in the
    order in which they are due.

    Attempt `i` asks `asks[i]` (a `Step`) of `things[i]` (a voucher, a shop, or 0) as `users[i]`
    (0: as nobody), over `connections[i]`. It is due `at_us[i]` µs after the barrier, or, where
    `after[i]` names an attempt, so long after that one's answer.

    Where `given[i]` names an attempt (ALWAYS: none), `i` is made only if that one ended in one of
    `retry_on`; else who waits for `i` waits for what `i` waited for.

    Where a column says nothing it is empty: without `users` everybody is nobody, without `after`
    no attempt waits for another, without `given` every one is made. Without `connections` the plan
    is `open`: every attempt takes any connection that is free when it is due. In a `cold` plan a
    connection is opened when its attempt is due, else before the barrier. A user has `clicks`
    neighbouring connections at a time.
    """

    asks: "array[int]"
    users: "array[int]"
    things: "array[int]"
    connections: "array[int]"
    at_us: "array[int]"
    connection_count: int
    after: "array[int]" = field(default_factory=_column)
    given: "array[int]" = field(default_factory=_column)
    retry_on: tuple[str, ...] = ()
    cold: bool = False
    clicks: int = 1
    numbers: "array[int]" = field(default_factory=_column)
    """In a part of a plan: what its attempts are called in the whole. No part of the digest."""

    def __len__(self) -> int:
        return len(self.at_us)

    def __repr__(self) -> str:
        connections = f"connections={self.connection_count}"
        return f"<{type(self).__name__} {self.digest} attempts={len(self)} {connections}>"

    @property
    def open(self) -> bool:
        """Whether attempts take any connection, and so never wait for their own."""
        return not self.connections

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """What is asked at all."""
        return tuple(step for step in Step if step in self.asks)

    @property
    def vouchers(self) -> "array[int]":
        """What each attempt claims, 0 where it is no claim."""
        if self.steps == (Step.BUY,):
            return self.things
        pairs = zip(self.asks, self.things, strict=True)
        return array("q", [thing * (ask == Step.BUY) for ask, thing in pairs])

    @cached_property
    def digest(self) -> str:
        """The plan's hash, the same on every machine."""
        digest = hashlib.blake2b(b"flashsale-plan-2", digest_size=16)
        terms = [self.connection_count, self.retry_on, self.cold, self.clicks]
        digest.update(orjson.dumps(terms))
        says_nothing = {"users": 0, "after": FIRST, "given": ALWAYS}
        for name in HASHED:
            values = getattr(self, name)
            if name in says_nothing and values.count(says_nothing[name]) == len(values):
                values = _column()  # as good as none
            little_endian = array(values.typecode, values)
            if sys.byteorder == "big":
                little_endian.byteswap()
            digest.update(len(values).to_bytes(8, "little"))
            digest.update(little_endian.tobytes())
        return digest.hexdigest()


def plan_lines(plan: PlanColumns) -> Iterator[str]:
    """One line an attempt, in the plan's order.

    A line without "ask" is a claim. Without "conn" any connection will do. "at_us" counts from
    the barrier; in its place stand "after" and "think_us" where it waits for another's answer.
    "given" names the claim that has to come to nothing for this attempt to be made. In a part of a
    plan "n" is the attempt's number in the whole.
    """
    columns = zip(
        plan.asks,
        plan.users or repeat(0, len(plan)),
        plan.things,
        plan.connections or repeat(None, len(plan)),
        plan.at_us,
        plan.after or repeat(FIRST, len(plan)),
        plan.given or repeat(ALWAYS, len(plan)),
        plan.numbers or repeat(None, len(plan)),
        strict=True,
    )
    heads = [_HEADS[step] for step in Step]
    for i, (ask, user, thing, connection, at_us, after, given, number) in enumerate(columns):
        head = heads[ask].format(i=i, user=user, thing=thing, who=f'"user":{user},' * bool(user))
        where = "" if connection is None else f'"conn":{connection},'
        when = f'"at_us":{at_us}' if after == FIRST else f'"after":{after},"think_us":{at_us}'
        needs = "" if given == ALWAYS else f',"given":{given}'
        name = "" if number is None else f'"n":{number},'
        yield f"{head}{name}{where}{when}{needs}}}\n"


def columns_of(lines: Iterable[Any], header: dict[str, Any]) -> PlanColumns:
    """The plan of these lines, of a file with this header. Raises ValueError where one is missing
    in between, or where they are no plan that anybody can fire."""
    rows = list(_rows(lines))
    columns = zip(*rows, strict=True) if rows else repeat((), 8)
    asks, users, things, connections, at_us, after, given, numbers = columns
    is_open = set(connections) <= {_ANY}
    plan = PlanColumns(
        asks=array("b", asks),
        users=array("q", users if any(users) else ()),
        things=array("q", things),
        connections=array("q", () if is_open else connections),
        at_us=array("q", at_us),
        connection_count=header.get("connections", max(connections, default=0) + 1),
        after=array("q", after if any(i != FIRST for i in after) else ()),
        numbers=array("q", () if _ANY in numbers else numbers),
        given=array("q", given if any(i != ALWAYS for i in given) else ()),
        retry_on=tuple(header.get("retry_on", ())),
        cold=header.get("cold", False),
        clicks=header.get("clicks", 1),
    )
    _ensure_sound(plan)
    return plan


def _ensure_sound(plan: PlanColumns) -> None:
    """Raises ValueError where a column points out of the plan, or two say what cannot be."""
    for name, column, most in (
        ("instants", plan.at_us, _LATEST_US),
        ("users", plan.users, _LARGEST),
        ("things", plan.things, _LARGEST),
        ("connections", plan.connections, plan.connection_count - 1),
    ):
        if column and not 0 <= min(column) <= max(column) <= most:
            found = f"{min(column):,} to {max(column):,}"
            raise ValueError(f"{name}: found {found}, expected 0 to {most:,}")
    for waited_for in (plan.after, plan.given):
        if any(not FIRST <= before < i for i, before in enumerate(waited_for)):
            raise ValueError("an attempt waits for one that does not come before it")
    waiting = sum(before != FIRST for before in plan.after)
    if waiting and FIRST in plan.after[-waiting:]:
        raise ValueError("an attempt that waits for none stands behind one that waits")


def _rows(lines: Iterable[Any]) -> Iterator[tuple[int, ...]]:
    """Step, user, thing, connection, instant or pause, what it waits for, what it is given, and
    its number in the whole of which the plan is a part; line by line."""
    for number, plan in enumerate(lines):
        if plan["i"] != number:
            raise ValueError(f"attempt {plan['i']} stands where {number} was expected")
        step = STEP_OF[plan.get("ask", "browse" if "shop" in plan else "buy")]
        thing = plan.get("voucher", plan.get("shop", 0))
        after = plan.get("after", FIRST)
        when = plan["at_us"] if after == FIRST else plan["think_us"]
        connection, given = plan.get("conn", _ANY), plan.get("given", ALWAYS)
        number_there = plan.get("n", _ANY)
        yield step, plan.get("user", 0), thing, connection, when, after, given, number_there


NEVER = -1
"""An instant that has not come."""

CENSORED, LOST = "censored", "lost"
_CENSORED_BY = frozenset({"timeout", "deadline", "interrupted", "aborted", "record", "worker"})
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

    def last_done_ns(self) -> int:
        """The instant of the last outcome; of the barrier where there was none."""
        return max(map(self.done_ns.__getitem__, self.arrivals), default=self.origin_ns)

    def settled(self, since: int = 0) -> Iterator[tuple[int, Answer]]:
        """Attempts with their answers, in order of arrival, from the `since`th on."""
        arrived = self.arrivals[since:]
        answers = cast("list[Answer]", self.answers)  # each that has arrived has one
        return zip(arrived, map(answers.__getitem__, arrived), strict=True)

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
        could_ns = map(_could_be_sent_ns, self.due_ns, self.free_ns or self.due_ns)
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
        sent = self.sent_ns
        for attempt, answer in self.settled():
            if sent[attempt] != NEVER:
                labels.setdefault(label_of(answer), []).append(attempt)
        return labels


def _could_be_sent_ns(due_ns: int, free_ns: int) -> int:
    return due_ns if free_ns == NEVER else max(due_ns, free_ns)


def label_of(answer: Answer) -> str:
    """Under what the latency of an attempt that was sent counts: its outcome, CENSORED or LOST."""
    if answer.status is not None:
        return answer.outcome.value
    return CENSORED if answer.error in _CENSORED_BY else LOST
