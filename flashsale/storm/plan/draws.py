"""Arrivals: at which instants people come. Pure; the randomness is the plan's.

The things that users ask for: vouchers in turn, shops as they are drawn.
"""

from collections.abc import Sequence
from itertools import accumulate
from random import Random

from flashsale.model import ID_MAX
from flashsale.scenario.load import Load, Stage, Step
from flashsale.scenario.scenario import Browse, Scenario
from flashsale.storm.plan.plan import UNKNOWN_FROM

_S_US = 1_000_000


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
    """The instants in µs of all stages, ascending. In each, they are as many as its rate says.

    `poisson` is a Poisson process given that so many come, which makes the instants of a stage
    uniform and independent: the same as `uniform`. `at_once`: all at the stage's begin.
    """
    begin_us, instants = 0, []
    for stage in stages:
        length_us = round(stage.duration_s * _S_US)
        instants += _within(load.pattern, begin_us, length_us, stage.arrivals, random)
        begin_us += length_us
    return instants


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
