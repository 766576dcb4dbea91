"""Planning: a scenario and its users become a plan. Pure; the seed decides everything."""

from array import array
from collections.abc import Sequence
from random import Random

from flashsale.model import ID_MAX
from flashsale.storm.arrivals import spread, staged
from flashsale.storm.draft import Attempt, Draft
from flashsale.storm.load import Load
from flashsale.storm.plan import FIRST, UNKNOWN_FROM, Plan
from flashsale.storm.scenario import Browse, Scenario
from flashsale.storm.step import Step


def plan_of(scenario: Scenario, user_ids: Sequence[int]) -> Plan:
    """The plan for the first of `user_ids`. Raises ValueError where they are too few."""
    load, random = scenario.load, Random(scenario.load.seed)
    users = _users(scenario, user_ids, random)
    match load.model:
        case "closed":
            return _closed(scenario, users, random)
        case "rate":
            at_us = array("q", staged(load, load.parsed_stages, random))
            return _one_step(scenario, users, at_us, random)
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
    things = _Things(scenario, random)
    return Plan(
        asks=array("b", [step]) * count,
        users=users,
        things=array("q", [things.of(step, i) for i in range(count)]),
        connections=array("q", connections),
        at_us=at_us,
        connection_count=scenario.load.connections,
        after=array("q", after),
    )


def _closed(scenario: Scenario, users: "array[int]", random: Random) -> Plan:
    """Each connection serves its users one after another; each takes the steps with pauses."""
    load, things, draft = scenario.load, _Things(scenario, random), Draft()
    starts, before = spread(load, load.connections, random), [FIRST] * load.connections
    for number in range(load.users):
        lane = number % load.connections
        user = users[number] if users else 0
        for step in scenario.steps:
            first = before[lane] == FIRST
            at_us = starts[lane] if first else _pause_us(load, random)
            thing = things.of(step, number)
            before[lane] = draft.add(Attempt(step, user, thing, lane, at_us, before[lane]))
    return draft.plan(load.connections)


def _pause_us(load: Load, random: Random) -> int:
    if load.think == "exponential" and load.think_ms:
        return int(random.expovariate(1 / (load.think_ms * 1000)))
    return load.think_ms * 1000


class _Things:
    """What users ask for: vouchers in turn, user by user; shops as they are drawn."""

    def __init__(self, scenario: Scenario, random: Random) -> None:
        self._vouchers = scenario.sale.voucher_ids if scenario.sale else range(0)
        self._browse, self._random = scenario.browse, random

    def of(self, step: Step, number: int) -> int:
        """What the `number`th user asks for in this step."""
        match step:
            case Step.BUY:
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


def _in_turn(values: Sequence[int], count: int) -> "array[int]":
    """`values` over and over, `count` in all."""
    return (array("q", values) * (count // len(values) + 1))[:count]
