"""Order ids, unique whatever the clock, the counter and the callers do; and the ledger's clock."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsale.errors import Unavailable
from flashsale.model import ID_MAX
from flashsale.seckill.ids import COUNTER_MAX, EPOCH_S, Instant, LedgerClock, OrderIds

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("ahead_s", [-90_000.0, 0.0, 3.25])
async def test_follows_redis_not_this_machine(ahead_s: float) -> None:
    async def read() -> tuple[int, int]:
        seconds, fraction = divmod(time.time() + ahead_s, 1)
        return int(seconds), int(fraction * 1e6)

    clock = LedgerClock(read)
    await clock.sync()
    assert clock.now_s() - time.time() == pytest.approx(ahead_s, abs=0.5)
    assert clock.now_ms() == pytest.approx(clock.now_s() * 1000, abs=500)


async def test_a_failed_reading_keeps_the_last_offset() -> None:
    answers = [(int(time.time()) + 1000, 0)]

    async def read() -> tuple[int, int]:
        if not answers:
            raise Unavailable("away")
        return answers.pop()

    clock = LedgerClock(read)
    await clock.sync()
    with pytest.raises(Unavailable):
        await clock.sync()
    assert clock.now_s() - time.time() == pytest.approx(1000, abs=2)


@pytest.mark.parametrize("step_s", [-3_600.0, 3_600.0])
async def test_a_local_clock_that_is_set_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    real = time.time

    async def read() -> tuple[int, int]:
        return int(real()), 0

    clock = LedgerClock(read)
    await clock.sync()
    before = clock.now_s()
    monkeypatch.setattr(time, "time", lambda: real() + step_s)
    assert clock.now_s() == pytest.approx(before, abs=1)
    assert clock.now_ms() == pytest.approx(before * 1000, abs=1000)


DAY_S = 86_400
NOON_S = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp())


class Counters:
    """The ledger's counters, by day."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.leases: list[tuple[str, int]] = []
        self.broken: Exception | None = None

    async def lease(self, day: str, size: int, permit: str = "") -> int:
        await asyncio.sleep(0)
        if self.broken:
            raise self.broken
        self.leases.append((day, size))
        self.values[day] = self.values.get(day, 0) + size
        return self.values[day]


class Clock:
    def __init__(self, unix_s: float = NOON_S) -> None:
        self.unix_s = unix_s

    def __call__(self) -> float:
        return self.unix_s


def parts(order_id: str) -> tuple[int, int]:
    """Unix second and counter of an id."""
    return (int(order_id) >> 32) + EPOCH_S, int(order_id) & COUNTER_MAX


async def test_layout_is_the_familys() -> None:
    ids = await OrderIds(Counters().lease, Clock(), block=10).take(3)
    assert [parts(order_id) for order_id in ids] == [(NOON_S, 1), (NOON_S, 2), (NOON_S, 3)]
    assert ids[0] == str(((NOON_S - EPOCH_S) << 32) | 1)


def test_epoch_and_day() -> None:
    assert datetime(2022, 1, 1, tzinfo=UTC).timestamp() == EPOCH_S
    assert Instant(NOON_S).day == "2026:11:23"
    assert Instant(NOON_S // DAY_S * DAY_S - 1).day == "2026:11:22"


async def test_a_block_costs_one_round_trip() -> None:
    counters = Counters()
    ids = OrderIds(counters.lease, Clock(), block=4)
    taken = [*await ids.take(1), *await ids.take(3)]
    assert counters.leases == [("2026:11:23", 4)]
    taken += await ids.take(1)
    assert len(counters.leases) == 2
    assert [parts(order_id)[1] for order_id in taken] == [1, 2, 3, 4, 5]


async def test_a_batch_larger_than_what_is_left_spans_blocks() -> None:
    counters = Counters()
    ids = OrderIds(counters.lease, Clock(), block=4)
    await ids.take(3)
    counters.values["2026:11:23"] += 100  # another replica
    numbers = [parts(order_id)[1] for order_id in await ids.take(6)]
    assert numbers == [4, 105, 106, 107, 108, 109]


async def test_a_new_day_drops_the_block() -> None:
    counters, clock = Counters(), Clock()
    ids = OrderIds(counters.lease, clock, block=10)
    await ids.take(1)
    clock.unix_s += DAY_S
    second, number = parts((await ids.take(1))[0])
    assert (second, number) == (NOON_S + DAY_S, 1)
    assert [day for day, _ in counters.leases] == ["2026:11:23", "2026:11:24"]


async def test_a_clock_set_back_a_day_drops_the_block_and_doubles_nothing() -> None:
    counters, clock = Counters(), Clock()
    ids = OrderIds(counters.lease, clock, block=10)
    taken = []
    for step in (0, DAY_S, 0, DAY_S):
        clock.unix_s = NOON_S + step
        taken += await ids.take(2)
    assert len(set(taken)) == 8
    assert counters.values == {"2026:11:23": 20, "2026:11:24": 20}


async def test_a_clock_set_back_within_the_day_doubles_nothing() -> None:
    clock = Clock()
    ids = OrderIds(Counters().lease, clock, block=10)
    first = await ids.take(1)
    clock.unix_s -= 5
    assert first != await ids.take(1)


async def test_a_day_that_ends_during_the_lease_stays_the_ids_day() -> None:
    clock = Clock(NOON_S // DAY_S * DAY_S + DAY_S - 1)
    counters = Counters()

    async def slow(day: str, size: int, permit: str) -> int:
        clock.unix_s += 2
        return await counters.lease(day, size)

    ids = OrderIds(slow, clock, block=10)
    before = (await ids.take(1))[0]
    assert datetime.fromtimestamp(parts(before)[0], UTC).strftime("%Y:%m:%d") == "2026:11:23"
    after = (await ids.take(1))[0]
    assert parts(after)[1] == 1, "the next take belongs to the next day's counter"
    assert counters.values == {"2026:11:23": 10, "2026:11:24": 10}


async def test_a_spent_counter_is_unavailable_and_hands_out_nothing() -> None:
    counters = Counters()
    counters.values["2026:11:23"] = COUNTER_MAX - 3
    ids = OrderIds(counters.lease, Clock(), block=3)
    numbers = [parts(order_id)[1] for order_id in await ids.take(3)]
    assert numbers[-1] == COUNTER_MAX
    for _ in range(2):
        with pytest.raises(Unavailable):
            await ids.take(1)


async def test_a_failed_lease_is_raised_and_the_next_take_leases_again() -> None:
    counters = Counters()
    ids = OrderIds(counters.lease, Clock(), block=5)
    counters.broken = Unavailable("away")
    with pytest.raises(Unavailable):
        await ids.take(2)
    counters.broken = None
    assert [parts(order_id)[1] for order_id in await ids.take(2)] == [1, 2]


@pytest.mark.parametrize("unix_s", [0, EPOCH_S - 1, EPOCH_S + 2**31, 2**40])
async def test_a_clock_beyond_the_layout_is_unavailable(unix_s: int) -> None:
    """An id outside of 1 … 2^63−1 could never become a row: better no sale than a lost order."""
    with pytest.raises(Unavailable):
        await OrderIds(Counters().lease, Clock(unix_s), block=5).take(1)


async def test_the_last_second_of_the_layout_still_fits() -> None:
    last_s = EPOCH_S + 2**31 - 1
    counters = Counters()
    counters.values[Instant(last_s).day] = COUNTER_MAX - 1
    (order_id,) = await OrderIds(counters.lease, Clock(last_s), block=1).take(1)
    assert int(order_id) == ID_MAX


async def test_concurrent_takes_share_nothing() -> None:
    ids = OrderIds(Counters().lease, Clock(), block=7)
    taken = await asyncio.gather(*(ids.take(size) for size in (1, 5, 20, 3, 7, 7)))
    flat = [order_id for part in taken for order_id in part]
    assert len(set(flat)) == len(flat) == 43


async def test_midnight_between_two_leases_mixes_no_counters() -> None:
    """Yesterday's block arrives after today's: its numbers must not go out as today's."""
    counters, clock = Counters(), Clock()
    slow = asyncio.Event()
    handed_out: dict[str, set[int]] = {}

    async def lease(day: str, size: int, permit: str) -> int:
        last = await counters.lease(day, size)
        handed_out.setdefault(day, set()).update(range(last - size + 1, last + 1))
        if day == "2026:11:23":
            await slow.wait()
        return last

    counters.values["2026:11:23"] = 1000
    ids = OrderIds(lease, clock, block=10)
    before = asyncio.ensure_future(ids.take(1))
    await asyncio.sleep(0.001)
    clock.unix_s += DAY_S
    after = asyncio.ensure_future(ids.take(1))
    await asyncio.sleep(0.001)
    slow.set()
    taken = [*await before, *await after, *await ids.take(5)]
    for order_id in taken:
        second, number = parts(order_id)
        assert number in handed_out[Instant(second).day]


async def test_a_caller_cancelled_during_the_lease_breaks_nobodys_ids() -> None:
    counters = Counters()
    ids = OrderIds(counters.lease, Clock(), block=4)
    first = asyncio.ensure_future(ids.take(2))
    second = asyncio.ensure_future(ids.take(2))
    await asyncio.sleep(0)
    first.cancel()
    assert len(await asyncio.wait_for(second, 1)) == 2


Step = tuple[int, int, bool]


@given(
    steps=st.lists(
        st.tuples(
            st.integers(-2 * DAY_S, 2 * DAY_S) | st.just(0), st.integers(0, 12), st.booleans()
        ),
        max_size=25,
    ),
    block=st.integers(1, 6),
)
@settings(max_examples=80)
async def test_two_replicas_never_hand_out_an_id_twice(steps: list[Step], block: int) -> None:
    """Any walk of the clock, any sizes, failing leases: unique, valid, of their second."""
    counters, clock = Counters(), Clock()
    replicas = [OrderIds(counters.lease, clock, block=block) for _ in range(2)]
    seen: set[str] = set()
    for turn, (step, count, fails) in enumerate(steps):
        clock.unix_s += step
        counters.broken = Unavailable("away") if fails else None
        try:
            taken = await replicas[turn % 2].take(count)
        except Unavailable:
            assert fails
            continue
        assert len(taken) == count
        assert not seen & set(taken)
        seen |= set(taken)
        for order_id in taken:
            assert 1 <= int(order_id) <= ID_MAX
            assert parts(order_id)[0] == clock.unix_s
