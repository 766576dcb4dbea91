"""index_*.lua: an index that is absent is told apart from an empty one, and none gets older."""

from typing import Any

from redis import Redis

from flashsale.lua.scripts import script

FILL, PAGE = script("index_fill"), script("index_page")
COMMON, PUSH = script("index_common"), script("index_push")


def run(cache: Redis, what: Any, keys: list[str], *args: str | int) -> Any:
    return cache.eval(what.text, len(keys), *keys, *map(str, args))


def fill(cache: Redis, token: str, is_sorted: int, *words: int) -> Any:
    return run(cache, FILL, ["index", "lock"], token, 60_000, is_sorted, *words)


def test_only_who_holds_the_lock_puts_an_index_in_place(cache: Redis) -> None:
    cache.sadd("index", 7)
    for lock in (None, "theirs"):
        if lock:
            cache.set("lock", lock)
        assert fill(cache, "ours", 0, 0, 1) == 0
        assert cache.smembers("index") == {"7"}
    cache.set("lock", "ours")
    assert fill(cache, "ours", 0, 0, 1, 2) == 1
    assert cache.smembers("index") == {"0", "1", "2"}, "the old one is gone"
    assert 0 < cache.pttl("index") <= 60_000
    assert not cache.exists("lock")


def test_an_index_of_thousands_is_put_in_place_whole(cache: Redis) -> None:
    cache.set("lock", "ours")
    words = [word for member in range(1, 5_001) for word in (member * 10, member)]
    assert fill(cache, "ours", 1, -1, 0, *words) == 1
    assert cache.zcard("index") == 5_001
    assert cache.zscore("index", 5_000) == 50_000


def test_a_page_by_score_and_none_of_what_is_not_there(cache: Redis) -> None:
    page = ["index"]
    assert run(cache, PAGE, page, "+inf", 0, 10, 1) is None
    cache.zadd("index", {"0": -1})
    assert run(cache, PAGE, page, "+inf", 0, 10, 1) == []
    cache.zadd("index", {"4": 40, "5": 50, "6": 50, "7": 1_732_908_000_000})
    assert run(cache, PAGE, page, "+inf", 0, 1, 1) == ["7", "1732908000000"]
    assert run(cache, PAGE, page, 50, 1, 9, 1) == ["5", "50", "4", "40"]
    assert run(cache, PAGE, page, "+inf", 0, 2, 0) == ["4", "40", "5", "50"]


def test_who_is_in_every_set_and_none_where_one_is_not_there(cache: Redis) -> None:
    cache.sadd("a", 0, 1, 2, 3)
    assert run(cache, COMMON, ["a", "b"]) is None
    cache.sadd("b", 0, 2, 3, 4)
    assert sorted(run(cache, COMMON, ["a", "b"])) == ["0", "2", "3"]
    assert run(cache, COMMON, ["a"], 3, 4) == ["3"]
    assert run(cache, COMMON, ["a", "b"], 1, 2) == ["2"]


def test_a_push_reaches_what_is_there_and_ends_what_is_being_read(cache: Redis) -> None:
    cache.zadd("a", {"0": -1, "1": 10, "2": 20})
    cache.set("la", "reads")
    cache.set("lb", "reads")
    assert run(cache, PUSH, ["a", "la", "b", "lb"], 30, 3, 2) == 1
    assert cache.zrange("a", 0, -1) == ["0", "2", "3"]
    assert not cache.exists("b", "la", "lb")
