"""No read after an update whose delete is done answers older data, whatever races it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from rig.history import IDS, Step, dense, run

from flashsale.cache.calls import Owed
from flashsale.cache.entry import Flights, Fly, Landed, Loading, pack
from flashsale.cache.strategies import Strategy

STEPS = st.lists(
    st.builds(
        Step,
        pause_ms=st.integers(0, 2),
        verb=st.sampled_from(["read", "read", "leave", "update", "evict"]),
        actor=st.integers(0, 1),
        entry_id=st.sampled_from(IDS),
        slow_ms=st.integers(0, 4),
    ),
    min_size=5,
    max_size=40,
)
DELAYS = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_no_read_is_older_than_an_update_that_is_done(strategy: Strategy, cache_url: str) -> None:
    @settings(
        max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(steps=STEPS, delays_ms=DELAYS)
    def races(steps: list[Step], delays_ms: list[int]) -> None:
        assert uvloop.run(run(cache_url, strategy, steps, delays_ms)).older == []

    races()


@pytest.mark.parametrize("strategy", list(Strategy))
def test_nor_in_dense_histories(strategy: Strategy, cache_url: str) -> None:
    for seed in range(12):
        model = uvloop.run(run(cache_url, strategy, *dense(seed)))
        assert model.older == [], f"seed {seed}"
        assert model.reads > 20


def _fill_without_token(url: str) -> Any:
    async def fill(
        self: Loading[Any], pair: tuple[str, str], token: str, body: bytes, *_: object, **__: object
    ) -> bool:
        async with Redis.from_url(url, protocol=2) as redis:
            await redis.set(pair[0], pack(body), px=100)
            await redis.delete(pair[1])
        return True

    return fill


def _join_whatever_flies(url: str) -> Any:
    async def fresh(self: Flights, key: str, fly: Fly) -> tuple[Landed, bool]:
        flight = self._open.get(key)
        is_ours = flight is None
        if flight is None:
            flight = self._open[key] = self._start(key, fly)
        return await asyncio.shield(flight.landed), is_ours

    return fresh


def _no_delete(url: str) -> Any:
    async def drop(self: Owed, pairs: object) -> bool:
        return True

    return drop


@pytest.mark.parametrize(
    ("where", "what", "careless"),
    [
        (Loading, "fill", _fill_without_token),
        (Flights, "fresh", _join_whatever_flies),
        (Owed, "drop", _no_delete),
    ],
)
def test_a_careless_client_is_found_out(
    cache_url: str,
    monkeypatch: pytest.MonkeyPatch,
    where: type,
    what: str,
    careless: Callable[[str], Any],
) -> None:
    """Each rule broken by itself: then the same histories show older data."""
    monkeypatch.setattr(where, what, careless(cache_url))
    assert any(uvloop.run(run(cache_url, Strategy.MUTEX, *dense(seed))).older for seed in range(60))
