"""Arrivals: at which instants people come. Pure; the randomness is the plan's.

The things that users ask for: vouchers in turn, shops as they are drawn.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import sqrt
from random import Random

from flashsale.model import ID_MAX
from flashsale.scenario.load import Load, Stage, Step
from flashsale.scenario.scenario import Browse, Scenario
from flashsale.storm.plan.plan import UNKNOWN_FROM


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
