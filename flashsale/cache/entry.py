"""A cached thing: its one format, the answer that a read gives, and how it is loaded: in turn, once
a process, and under a token.

An entry is `{"expireTime":0,"data":…}`, valid JSON in exactly this order, so that its parts can
be cut out without parsing. expireTime is Unix milliseconds under logical expiry, and 0 where the
key's own lifetime counts. `"data":null` says that there is no such thing.

1. The limit bounds how many loads the database is asked for at once.
2. A flight is one load of a key in this process, shared by whoever may share it: a reader may take
   a value only if the operation that produced it began after the reader came. Else an update could
   have been committed, and its delete done, between the two, and the reader would see older data.
   So a flight counts its operations, and each reader remembers the count.
3. The token tells this load from every other in all processes: take, load, fill. An update deletes
   the lock after its COMMIT, so a load that began before it finds its token gone and cannot fill:
   older data never comes back.
"""

import asyncio
import random
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from flashsale.cache.bloom import Id
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, script
from flashsale.settings import CacheSettings
from flashsale.telemetry import LATENCY_S, Buckets

T = TypeVar("T")

NULL = b"null"

_ENTRY = re.compile(rb'\{"expireTime":(\d{1,16}),"data":(.*)\}', re.DOTALL)


class Source(StrEnum):
    """How an answer came about: the values of the `x-cache` header."""

    HIT = "hit"
    STALE = "stale"  # logically expired; a rebuild runs behind the answer
    LOAD = "load"  # this reader's own load
    WAIT = "wait"  # somebody else's load
    NULL = "null"  # remembered as absent
    BLOOM = "bloom"  # the filter knows that there is none

    __hash__ = str.__hash__  # Enum's own is written in Python, and each read is counted by this


class Entry(NamedTuple):
    """A cached thing. `expires_ms` is 0 where the key's own lifetime counts."""

    expires_ms: int
    body: bytes


def pack(body: bytes, expires_ms: int = 0) -> bytes:
    """The entry for `body`, JSON as encoded."""
    return b'{"expireTime":%d,"data":%b}' % (expires_ms, body)


def unpack(raw: bytes | None) -> Entry | None:
    """The parts of an entry, None where there is none or where it is not one of ours."""
    match = _ENTRY.fullmatch(raw) if raw is not None else None
    return Entry(int(match[1]), match[2]) if match else None


@dataclass(slots=True, eq=False)
class Cached(Generic[T]):
    """What a read gives: the JSON as it was encoded, None where there is no such thing."""

    source: Source
    body: bytes | None

    @property
    def value(self) -> T | None:
        """The thing itself, decoded at each use."""
        return None if self.body is None else orjson.loads(self.body)


# Loading ------------------------------------------------------------------------------------------

_TAKE = script("cache_take")
_FILL = script("cache_fill")
_RELEASE = script("lock_release")

ANY_ENTRY = 0
NO_ENTRY = -1


class Limit:
    """What stands between a cache that is away and the database behind it."""

    def __init__(self, at_once: int, *, waiting_max: int, wait_s: float) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._waiting_max = waiting_max
        self._wait_s = wait_s
        self.waiting = 0
        self.running = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<Limit running={self.running} waiting={self.waiting} refused={self.refused}>"

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One turn. Raises Unavailable where too many wait, or ours has waited too long."""
        await self._await_turn()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._turns.release()

    async def _await_turn(self) -> None:
        if self._turns.locked() and self.waiting >= self._waiting_max:
            self.refused += 1
            raise Unavailable("too many loads wait for the database")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError:
            self.refused += 1
            raise Unavailable("no load was free to begin in time") from None
        finally:
            self.waiting -= 1


@dataclass(frozen=True, slots=True)
class Landed:
    """What a flight brought: `body` as encoded, and the operation that it is as fresh as."""

    body: bytes
    source: Source
    as_of: int


@dataclass(slots=True, eq=False)
class Flight:
    """One load under way."""

    landed: asyncio.Future[Landed]
    operations: int = 0

    def begin(self) -> int:
        """Count one more operation; call it right before sending or loading."""
        self.operations += 1
        return self.operations


Fly = Callable[[Flight], Awaitable[Landed]]


class Flights:
    """The flights of one kind of thing, by key. They survive the cancellation of every reader."""

    def __init__(self) -> None:
        self._open: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Flights open={len(self._tasks)}>"

    @property
    def are_open(self) -> bool:
        """True while one is under way."""
        return bool(self._tasks)

    async def fresh(self, key: str, fly: Fly) -> tuple[Landed, bool]:
        """A value no older than this call, and whether it came of a flight that we began.

        Raises what `fly` raises.
        """
        flight, is_ours = self._join(key, fly)
        joined_at = flight.operations
        landed = await asyncio.shield(flight.landed)
        if joined_at >= landed.as_of:
            # Too old for us. Whatever flies now began after that one had landed, and so after we
            # came: at most two flights for anybody.
            flight, is_ours = self._join(key, fly)
            landed = await asyncio.shield(flight.landed)
        return landed, is_ours

    async def land(self) -> None:
        """Wait for every flight under way; their trouble is their readers'."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _join(self, key: str, fly: Fly) -> tuple[Flight, bool]:
        flight = self._open.get(key)
        if flight is not None:
            return flight, False
        flight = self._open[key] = self._start(key, fly)
        return flight, True

    def _start(self, key: str, fly: Fly) -> Flight:
        loop = asyncio.get_running_loop()
        flight = Flight(loop.create_future())
        task = loop.create_task(self._run(key, flight, fly))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight

    async def _run(self, key: str, flight: Flight, fly: Fly) -> None:
        landed = flight.landed
        try:
            result = await fly(flight)
        except asyncio.CancelledError:
            self._close(key, flight)
            landed.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the loader's own, raised to every reader
            self._close(key, flight)
            landed.set_exception(error)
            landed.exception()  # looked at, should no reader be left
        else:
            self._close(key, flight)
            landed.set_result(result)

    def _close(self, key: str, flight: Flight) -> None:
        """Before the result is out: whoever comes now would be too late for it."""
        assert self._open.pop(key) is flight


class Loader(Enum):
    """Who is to load."""

    OURS = auto()
    ANOTHERS = auto()


def new_token() -> str:
    """A token that nobody else has."""
    return secrets.token_hex(8)


def now_ms() -> int:
    """Unix time, for logical expiry."""
    return time.time_ns() // 1_000_000


class Loading(Generic[T]):
    """How one kind of thing is loaded. Counts what came of it."""

    def __init__(
        self,
        ask: Callable[[Call], Awaitable[Any]],
        settings: CacheSettings,
        load: Callable[[Any], Awaitable[T | None]],
    ) -> None:
        self._ask = ask
        self._settings = settings
        self._load = load
        self.durations_s = Buckets(LATENCY_S)  # of loads, failed ones too
        self.loads = 0
        self.failures = 0
        self.fills = 0
        self.refused_fills = 0

    def __repr__(self) -> str:
        return f"<Loading loads={self.loads} failures={self.failures} fills={self.fills}>"

    async def take(self, keys: tuple[str, str], token: str, fresh_after_ms: int) -> Entry | Loader:
        """The fresh entry, else who is to load. Raises Unavailable or Indeterminate."""
        reply = await self._ask(Call(_TAKE, keys, (token, self._settings.lease_ms, fresh_after_ms)))
        if isinstance(reply, bytes):
            return unpack(reply) or Loader.ANOTHERS
        return Loader.OURS if reply == 1 else Loader.ANOTHERS

    async def load(self, entry_id: Id) -> bytes:
        """The thing as JSON, NULL where there is none; to be called in one's turn.

        Raises Unavailable where the answer takes too long, and what the loader raises.
        """
        self.loads += 1
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.load_timeout_ms / 1000):
                value = await self._load(entry_id)
        except TimeoutError:
            self.failures += 1
            raise Unavailable("the database took too long") from None
        except BaseException:
            self.failures += 1
            raise
        finally:
            self.durations_s.add(time.perf_counter() - began_s)
        return NULL if value is None else orjson.dumps(value)

    async def load_or_release(self, entry_id: Id, keys: tuple[str, str], token: str) -> bytes:
        """`load`, giving the lock back where it fails."""
        try:
            return await self.load(entry_id)
        except BaseException:
            await self.release(keys, token)
            raise

    async def fill(
        self, keys: tuple[str, str], token: str, body: bytes, ttl_s: float, *, logical: bool
    ) -> bool:
        """Put `body` there; False where it must not be, or it is not known whether it is."""
        is_null = body == NULL
        life_ms = self._jittered_ms(self._settings.null_ttl_s if is_null else ttl_s)
        entry, ttl_ms = pack(body), life_ms
        if logical and not is_null:  # "there is none" is never hot: it has a lifetime
            entry, ttl_ms = pack(body, now_ms() + life_ms), 0
        try:
            filled: bool = await self._ask(Call(_FILL, keys, (token, entry, ttl_ms))) == 1
        except (Unavailable, Indeterminate):
            filled = False
            await self.release(keys, token)
        if filled:
            self.fills += 1
        else:
            self.refused_fills += 1
        return filled

    async def release(self, keys: tuple[str, str], token: str) -> None:
        """Give the lock back, where the cache answers; else its lease ends."""
        try:
            await self._ask(Call(_RELEASE, keys[1:], (token,)))
        except (Unavailable, Indeterminate):
            return

    def _jittered_ms(self, ttl_s: float) -> int:
        share = self._settings.jitter
        return max(1, round(ttl_s * 1000 * random.uniform(1 - share, 1 + share)))
