"""Planning: a scenario and its users become a plan. Pure; the seed decides everything.

First what is drawn: at which instants people come, and what they ask for. Then users who do more
than one thing: each takes its steps, with pauses between them. Then the plan of either kind.

A virtual user is what load testers call so: in a closed plan it has a connection, or one for each
click of somebody who clicks several times at once, and serves its users one after another. In an
open plan each user is one of its own, from the instant of coming, and takes whatever connection is
free.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import sqrt
from random import Random
from typing import NamedTuple

from flashsale.model import ID_MAX
from flashsale.run.attempts import ALWAYS, FIRST
from flashsale.scenario.load import Load, Stage, Step
from flashsale.scenario.scenario import Browse, Scenario
from flashsale.storm.plan.plan import UNKNOWN_FROM, Plan


def spread(load: Load, count: int, random: Random) -> list[int]:
    """The instants in µs of `count` arrivals over `load.spread_ms`, ascending.

    `at_once`: all at 0. `uniform`: each somewhere in the spread, whatever the others do. `even`:
    at equal distances. `poisson`: the gaps are exponential, so many on average fill the spread,
    and the last one may come after it.
    """
    width_us = load.spread_ms * 1000
    if not width_us or load.pattern == "at_once":
        return [0] * count
    if load.pattern == "poisson":
        gaps = (random.expovariate(count / width_us) for _ in range(count))
        return [int(instant) for instant in accumulate(gaps)]
    return _within(load.pattern, 0, width_us, count, random)


def staged(load: Load, stages: Sequence[Stage], random: Random) -> list[int]:
    """The instants in µs of all stages, ascending. In each, they are as many as it says; where its
    rate rises or falls, they are as dense at each instant as the rate is high.

    `poisson` is a Poisson process given that so many come, which makes the instants of a stage
    uniform and independent: the same as `uniform`. `at_once`: all at the stage's begin.
    """
    instants = []
    for stage in stages:
        flat = _within(load.pattern, stage.begin_us, stage.length_us, stage.arrivals, random)
        instants += flat if stage.first_per_s == stage.last_per_s else _sloped(stage, flat)
    return instants


def _sloped(stage: Stage, instants: Iterable[int]) -> list[int]:
    """Instants that fill a stage evenly, moved to where as large a share of its arrivals has come.

    The share that has come by the share x of its time is (a·x + (b-a)·x²/2) / ((a+b)/2), for rates
    from a to b; solved for x in the form that does not cancel.
    """
    begin_us, length_us = stage.begin_us, stage.length_us
    a, b = float(stage.first_per_s), float(stage.last_per_s)
    moved = []
    for instant in instants:
        share = (instant - begin_us) / length_us
        beside = a + sqrt(a * a + (b * b - a * a) * share)
        moved.append(begin_us + int(length_us * share * (a + b) / beside) if share else begin_us)
    return moved


def _within(pattern: str, begin_us: int, length_us: int, count: int, random: Random) -> list[int]:
    match pattern:
        case "at_once":
            return [begin_us] * count
        case "even":
            return [begin_us + length_us * i // count for i in range(count)]
        case _:
            return sorted(begin_us + int(random.random() * length_us) for _ in range(count))


class Things:
    """What users ask for: vouchers in turn, user by user; shops as they are drawn."""

    def __init__(self, scenario: Scenario, random: Random) -> None:
        self._vouchers = scenario.sale.voucher_ids if scenario.sale else range(0)
        self._browse, self._random = scenario.browse, random

    def of(self, step: Step, number: int) -> int:
        """What the `number`th user asks for in this step."""
        match step:
            case Step.BUY | Step.CART | Step.PAY | Step.CANCEL:
                return self._vouchers[number % len(self._vouchers)]
            case Step.BROWSE:
                assert self._browse is not None
                return _drawn(self._browse, self._random)
            case _:
                return 0


def _drawn(browse: Browse, random: Random) -> int:
    if random.random() < browse.unknown_share:
        return random.randrange(UNKNOWN_FROM, ID_MAX)
    return random.randrange(browse.first_shop, browse.first_shop + browse.shops)


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


def _closed_plan(scenario: Scenario, users: "array[int]", things: Things, random: Random) -> Plan:
    """The plan for `users` (empty: nobody in particular), `random` drawing whatever is drawn."""
    load, drawing = scenario.load, _Drawing(scenario.load, Draft(), things, random)
    starts = spread(load, load.virtual_users, random)
    virtual_users = [
        _VirtualUser(start, load.clicks * number) for number, start in enumerate(starts)
    ]
    for number in range(load.users):
        user = users[number] if users else 0
        visit = _Visit(drawing, virtual_users[number % len(virtual_users)], user, number)
        for step in scenario.steps:
            visit.take(step)
    return drawing.draft.plan(load.connections, load.clicks, _retry_on(load))


def _open_plan(
    scenario: Scenario,
    users: "array[int]",
    instants: Sequence[int],
    things: Things,
    random: Random,
) -> Plan:
    """The plan for one user at each of the `instants`, in µs."""
    load, drawing = scenario.load, _Drawing(scenario.load, Draft(), things, random)
    for number, start in enumerate(instants):
        user = users[number] if users else 0
        visit = _Visit(drawing, _VirtualUser(start, ANY), user, number)
        for step in scenario.steps:
            visit.take(step)
    return drawing.draft.plan(load.connections, retry_on=_retry_on(load))


def _retry_on(load: Load) -> tuple[str, ...]:
    return tuple(sorted(load.retry.on)) if load.retry else ()


class _Drawing(NamedTuple):
    """Of what the visits of a plan are drawn, and into which draft."""

    load: Load
    draft: Draft
    things: Things
    random: Random


class _VirtualUser:
    """Acts as one user after another; `before` is what the next attempt follows, `connection` the
    first of its own, or ANY."""

    def __init__(self, start_us: int, connection: int) -> None:
        self.start_us, self.connection, self.before = start_us, connection, FIRST


class _Visit:
    """One user's steps, put down in a draft."""

    def __init__(
        self, drawing: _Drawing, virtual_user: _VirtualUser, user: int, number: int
    ) -> None:
        self._load, self._draft, self._things, self._random = drawing
        self._virtual_user, self._user, self._number = virtual_user, user, number
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
        before, pause_us = self._virtual_user.before, self._pause_us()
        claim = self._add(Step.BUY, voucher, pause_us)
        self._virtual_user.before = before
        for click in range(1, self._load.clicks):
            self._virtual_user.before = before
            self._add(Step.BUY, voucher, pause_us, click=click)
        self._virtual_user.before = claim
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
        virtual_user = self._virtual_user
        at_us = virtual_user.start_us if virtual_user.before == FIRST else pause_us
        connection = ANY if virtual_user.connection == ANY else virtual_user.connection + click
        attempt = Attempt(step, self._user, thing, connection, at_us, virtual_user.before, given)
        virtual_user.before = self._draft.add(attempt)
        return virtual_user.before

    def _pause_us(self) -> int:
        return _drawn_us(self._load.think_ms, self._load.think, self._random)

    def _refresh_us(self) -> int:
        assert self._load.refresh is not None
        return _drawn_us(self._load.refresh.pause_ms, self._load.think, self._random)


def _drawn_us(mean_ms: int, think: str, random: Random) -> int:
    if think == "exponential" and mean_ms:
        return int(random.expovariate(1 / (mean_ms * 1000)))
    return mean_ms * 1000


def plan_of(scenario: Scenario, user_ids: Sequence[int]) -> Plan:
    """The plan for the first of `user_ids`. Raises ValueError where they are too few."""
    load, random = scenario.load, Random(scenario.load.seed)
    users = _users(scenario, user_ids, random)
    match load.model:
        case "closed":
            return _closed_plan(scenario, users, Things(scenario, random), random)
        case "rate":
            instants = staged(load, load.parsed_stages, random)
            if load.is_visited:
                return _open_plan(scenario, users, instants, Things(scenario, random), random)
            return _one_step(scenario, users, array("q", instants), random)
        case _:
            return _stampede(scenario, users, random)


def _users(scenario: Scenario, user_ids: Sequence[int], random: Random) -> "array[int]":
    """Who comes, in the order that the seed gives them; nobody in particular to read alone."""
    if not scenario.needs_users:
        return array("q")
    count = scenario.load.user_count
    if len(user_ids) < count:
        raise ValueError(f"{len(user_ids)} users, and the plan needs {count}")
    users = array("q", user_ids[:count])
    random.shuffle(users)
    return users


def _stampede(scenario: Scenario, users: "array[int]", random: Random) -> Plan:
    """Everybody once: user `i` of the seed's order comes over connection `i mod connections`.

    The first of each connection come at instants of their own, the others when the one before
    has an answer.
    """
    load = scenario.load
    count, width = load.users, load.connections
    at_us = array("q", spread(load, width, random)) + array("q", [0]) * (count - width)
    after = array("q", [FIRST]) * width + array("q", range(count - width))
    if count == width:
        after = array("q")
    return _one_step(scenario, users, at_us, random, _in_turn(range(width), count), after)


def _one_step(
    scenario: Scenario,
    users: "array[int]",
    at_us: "array[int]",
    random: Random,
    connections: Sequence[int] = (),
    after: Sequence[int] = (),
) -> Plan:
    """One attempt for each of `at_us`, all with the scenario's one step."""
    (step,), count = scenario.steps, len(at_us)
    things = Things(scenario, random)
    return Plan(
        asks=array("b", [step]) * count,
        users=users,
        things=array("q", [things.of(step, i) for i in range(count)]),
        connections=array("q", connections),
        at_us=at_us,
        connection_count=scenario.load.connections,
        after=array("q", after),
        cold=scenario.load.connect == "cold",
    )


def _in_turn(values: Sequence[int], count: int) -> "array[int]":
    """`values` over and over, `count` in all."""
    return (array("q", values) * (count // len(values) + 1))[:count]
