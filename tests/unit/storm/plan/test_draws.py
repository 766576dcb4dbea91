"""Arrivals: as many as asked for, in order, and spread the way their name says."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.scenario.load import Load
from flashsale.storm.plan.planning import spread, staged


def stampede(arrivals: str | None, spread_ms: int) -> Load:
    given = {"model": "stampede", "users": 9, "connections": 9, "spread_ms": spread_ms}
    return Load.model_validate(given | ({"arrivals": arrivals} if arrivals else {}))


def load_of(*stages: str, arrivals: str = "even") -> Load:
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
    stages = load_of("1s:20", "500ms:100").parsed_stages
    instants = staged(load_of("1s:1", arrivals=arrivals), stages, Random(3))
    first = [at for at in instants if at < 1_000_000]
    assert (len(first), len(instants), instants) == (20, 70, sorted(instants))
    assert max(instants) < 1_500_000
    if arrivals == "at_once":
        assert set(instants) == {0, 1_000_000}


@pytest.mark.parametrize(
    ("stages", "arrivals"),
    [
        (["100ms:4"] * 50, 20),
        (["100ms:6"] * 50, 30),
        (["1ms:1"] * 10_000, 10),
        (["0.3333ms:100"] * 3_000, 100),
        (["400ms:1"], 0),
        (["1s:0..10"] * 3, 15),
        (["100ms:0..5", "100ms:5..0"] * 20, 10),
    ],
)
def test_many_short_stages_have_as_many_arrivals_as_the_long_one(
    stages: list[str], arrivals: int
) -> None:
    beside = load_of("1m:1", *stages, "1s:1")
    assert beside.user_count == 60 + arrivals + 1
    instants = staged(beside, beside.parsed_stages, Random(1))
    assert (len(instants), instants) == (beside.user_count, sorted(instants))


@settings(deadline=None, max_examples=60)
@given(
    arrivals=st.sampled_from(["uniform", "even", "poisson"]),
    first=st.integers(0, 500),
    last=st.integers(0, 500),
    length_ms=st.integers(1, 3_000),
)
def test_a_ramp_has_its_arrivals_within_it_and_in_order(
    arrivals: str, first: int, last: int, length_ms: int
) -> None:
    load = load_of(f"{length_ms}ms:{first}..{last}", "2s:1", arrivals=arrivals)
    ramp, _ = load.parsed_stages
    assert abs(ramp.arrivals - length_ms * (first + last) / 2000) <= 0.5
    instants = staged(load, load.parsed_stages, Random(5))
    assert instants == sorted(instants)
    assert sum(at < length_ms * 1000 for at in instants) == ramp.arrivals


@pytest.mark.parametrize(("text", "shares"), [("2s:0..1000", (1, 3)), ("2s:1000..0", (3, 1)),
                                              ("2s:200..600", (300, 500))])  # fmt: skip
@pytest.mark.parametrize("arrivals", ["even", "poisson"])
def test_a_ramp_is_as_dense_as_its_rate_is_high(
    text: str, shares: tuple[int, int], arrivals: str
) -> None:
    load = load_of(text, arrivals=arrivals)
    instants = staged(load, load.parsed_stages, Random(5))
    first = sum(at < 1_000_000 for at in instants)
    assert first / len(instants) == pytest.approx(shares[0] / sum(shares), abs=0.05)


@pytest.mark.parametrize(
    "text",
    ["1s", "1s:", "1s:5..", "1s:..5", "1s:5...6", "1s:5..6..7", "1s:-1..5", "1h:5", "1s:1e3"],
)
def test_what_is_no_stage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"load\.stages: found '.*', expected such as '10s:2000'"):
        load_of(text)
