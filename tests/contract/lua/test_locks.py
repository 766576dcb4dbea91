"""lock_take, lock_renew, lock_release: one owner at a time, no way back for an earlier self."""

import time
from typing import cast

import pytest
from redis import Redis

from flashsale.lua.scripts import script

TAKE, RENEW, RELEASE = script("lock_take"), script("lock_renew"), script("lock_release")
LEASE_MS = 30_000


def take(cache: Redis, owner: str, fence: int, *names: str, lease_ms: int = LEASE_MS) -> list[int]:
    reply = cache.eval(TAKE.text, len(names), *names, owner, str(fence), str(lease_ms))
    return cast("list[int]", reply)


def renew(cache: Redis, holder: str, *names: str, lease_ms: int = LEASE_MS) -> int:
    return cast(int, cache.eval(RENEW.text, len(names), *names, holder, str(lease_ms)))


def release(cache: Redis, holder: str, *names: str) -> int:
    return cast(int, cache.eval(RELEASE.text, len(names), *names, holder))


def test_free_locks_are_taken_with_a_lease(cache: Redis) -> None:
    assert take(cache, "c1", 1, "a", "b") == [1, 1]
    assert cache.mget("a", "b") == ["c1 1", "c1 1"]
    assert LEASE_MS - 1000 < cast(int, cache.pttl("a")) <= LEASE_MS


def test_anothers_lock_is_not_taken_and_not_touched(cache: Redis) -> None:
    take(cache, "c1", 1, "a", lease_ms=5000)
    assert take(cache, "c2", 2, "a", "b") == [0, 1]
    assert cache.get("a") == "c1 1"
    assert cast(int, cache.pttl("a")) <= 5000


@pytest.mark.parametrize("other", ["c", "c11", "C1", "c1x", "1"])
def test_names_that_look_alike_are_others(cache: Redis, other: str) -> None:
    take(cache, "c1", 1, "a")
    assert take(cache, other, 2, "a") == [0]


def test_a_restarted_owner_finds_its_own(cache: Redis) -> None:
    take(cache, "c1", 1, "a", lease_ms=5000)
    assert take(cache, "c1", 2, "a") == [1]
    assert cache.get("a") == "c1 2"
    assert cast(int, cache.pttl("a")) > 5000


def test_an_earlier_self_can_neither_renew_nor_release(cache: Redis) -> None:
    take(cache, "c1", 1, "a")
    take(cache, "c1", 2, "a", lease_ms=5000)
    assert renew(cache, "c1 1", "a") == 0
    assert release(cache, "c1 1", "a") == 0
    assert cache.get("a") == "c1 2"
    assert cast(int, cache.pttl("a")) <= 5000


def test_an_earlier_self_cannot_take_back_either(cache: Redis) -> None:
    """It drew its number, slept, and wakes after its successor took the lock."""
    take(cache, "c1", 10, "a")
    assert take(cache, "c1", 9, "a", "b") == [0, 1]
    assert cache.get("a") == "c1 10"
    assert renew(cache, "c1 10", "a") == 1


def test_the_same_number_again_is_the_same_holder(cache: Redis) -> None:
    take(cache, "c1", 3, "a")
    assert take(cache, "c1", 3, "a") == [1]


def test_renew_extends_only_what_is_held(cache: Redis) -> None:
    take(cache, "c1", 1, "a", lease_ms=5000)
    take(cache, "c2", 2, "b", lease_ms=5000)
    assert renew(cache, "c1 1", "a", "b", "free") == 1
    assert cast(int, cache.pttl("a")) > 5000
    assert cast(int, cache.pttl("b")) <= 5000
    assert not cache.exists("free")


def test_release_removes_only_what_is_held(cache: Redis) -> None:
    take(cache, "c1", 1, "a")
    take(cache, "c2", 2, "b")
    assert release(cache, "c1 1", "a", "b", "free") == 1
    assert cache.mget("a", "b") == [None, "c2 2"]


def test_a_lock_that_was_lost_stays_lost(cache: Redis) -> None:
    take(cache, "c1", 1, "a", lease_ms=1)
    give_up = time.monotonic() + 5
    while cache.exists("a"):
        assert time.monotonic() < give_up
    assert renew(cache, "c1 1", "a") == 0
    take(cache, "c2", 2, "a")
    assert release(cache, "c1 1", "a") == 0
    assert cache.get("a") == "c2 2"


def test_giving_back_works_when_memory_is_spent(cache: Redis) -> None:
    take(cache, "c1", 1, "a")
    limit = cache.config_get("maxmemory")["maxmemory"]
    cache.config_set("maxmemory-policy", "noeviction")
    cache.config_set("maxmemory", 1)
    try:
        assert renew(cache, "c1 1", "a") == 1
        assert release(cache, "c1 1", "a") == 1
    finally:
        cache.config_set("maxmemory", limit)
        cache.config_set("maxmemory-policy", "volatile-lru")
