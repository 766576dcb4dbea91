"""A draft of a plan: attempts in the order in which somebody thinks of them.

The plans of users who do more than one thing: each takes its steps, with pauses between them.

A seat is what a user has. In a closed plan that is a connection, or one for each click of somebody
who clicks several times at once, and it serves its users one after another. In an open plan all
have their own, from the instant at which they come, and take whatever connection is free.
"""

from array import array
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from flashsale.run.plan_columns import ALWAYS, FIRST
from flashsale.scenario.load import Load, Step
from flashsale.scenario.scenario import Scenario
from flashsale.storm.plan.draws import Things, spread
from flashsale.storm.plan.plan import Plan

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


def closed_plan(scenario: Scenario, users: "array[int]", things: Things, random: Random) -> Plan:
    """The plan for `users` (empty: nobody in particular), `random` drawing whatever is drawn."""
    load, draft = scenario.load, Draft()
    starts = spread(load, load.seats, random)
    seats = [_Seat(start, load.clicks * number) for number, start in enumerate(starts)]
    for number in range(load.users):
        user = users[number] if users else 0
        visit = _Visit(load, draft, things, random, seats[number % len(seats)], user, number)
        for step in scenario.steps:
            visit.take(step)
    return draft.plan(load.connections, load.clicks, _retry_on(load))


def open_plan(
    scenario: Scenario,
    users: "array[int]",
    instants: Sequence[int],
    things: Things,
    random: Random,
) -> Plan:
    """The plan for one user at each of the `instants`, in µs."""
    load, draft = scenario.load, Draft()
    for number, start in enumerate(instants):
        user = users[number] if users else 0
        visit = _Visit(load, draft, things, random, _Seat(start, ANY), user, number)
        for step in scenario.steps:
            visit.take(step)
    return draft.plan(load.connections, retry_on=_retry_on(load))


def _retry_on(load: Load) -> tuple[str, ...]:
    return tuple(sorted(load.retry.on)) if load.retry else ()


class _Seat:
    """Where users sit down; `before` is what the next attempt follows, `connection` the first of
    its own, or ANY."""

    def __init__(self, start_us: int, connection: int) -> None:
        self.start_us, self.connection, self.before = start_us, connection, FIRST


class _Visit:
    """One user's steps, put down in a draft."""

    def __init__(
        self,
        load: Load,
        draft: Draft,
        things: Things,
        random: Random,
        seat: _Seat,
        user: int,
        number: int,
    ) -> None:
        self._load, self._draft, self._things, self._random = load, draft, things, random
        self._seat, self._user, self._number = seat, user, number
        self._claim = ALWAYS

    def take(self, step: Step) -> None:
        """Put down one step, a claim with what comes with it."""
        if step is not Step.BUY:
            given = self._claim if step.needs_order else ALWAYS
            self._add(step, self._things.of(step, self._number), self._pause_us(), given)
            return
        page = self._things.of(Step.BROWSE, self._number) if self._load.refresh else 0
        for _ in range(self._load.refresh.reads if self._load.refresh else 0):
            self._add(Step.BROWSE, page, self._refresh_us())
        voucher = self._things.of(Step.BUY, self._number)
        claim = self._claim = self._click(voucher)
        for turn in range(self._load.retry.times if self._load.retry else 0):
            claim = self._retry(turn, claim, voucher, page)

    def _click(self, voucher: int) -> int:
        """As many claims at the same instant as there are connections; the first of them leads."""
        before, pause_us = self._seat.before, self._pause_us()
        claim = self._add(Step.BUY, voucher, pause_us)
        self._seat.before = before
        for click in range(1, self._load.clicks):
            self._seat.before = before
            self._add(Step.BUY, voucher, pause_us, click=click)
        self._seat.before = claim
        return claim

    def _retry(self, turn: int, claim: int, voucher: int, page: int) -> int:
        """Given that `claim` came to nothing: refresh the page, wait, claim once more."""
        load = self._load
        assert load.retry is not None
        for _ in range(load.refresh.between if load.refresh else 0):
            self._add(Step.BROWSE, page, self._refresh_us(), claim)
        wait_us = load.retry.backoff_ms * 1000 * 2**turn * self._random.uniform(0.5, 1.5)
        return self._add(Step.BUY, voucher, int(wait_us), claim)

    def _add(
        self, step: Step, thing: int, pause_us: int, given: int = ALWAYS, click: int = 0
    ) -> int:
        seat = self._seat
        at_us = seat.start_us if seat.before == FIRST else pause_us
        connection = ANY if seat.connection == ANY else seat.connection + click
        attempt = Attempt(step, self._user, thing, connection, at_us, seat.before, given)
        seat.before = self._draft.add(attempt)
        return seat.before

    def _pause_us(self) -> int:
        return _drawn_us(self._load.think_ms, self._load.think, self._random)

    def _refresh_us(self) -> int:
        assert self._load.refresh is not None
        return _drawn_us(self._load.refresh.pause_ms, self._load.think, self._random)


def _drawn_us(mean_ms: int, think: str, random: Random) -> int:
    if think == "exponential" and mean_ms:
        return int(random.expovariate(1 / (mean_ms * 1000)))
    return mean_ms * 1000
