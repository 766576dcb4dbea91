"""A batch of locks: taken in one call, kept alive by the watchdog, given back at the end."""

from typing import Any

import pytest
from redis import Redis
from rig.until import until

from flashsale.errors import Indeterminate, Unavailable, UsageError
from flashsale.locks.batch import BatchLocks, LockCounts
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import sync_client


def locks(
    cache: Redis, owner: str = "c1", lease_ms: int = 30_000, renew_ms: int = 10_000
) -> BatchLocks:
    return BatchLocks(cache, owner, lease_ms=lease_ms, renew_ms=renew_ms)


def test_take_and_release(cache: Redis) -> None:
    one, two = locks(cache, "c1"), locks(cache, "c2")
    assert one.take(["a", "b"], 1) == [True, True]
    assert two.take(["b", "c"], 2) == [False, True]
    assert two.release(["a", "b", "c"], 2) == 1
    assert one.release(["a", "b"], 1) == 2
    assert two.take(["a", "b"], 3) == [True, True]
    assert one.counts == LockCounts(acquired=2)
    assert two.counts == LockCounts(acquired=3, refused=1)


def test_a_lock_that_went_meanwhile_is_counted(cache: Redis) -> None:
    mine = locks(cache)
    mine.take(["a", "b"], 1)
    with mine.kept(["a", "b"], 1):
        assert mine.held == 2
        cache.delete("a")
    assert (mine.held, mine.counts.lost) == (0, 1)


def test_nothing_to_take(cache: Redis) -> None:
    mine = locks(cache)
    assert (mine.take([], 1), mine.renew([], 1), mine.release([], 1)) == ([], 0, 0)


def test_a_flushed_script_heals(cache: Redis) -> None:
    mine = locks(cache)
    mine.take(["a"], 1)
    cache.script_flush()
    assert mine.take(["b"], 1) == [True]
    cache.script_flush()
    assert mine.renew(["a", "b"], 1) == 2
    cache.script_flush()
    assert mine.release(["a", "b"], 1) == 2


def test_kept_alive_while_the_block_runs_and_gone_after_it(cache: Redis) -> None:
    mine = locks(cache, lease_ms=1000, renew_ms=20)
    mine.take(["a", "b"], 1)

    def renewals() -> int:
        stats: Any = cache.info("commandstats")
        return int(stats.get("cmdstat_pexpire", {}).get("calls", 0))

    with mine.kept(["a", "b"], 1):
        until(lambda: renewals() >= 110)  # 55 renewals of two locks, 20 ms apart: past the lease
        assert cache.exists("a", "b") == 2
    assert cache.exists("a", "b") == 0
    after = renewals()
    with locks(cache, lease_ms=400, renew_ms=20).kept(["x"], 2):
        pass
    assert renewals() == after, "the first watchdog has ended"


def test_given_back_when_the_block_fails(cache: Redis) -> None:
    mine = locks(cache)
    mine.take(["a"], 1)
    with pytest.raises(KeyError), mine.kept(["a"], 1):
        raise KeyError
    assert not cache.exists("a")


def test_an_earlier_selfs_watchdog_keeps_nothing_alive(cache: Redis) -> None:
    before, after = locks(cache, lease_ms=30_000, renew_ms=10), locks(cache, lease_ms=5_000)
    before.take(["a"], 1)
    with before.kept(["a"], 1):
        assert after.take(["a"], 2) == [True]
        calls = cache.info("commandstats")["cmdstat_get"]["calls"]  # type: ignore[index]
        until(lambda: cache.info("commandstats")["cmdstat_get"]["calls"] > calls + 3)  # type: ignore[index]
        assert 0 < cache.pttl("a") <= 5_000  # type: ignore[operator]
    assert cache.get("a") == "c1 2", "and its end does not take it away"


def test_a_cache_that_goes_away_meanwhile_is_no_error(own_ledger: RedisServer) -> None:
    with sync_client(own_ledger.url) as cache:
        mine = locks(cache, renew_ms=10)
        mine.take(["a"], 1)
        with mine.kept(["a"], 1):
            assert own_ledger.process is not None
            own_ledger.process.kill()
        with pytest.raises((Unavailable, Indeterminate)):
            mine.take(["a"], 2)


@pytest.mark.parametrize("owner", ["", "c1 2", " ", "c1\n"])
def test_an_owner_is_one_word(cache: Redis, owner: str) -> None:
    """`c1 2` would pass for c1 itself."""
    with pytest.raises(UsageError):
        locks(cache, owner)
