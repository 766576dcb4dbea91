"""The format of an entry; who may share a load, who came too late for it, how many load at once."""

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.cache.entry import (
    NULL,
    Cached,
    Entry,
    Flight,
    Flights,
    Landed,
    Limit,
    Source,
    pack,
    unpack,
)
from flashsale.errors import Unavailable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@given(JSON, st.integers(0, 10**15))
def test_pack_and_unpack(value: object, expires_ms: int) -> None:
    raw = pack(orjson.dumps(value), expires_ms)
    assert orjson.loads(raw) == {"expireTime": expires_ms, "data": value}
    assert unpack(raw) == Entry(expires_ms, orjson.dumps(value))


@given(st.binary(max_size=60))
def test_a_strangers_bytes_never_raise(raw: bytes) -> None:
    assert unpack(raw) is None or raw.startswith(b'{"expireTime":')


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"}",
        b'{"expireTime":0,"data":1',
        b'{"expireTime":-1,"data":1}',
        b'{"expireTime":,"data":1}',
        b'{"expireTime":1.5,"data":1}',
        b'{"data":1,"expireTime":0}',
        b'{"expireTime":12345678901234567890,"data":1}',
    ],
)
def test_not_an_entry(raw: bytes | None) -> None:
    assert unpack(raw) is None


def test_data_may_hold_what_looks_like_a_head() -> None:
    body = orjson.dumps({"expireTime": 5, "data": ',"data":'})
    assert unpack(pack(body, 7)) == Entry(7, body)


def test_an_answer_decodes_when_asked() -> None:
    assert Cached(Source.HIT, b'{"a":1}').value == {"a": 1}
    assert Cached(Source.NULL, None).value is None
    assert orjson.dumps(None) == NULL


def test_sources_are_the_headers_values() -> None:
    assert [source.value for source in Source] == [
        "hit",
        "stale",
        "load",
        "wait",
        "null",
        "bloom",
    ]


pytestmark = pytest.mark.anyio


class Database:
    """Loads that end when told to."""

    def __init__(self) -> None:
        self.version = 1
        self.loads = 0
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.filled = False

    async def fly(self, flight: Flight) -> Landed:
        as_of = flight.begin()
        self.loads += 1
        version = self.version
        self.began.set()
        await self.go_on.wait()
        if self.filled:
            as_of = flight.begin()
        return Landed(b"%d" % version, Source.LOAD, as_of)


async def reader(flights: Flights, database: Database) -> tuple[bytes, bool]:
    landed, is_ours = await flights.fresh("k", database.fly)
    return landed.body, is_ours


async def test_who_came_before_the_load_began_shares_it() -> None:
    flights, database = Flights(), Database()
    readers = [asyncio.create_task(reader(flights, database)) for _ in range(10)]
    database.go_on.set()
    assert await asyncio.gather(*readers) == [(b"1", True)] + [(b"1", False)] * 9
    assert database.loads == 1
    assert not flights.are_open


async def test_who_came_later_shares_the_next() -> None:
    flights, database = Flights(), Database()
    early = asyncio.create_task(reader(flights, database))
    await database.began.wait()
    database.version = 2  # an update, done before the others come
    late = [asyncio.create_task(reader(flights, database)) for _ in range(10)]
    await asyncio.sleep(0)
    database.go_on.set()
    assert (await early)[0] == b"1"
    assert {body for body, _ in await asyncio.gather(*late)} == {b"2"}
    assert database.loads == 2


async def test_a_fill_vouches_for_those_who_came_before_it() -> None:
    flights, database = Flights(), Database()
    database.filled = True
    early = asyncio.create_task(reader(flights, database))
    await database.began.wait()
    late = asyncio.create_task(reader(flights, database))
    await asyncio.sleep(0)
    database.go_on.set()
    assert await asyncio.gather(early, late) == [(b"1", True), (b"1", False)]
    assert database.loads == 1


async def test_a_flight_survives_its_readers() -> None:
    flights, database = Flights(), Database()
    gone = asyncio.create_task(reader(flights, database))
    await database.began.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert flights.are_open
    database.go_on.set()
    await flights.land()
    assert not flights.are_open


async def test_trouble_reaches_every_reader_and_ends_with_the_flight() -> None:
    flights = Flights()

    async def fail(flight: Flight) -> Landed:
        flight.begin()
        await asyncio.sleep(0)
        raise OSError("no database")

    ended = await asyncio.gather(
        *(flights.fresh("k", fail) for _ in range(3)), return_exceptions=True
    )
    assert [str(each) for each in ended] == ["no database"] * 3
    database = Database()
    database.go_on.set()
    assert await reader(flights, database) == (b"1", True)


async def test_trouble_that_nobody_waits_for_is_quiet() -> None:
    flights, database = Flights(), Database()

    async def fail(flight: Flight) -> Landed:
        flight.begin()
        await database.go_on.wait()
        raise OSError("no database")

    gone = asyncio.create_task(flights.fresh("k", fail))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    database.go_on.set()
    await flights.land()  # a warning would be an error here


async def test_so_many_at_a_time_in_order() -> None:
    limit = Limit(2, waiting_max=10, wait_s=5)
    running, most, order = 0, 0, []

    async def work(i: int) -> None:
        nonlocal running, most
        async with limit.turn():
            running += 1
            most = max(most, running)
            order.append(i)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(work(i) for i in range(10)))
    assert (most, order) == (2, list(range(10)))
    assert (limit.running, limit.waiting, limit.refused) == (0, 0, 0)


async def test_one_more_than_may_wait_is_refused_at_once() -> None:
    limit = Limit(1, waiting_max=1, wait_s=5)
    async with limit.turn():
        waits = asyncio.create_task(limit.turn().__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many"):
            async with limit.turn():
                pass
    await waits
    assert (limit.running, limit.refused) == (1, 1)


async def test_nobody_waits_longer_than_that() -> None:
    limit = Limit(1, waiting_max=1, wait_s=0.005)
    async with limit.turn():
        with pytest.raises(Unavailable, match="in time"):
            async with limit.turn():
                pass
    async with limit.turn():
        assert limit.waiting == 0


async def test_a_turn_ends_with_trouble_and_with_cancellation() -> None:
    limit = Limit(1, waiting_max=5, wait_s=5)
    with pytest.raises(OSError, match="trouble"):
        async with limit.turn():
            raise OSError("trouble")
    async with limit.turn():
        gone = asyncio.create_task(limit.turn().__aenter__())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    async with limit.turn():
        assert (limit.running, limit.waiting) == (1, 0)
