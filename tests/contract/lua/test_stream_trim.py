"""stream_trim.lua: only what every group has read and acknowledged goes."""

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from flashsale.lua.scripts import script

TRIM = script("stream_trim")
STREAM = "s"


def trim(ledger: Redis, keep: int | str = 0) -> Any:
    return ledger.eval(TRIM.text, 1, STREAM, str(keep))


def fill(ledger: Redis, count: int, groups: tuple[str, ...] = ("g1",)) -> list[str]:
    for group in groups:
        ledger.xgroup_create(STREAM, group, id="0", mkstream=True)
    return [
        str(ledger.xadd(STREAM, {"n": n}, id=f"{10 + n // 3}-{n % 3 + 1}")) for n in range(count)
    ]


def left(ledger: Redis) -> list[str]:
    return [entry_id for entry_id, _ in cast("list[Any]", ledger.xrange(STREAM))]


def read(ledger: Redis, count: int, group: str = "g1") -> list[str]:
    reply = ledger.xreadgroup(group, "c1", {STREAM: ">"}, count=count)
    return [entry_id for entry_id, _ in cast("list[Any]", reply)[0][1]] if reply else []


def test_done_entries_go(ledger: Redis) -> None:
    ids = fill(ledger, 9)
    ledger.xack(STREAM, "g1", *read(ledger, 9))
    assert trim(ledger, keep=4) >= 4
    assert ids[5:] == left(ledger)[-4:]
    assert len(left(ledger)) <= 5


def test_a_pending_entry_stays_and_all_after_it(ledger: Redis) -> None:
    ids = fill(ledger, 9)
    read(ledger, 9)
    ledger.xack(STREAM, "g1", *(i for i in ids if i != ids[3]))
    assert trim(ledger) == 3
    assert left(ledger) == ids[3:]


def test_what_was_not_delivered_stays(ledger: Redis) -> None:
    ids = fill(ledger, 9)
    ledger.xack(STREAM, "g1", *read(ledger, 5))
    trim(ledger)
    assert set(ids[5:]) <= set(left(ledger))


def test_a_group_that_has_read_nothing_holds_everything(ledger: Redis) -> None:
    ids = fill(ledger, 5, ("g1", "g2"))
    ledger.xack(STREAM, "g1", *read(ledger, 5))
    assert trim(ledger) == 0
    assert left(ledger) == ids


def test_the_slowest_group_decides(ledger: Redis) -> None:
    ids = fill(ledger, 9, ("g1", "g2"))
    ledger.xack(STREAM, "g1", *read(ledger, 9))
    ledger.xack(STREAM, "g2", *read(ledger, 4, "g2"))
    trim(ledger)
    assert left(ledger) == ids[3:]


def test_another_groups_pending_entry_holds(ledger: Redis) -> None:
    ids = fill(ledger, 9, ("g1", "g2"))
    ledger.xack(STREAM, "g1", *read(ledger, 9))
    ledger.xack(STREAM, "g2", *read(ledger, 9, "g2")[2:])
    trim(ledger)
    assert left(ledger) == ids


def test_without_a_group_nobody_has_read_anything(ledger: Redis) -> None:
    ids = fill(ledger, 5, ())
    assert trim(ledger) == 0
    assert left(ledger) == ids


@pytest.mark.parametrize("keep", [5, 6, 1000])
def test_keeps_what_it_was_told_to(ledger: Redis, keep: int) -> None:
    fill(ledger, 5)
    ledger.xack(STREAM, "g1", *read(ledger, 5))
    assert trim(ledger, keep) == 0
    assert len(left(ledger)) == 5


def test_a_stream_that_is_missing_or_empty(ledger: Redis) -> None:
    assert trim(ledger) == 0
    ledger.xgroup_create(STREAM, "g1", id="0", mkstream=True)
    assert trim(ledger) == 0


def test_ids_beyond_53_bits_are_told_apart(ledger: Redis) -> None:
    """As Lua numbers, the last two of these milliseconds are one and the same."""
    ledger.xgroup_create(STREAM, "g1", id="0", mkstream=True)
    ids = [str(ledger.xadd(STREAM, {"n": n}, id=f"{2**53 + n}-1")) for n in range(5)]
    ledger.xack(STREAM, "g1", *(i for i in read(ledger, 5) if i != ids[3]))
    trim(ledger)
    assert left(ledger) == ids[3:]


def test_sequences_beyond_9_compare_as_numbers(ledger: Redis) -> None:
    ledger.xgroup_create(STREAM, "g1", id="0", mkstream=True)
    ids = [str(ledger.xadd(STREAM, {"n": n}, id=f"5-{n}")) for n in (8, 9, 10, 11)]
    ledger.xack(STREAM, "g1", *(i for i in read(ledger, 4) if i != ids[1]))
    trim(ledger)
    assert left(ledger) == ids[1:]


def test_trimming_works_when_memory_is_spent(ledger: Redis) -> None:
    """When it is needed most."""
    fill(ledger, 9)
    ledger.xack(STREAM, "g1", *read(ledger, 9))
    ledger.config_set("maxmemory", 1)
    try:
        assert trim(ledger, keep=1) >= 7
    finally:
        ledger.config_set("maxmemory", 0)


@given(
    count=st.integers(0, 12),
    groups=st.lists(
        st.tuples(st.integers(0, 12), st.sets(st.integers(0, 11))), min_size=1, max_size=3
    ),
    keep=st.integers(0, 12),
    deleted=st.sets(st.integers(0, 11), max_size=4),
)
@settings(max_examples=80)
def test_never_past_pending_or_undelivered(
    ledger: Redis,
    count: int,
    groups: list[tuple[int, set[int]]],
    keep: int,
    deleted: set[int],
) -> None:
    """Any number of groups, each having read and acknowledged what it likes, entries deleted."""
    ledger.flushall()
    names = tuple(f"g{n}" for n in range(len(groups)))
    ids = fill(ledger, count, names)
    needed: set[str] = set()
    for name, (given_out, acked) in zip(names, groups, strict=True):
        given_ids = read(ledger, given_out, name) if given_out else []
        done = [i for n, i in enumerate(given_ids) if n in acked]
        if done:
            ledger.xack(STREAM, name, *done)
        needed |= set(ids) - set(done)
    gone = {ids[n] for n in deleted if n < count}
    if gone:
        ledger.xdel(STREAM, *gone)
    before = left(ledger)
    removed = trim(ledger, keep)
    after = left(ledger)
    assert needed - gone <= set(after), "somebody still needs it"
    assert after == before[removed:], "from the old end, and the count is true"
    assert len(after) >= min(keep, len(before))
