"""Arrivals: as many as asked for, in order, and spread the way their name says."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.scenario.load import Load, Stage
from flashsale.storm.plan.draws import spread, staged


def stampede(arrivals: str | None, spread_ms: int) -> Load:
    given = {"model": "stampede", "users": 9, "connections": 9, "spread_ms": spread_ms}
    return Load.model_validate(given | ({"arrivals": arrivals} if arrivals else {}))


def rate(arrivals: str) -> Load:
    stages = ("1s:1",)
    return Load.model_validate(
        {"model": "rate", "stages": stages, "connections": 1, "arrivals": arrivals}
    )


@settings(deadline=None, max_examples=60)
@given(
    arrivals=st.sampled_from([None, "uniform", "even", "poisson"]),
    spread_ms=st.integers(1, 5_000),
    count=st.integers(1, 300),
    seed=st.integers(0, 2**32),
)
def test_a_spread_has_everybody_in_order(
    arrivals: str | None, spread_ms: int, count: int, seed: int
) -> None:
    load = stampede(arrivals, spread_ms)
    instants = spread(load, count, Random(seed))
    assert (len(instants), instants) == (count, sorted(instants))
    assert instants[0] >= 0
    assert arrivals == "poisson" or instants[-1] < spread_ms * 1000
    assert instants == spread(load, count, Random(seed))


def test_who_comes_at_once_comes_at_the_barrier() -> None:
    assert spread(stampede("at_once", 0), 4, Random(1)) == [0] * 4
    assert spread(stampede(None, 0), 4, Random(1)) == [0] * 4


def test_even_gaps_are_equal_and_poisson_gaps_exponential() -> None:
    even = spread(stampede("even", 1_000), 1_000, Random(1))
    assert even == [1_000 * i for i in range(1_000)]
    poisson = spread(stampede("poisson", 1_000), 20_000, Random(1))
    gaps = [later - earlier for earlier, later in pairwise(poisson)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(50, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)  # as nothing else has that grows like it
    assert poisson[-1] == pytest.approx(1_000_000, rel=0.05)


@pytest.mark.parametrize("arrivals", ["at_once", "uniform", "even", "poisson"])
def test_each_stage_has_its_own(arrivals: str) -> None:
    stages = [Stage(1.0, 20), Stage(0.5, 100)]
    instants = staged(rate(arrivals), stages, Random(3))
    first = [at for at in instants if at < 1_000_000]
    assert (len(first), len(instants), instants) == (20, 70, sorted(instants))
    assert max(instants) < 1_500_000
    if arrivals == "at_once":
        assert set(instants) == {0, 1_000_000}
