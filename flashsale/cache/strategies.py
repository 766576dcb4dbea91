"""One kind of cached thing, read by one of three strategies.

1. Mutex: a miss is loaded once; everybody else waits for that load.
2. Logical expiry: a warmed entry never goes; an expired one is answered while it is rebuilt.
   What was not warmed is read as under mutex.
3. Pass-through: the Bloom filter first; a miss is loaded without waiting for anybody.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any, Generic, TypeVar

import structlog

from flashsale import keys
from flashsale.cache.bloom import Bloom, Id
from flashsale.cache.calls import CacheCalls, Want
from flashsale.cache.entry import (
    ANY_ENTRY,
    NO_ENTRY,
    NULL,
    Cached,
    Entry,
    Flight,
    Flights,
    Landed,
    Limit,
    Loader,
    Loading,
    Source,
    new_token,
    now_ms,
    unpack,
)
from flashsale.errors import Indeterminate, Unavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_WARM_TRIES = 3
_WARM_AT_ONCE = 32


class Strategy(StrEnum):
    """How a kind of thing is read."""

    MUTEX = "mutex"
    LOGICAL = "logical"
    PASS_THROUGH = "pass_through"  # noqa: S105 - a strategy, not a password


class Warmed(Enum):
    """What became of one try at writing an entry."""

    WRITTEN = auto()
    OVERTAKEN = auto()  # by an update, while it loaded
    ANOTHERS = auto()  # somebody else is loading it
    NOTHING_THERE = auto()


@dataclass(frozen=True)
class EntryKind:
    """A kind of cached thing: its name in the keys, how it is read, how long it lives."""

    name: str
    strategy: Strategy
    ttl_s: float
    bloom: Bloom | None = None

    def __post_init__(self) -> None:
        if self.strategy is Strategy.PASS_THROUGH and self.bloom is None:
            raise ValueError(f"{self.name}: pass-through needs a Bloom filter")


class Entries(Generic[T]):
    """Reads and updates of one kind. Made by `CacheClient.entries`."""

    def __init__(
        self,
        calls: CacheCalls,
        limit: Limit,
        kind: EntryKind,
        load: Callable[[Any], Awaitable[T | None]],
    ) -> None:
        self.kind = kind.name
        self.strategy = kind.strategy
        self._calls = calls
        self._settings = calls.settings
        self._limit = limit
        self._ttl_s = kind.ttl_s
        self._bloom = kind.bloom
        self._flights = Flights()
        self._rebuilding: set[str] = set()
        self.loading = Loading(calls.ask, calls.settings, load)
        self.outcomes: Counter[Source] = Counter()
        self.rebuild_failures = 0

    def __repr__(self) -> str:
        return f"<Entries {self.kind} {self.strategy} {self.loading!r} {dict(self.outcomes)}>"

    async def read(self, entry_id: Id) -> Cached[T]:
        """The thing, and how the answer came about.

        No answer but a `stale` one is older than an update whose delete was done before this
        call. Raises Unavailable where neither the cache nor the loader could answer, and what
        the loader raises.
        """
        key = keys.cache_entry(self.kind, entry_id)
        try:
            found = (
                None
                if key in self._calls.owed
                else await self._calls.find(Want(key, entry_id, self._bloom))
            )
        except Unavailable:
            found = None
        if found.__class__ is bytes:
            entry = unpack(found)
            if entry is not None:
                return self._cached(entry, entry_id, key)
        elif found == 0:
            return self._answer(None, Source.BLOOM)
        landed, is_ours = await self._flights.fresh(key, lambda f: self._fly(f, entry_id, key))
        source = landed.source
        if source is Source.STALE:
            self._rebuild_soon(entry_id, key)
        elif not is_ours:
            source = Source.WAIT
        return self._answer(landed.body, source)

    async def update(self, ids: Iterable[Id], work: Callable[[], Awaitable[R]]) -> R:
        """What `work` returns, run to its end even if the caller is cancelled; then drop `ids`.

        They are dropped also where it raises, since an Indeterminate COMMIT may have happened.
        Raises Unavailable before it begins where the cache is owed too much.
        """
        dropped = list(ids)
        self._calls.owed.check_room(len(dropped))
        return await asyncio.shield(self._calls.start(self._update(dropped, work)))

    async def invalidate(self, *ids: Id) -> bool:
        """Drop entries, after the COMMIT; False where the cache is away and the delete is owed.

        Under logical expiry they are marked expired instead.
        """
        return await self._calls.owed.drop([self._keys(entry_id) for entry_id in ids])

    async def warm(self, ids: Iterable[Id]) -> int:
        """Load and write entries under logical expiry; how many were written.

        Safe beside readers and updates. An id that does not exist, or whose updates never let a
        load finish, is left out. Raises Unavailable, and what the loader raises.
        """
        if self.strategy is not Strategy.LOGICAL:
            raise ValueError(f"{self.kind}: only logical expiry is warmed")
        written, waiting = 0, list(ids)
        for start in range(0, len(waiting), _WARM_AT_ONCE):
            chunk = waiting[start : start + _WARM_AT_ONCE]
            written += sum(await asyncio.gather(*(self._warm_one(each) for each in chunk)))
        return written

    @property
    def is_loading(self) -> bool:
        """True while a load is under way."""
        return self._flights.are_open

    async def land(self) -> None:
        """Wait for every load under way."""
        await self._flights.land()

    def _cached(self, entry: Entry, entry_id: Id, key: str) -> Cached[T]:
        if entry.expires_ms and entry.expires_ms <= now_ms():
            self._rebuild_soon(entry_id, key)
            return self._answer(entry.body, Source.STALE)
        return self._answer(entry.body, Source.HIT)

    def _answer(self, body: bytes | None, source: Source) -> Cached[T]:
        if body == NULL:
            body = None
            if source is not Source.LOAD:
                source = Source.NULL
        self.outcomes[source] += 1
        return Cached(source, body)

    async def _fly(self, flight: Flight, entry_id: Id, key: str) -> Landed:
        """One load, unless somebody else's fills the entry while we wait for it.

        The turn comes before the lock: whoever holds the lock loads at once, and whoever waits
        for a turn finds at the end of the queue what another process has loaded meanwhile.
        """
        give_up_s = None
        while True:
            async with self._limit.turn():
                if key in self._calls.owed:
                    return await self._load_alone(flight, entry_id)
                waited = give_up_s is not None
                landed = await self._taken(flight, entry_id, key, waited)
                if landed is not None:
                    return landed
                give_up_s = give_up_s or self._now_s() + self._settings.wait_ms / 1000
                if self.strategy is Strategy.PASS_THROUGH or self._now_s() >= give_up_s:
                    return await self._load_alone(flight, entry_id)
            await asyncio.sleep(self._settings.retry_ms / 1000)

    async def _taken(self, flight: Flight, entry_id: Id, key: str, waited: bool) -> Landed | None:
        """The entry, found or loaded; None while another process loads it."""
        pair, token = (key, keys.cache_lock(self.kind, entry_id)), new_token()
        as_of = flight.begin()
        try:
            taken = await self.loading.take(pair, token, ANY_ENTRY)
        except Unavailable:
            return await self._load_alone(flight, entry_id)
        except Indeterminate:  # the lock may be ours: no longer than we can help it
            await self.loading.release(pair, token)
            return await self._load_alone(flight, entry_id)
        if isinstance(taken, Entry):
            return Landed(taken.body, self._source(taken, waited), as_of)
        if taken is Loader.OURS:
            return await self._load_and_fill(flight, entry_id, pair, token)
        return None

    async def _load_alone(self, flight: Flight, entry_id: Id) -> Landed:
        """A load that fills nothing."""
        as_of = flight.begin()
        return Landed(await self.loading.load(entry_id), Source.LOAD, as_of)

    async def _load_and_fill(
        self, flight: Flight, entry_id: Id, pair: tuple[str, str], token: str
    ) -> Landed:
        loaded_as_of = flight.begin()
        body = await self.loading.load_or_release(entry_id, pair, token)
        filled_as_of = flight.begin()
        filled = await self.loading.fill(pair, token, body, self._ttl_s, logical=False)
        # Filled: no update came between claim and fill, so it is as fresh as the fill.
        return Landed(body, Source.LOAD, filled_as_of if filled else loaded_as_of)

    def _rebuild_soon(self, entry_id: Id, key: str) -> None:
        if key in self._rebuilding or len(self._rebuilding) >= self._settings.rebuilds_max:
            return
        self._rebuilding.add(key)
        task = self._calls.start(self._rebuild(entry_id, key))
        task.add_done_callback(lambda _: self._rebuilding.discard(key))

    async def _rebuild(self, entry_id: Id, key: str) -> None:
        """Replace an expired entry. While this runs, nobody of this process begins another."""
        pair, token = (key, keys.cache_lock(self.kind, entry_id)), new_token()
        try:
            async with self._limit.turn():
                taken = await self.loading.take(pair, token, now_ms())
                if taken is Loader.OURS:
                    body = await self.loading.load_or_release(entry_id, pair, token)
                    await self.loading.fill(pair, token, body, self._ttl_s, logical=True)
            if taken is Loader.ANOTHERS:
                await asyncio.sleep(self._settings.retry_ms / 1000)
        except (Unavailable, Indeterminate):
            await self._rest()
        except Exception:
            log.exception("an entry could not be rebuilt", kind=self.kind, id=entry_id)
            await self._rest()

    async def _rest(self) -> None:
        self.rebuild_failures += 1
        await asyncio.sleep(self._settings.rebuild_pause_ms / 1000)

    async def _warm_one(self, entry_id: Id) -> bool:
        give_up_s = self._now_s() + self._settings.wait_ms / 1000
        tries = 0
        while tries < _WARM_TRIES and self._now_s() < give_up_s:
            async with self._limit.turn():
                warmed = await self._warmed(entry_id)
            if warmed is Warmed.NOTHING_THERE:
                return False
            if warmed is Warmed.WRITTEN:
                return True
            tries += warmed is Warmed.OVERTAKEN
            if warmed is Warmed.ANOTHERS:
                await asyncio.sleep(self._settings.retry_ms / 1000)
        return False

    async def _warmed(self, entry_id: Id) -> Warmed:
        """One try at loading an entry and writing it, whatever is there."""
        pair, token = self._keys(entry_id), new_token()
        if await self.loading.take(pair, token, NO_ENTRY) is not Loader.OURS:
            return Warmed.ANOTHERS
        body = await self.loading.load_or_release(entry_id, pair, token)
        if body == NULL:
            await self.loading.release(pair, token)
            return Warmed.NOTHING_THERE
        filled = await self.loading.fill(pair, token, body, self._ttl_s, logical=True)
        return Warmed.WRITTEN if filled else Warmed.OVERTAKEN

    async def _update(self, ids: list[Id], work: Callable[[], Awaitable[R]]) -> R:
        try:
            return await work()
        finally:
            await self.invalidate(*ids)

    def _keys(self, entry_id: Id) -> tuple[str, str]:
        return keys.cache_entry(self.kind, entry_id), keys.cache_lock(self.kind, entry_id)

    @staticmethod
    def _source(entry: Entry, waited: bool) -> Source:
        if entry.expires_ms and entry.expires_ms <= now_ms():
            return Source.STALE
        return Source.WAIT if waited else Source.HIT

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
