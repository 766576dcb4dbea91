"""Planning: a scenario and its users become a plan. Pure; the seed decides everything."""

from array import array
from collections.abc import Sequence
from random import Random

from flashsale.run.plan_columns import FIRST
from flashsale.scenario.scenario import Scenario
from flashsale.storm.plan.draws import Things, spread, staged
from flashsale.storm.plan.plan import Plan
from flashsale.storm.plan.visits import closed_plan, open_plan


def plan_of(scenario: Scenario, user_ids: Sequence[int]) -> Plan:
    """The plan for the first of `user_ids`. Raises ValueError where they are too few."""
    load, random = scenario.load, Random(scenario.load.seed)
    users = _users(scenario, user_ids, random)
    match load.model:
        case "closed":
            return closed_plan(scenario, users, Things(scenario, random), random)
        case "rate":
            instants = staged(load, load.parsed_stages, random)
            if load.is_visited:
                return open_plan(scenario, users, instants, Things(scenario, random), random)
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
