"""The calls of one process to the cache Redis, and what happens while it is away.

Reads that arrive while a call is in flight leave together as one MGET. After one failure the
breaker keeps everybody from waiting for the cache: reads go to their loaders. A delete that the
cache was not told of is owed to it: the update is committed by then, so there is no way back.
Until its delete is done this process reads the thing from the database; other processes may
answer the older entry for as long as it lives, or until the cache has lost it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple, TypeVar

import structlog

from flashsale.cache.bloom import Bloom, Id
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, script
from flashsale.settings import CacheSettings
from flashsale.storage.channel import Channel, Lost, Plain
from flashsale.storage.gate import Bounds, Gate, GateFull

log = structlog.get_logger(__name__)

T = TypeVar("T")

_CONNECTIONS = 2  # for scripts
_AWAY = "the cache is away"
_DROP = script("cache_drop")
_PAIRS_MAX = 200

Pair = tuple[str, str]
"""The keys of an entry and of its lock."""


class Want(NamedTuple):
    """One entry to be read, behind its filter where it has one."""

    key: str
    entry_id: Id
    bloom: Bloom | None


class EntryReader:
    """Reads entries over one channel; a key that many want is read once."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def send(self, wants: Sequence[Want]) -> Sequence[Any]:
        """Per want the entry, or what `bloom_read.lua` says, None, or trouble as a value.

        Most reads are hits, and a hit needs no filter: neither its hashes nor a script.
        """
        by_key = {want.key: want for want in wants}
        (entries,) = await self._channel.run([Plain(("MGET", *by_key))])
        if isinstance(entries, (Unavailable, Indeterminate)):
            return [entries] * len(wants)
        found = dict(zip(by_key, entries, strict=True))
        missed = [
            by_key[key] for key, entry in found.items() if entry is None and by_key[key].bloom
        ]
        if missed:
            found.update(await self._filtered(missed))
        return [found[want.key] for want in wants]

    async def _filtered(self, missed: Iterable[Want]) -> dict[str, Any]:
        """By key: the entry that came meanwhile, else what its filter says of the id."""
        by_bloom: dict[Bloom, dict[str, Id]] = {}
        for key, entry_id, bloom in missed:
            assert bloom is not None
            by_bloom.setdefault(bloom, {})[key] = entry_id
        calls: list[Call | Plain] = [
            bloom.read_call(list(ids), list(ids.values())) for bloom, ids in by_bloom.items()
        ]
        found: dict[str, Any] = {}
        replies = await self._channel.run(calls)
        for ids, reply in zip(by_bloom.values(), replies, strict=True):
            if isinstance(reply, (Unavailable, Indeterminate)):
                found.update(dict.fromkeys(ids, reply))
            else:
                found.update(zip(ids, reply, strict=True))
        return found


class Breaker:
    """Open while the cache is away. Readers never probe: a task does, at once and then often."""

    def __init__(self, probe: Callable[[], Awaitable[object]], *, interval_s: float) -> None:
        self._probe = probe
        self._interval_s = interval_s
        self._probing: asyncio.Task[None] | None = None
        self._closed = False
        self.is_open = False
        self.opened = 0

    def __repr__(self) -> str:
        return f"<Breaker {'open' if self.is_open else 'closed'} opened={self.opened}>"

    def trip(self) -> None:
        """Open it, and begin to probe."""
        if self.is_open:
            return
        self.is_open = True
        self.opened += 1
        if not self._closed:
            self._probing = asyncio.get_running_loop().create_task(self._probe_until_found())

    def check(self) -> None:
        """Raises what ended the probing, where that was not that the cache is back: nobody would
        ever close this breaker again."""
        if self.is_open and self._probing is not None and self._probing.done():
            self._probing.result()

    async def aclose(self) -> None:
        """Stop probing, for good."""
        self._closed = True
        if self._probing is not None:
            self._probing.cancel()
            with suppress(asyncio.CancelledError):
                await self._probing

    async def _probe_until_found(self) -> None:
        while True:
            try:
                await self._probe()
            except (Unavailable, Indeterminate):
                await asyncio.sleep(self._interval_s)
            else:
                self.is_open = False
                return


class Owed:
    """Drops entries; what could not be dropped is owed."""

    def __init__(self, ask: Callable[[Call], Awaitable[Any]], *, most: int) -> None:
        self._ask = ask
        self._most = most
        self._debts: dict[str, tuple[str, int]] = {}
        self._ages = count()

    def __repr__(self) -> str:
        return f"<Owed {len(self._debts)}>"

    def __len__(self) -> int:
        return len(self._debts)

    def __contains__(self, entry_key: str) -> bool:
        return entry_key in self._debts

    def check_room(self, more: int) -> None:
        """Raise Unavailable where `more` debts could not be remembered; ask before an update."""
        if len(self._debts) + more > self._most:
            raise Unavailable("too many deletes are owed to the cache")

    async def drop(self, pairs: Sequence[Pair]) -> bool:
        """Drop entries and their locks; False where that is owed now. Never raises for Redis."""
        done = True
        for start in range(0, len(pairs), _PAIRS_MAX):
            part = pairs[start : start + _PAIRS_MAX]
            if not await self._drop(part):
                done = False
        return done

    async def pay(self) -> bool:
        """Try everything that is owed; False where the cache is still away."""
        return await self.drop([(entry, lock) for entry, (lock, _) in self._debts.items()])

    async def _drop(self, part: Sequence[Pair]) -> bool:
        before = {entry: self._debts.get(entry) for entry, _ in part}
        try:
            await self._ask(Call(_DROP, [key for pair in part for key in pair], ()))
        except (Unavailable, Indeterminate):
            self._owe(part)
            return False
        except BaseException:  # cancelled: it may not have been sent
            self._owe(part)
            raise
        for entry, debt in before.items():
            if debt is not None and self._debts.get(entry) == debt:  # no younger update owes it
                del self._debts[entry]
        return True

    def _owe(self, part: Sequence[Pair]) -> None:
        for entry, lock in part:
            self._debts[entry] = (lock, next(self._ages))


class CacheCalls:
    """What one process asks of the cache. Made outside of a loop, used inside of one."""

    def __init__(self, cache_url: str, settings: CacheSettings) -> None:
        timeout_s = settings.timeout_ms / 1000
        self.settings = settings
        self._reading = Channel(
            cache_url, connections_max=settings.calls_max, timeout_s=timeout_s, text=False
        )
        self._calling = Channel(
            cache_url, connections_max=_CONNECTIONS, timeout_s=timeout_s, text=False
        )
        self._probing = Channel(cache_url, connections_max=1, timeout_s=timeout_s, text=False)
        lookup = EntryReader(self._reading)
        self.reads: Gate[Want, Any] = Gate(
            self._guarded(lookup.send),
            Bounds(settings.batch_max, settings.calls_max, settings.queue_max),
        )
        self.scripts: Gate[Call, Any] = Gate(
            self._guarded(self._calling.run),
            Bounds(settings.batch_max, _CONNECTIONS, settings.queue_max),
        )
        self.breaker = Breaker(
            lambda: self._probing.ask("PING"), interval_s=settings.probe_ms / 1000
        )
        self.owed = Owed(self.ask, most=settings.owed_max)
        self._background: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<CacheCalls {self.breaker!r} {self.owed!r} {self.reads!r}>"

    @property
    def channels(self) -> dict[str, Channel]:
        """Its connections, by what they are for."""
        return {"cache_read": self._reading, "cache_call": self._calling}

    def find(self, want: Want) -> asyncio.Future[Any]:
        """Queue a read. The future brings the entry as bytes, 0 where the filter knows that
        there is none, something else where there is no entry; or raises Unavailable, as this does.
        """
        if self.breaker.is_open:
            raise Unavailable(_AWAY)
        try:
            return self.reads.enter(want)
        except GateFull as error:
            raise Unavailable("too many reads wait for the cache") from error

    async def ask(self, call: Call) -> Any:
        """The reply to one script. Raises Unavailable or Indeterminate."""
        if self.breaker.is_open:
            raise Unavailable(_AWAY)
        try:
            reply = await self.scripts.enter(call)
        except GateFull as error:
            raise Unavailable("too many calls wait for the cache") from error
        if isinstance(reply, (Unavailable, Indeterminate)):
            raise reply
        return reply

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` to its end, whoever is cancelled meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    @property
    def is_busy(self) -> bool:
        """True while anything is under way: a call, or work that was started."""
        gates = (self.reads, self.scripts)
        return bool(self._background) or any(gate.waiting or gate.in_flight for gate in gates)

    async def drain(self) -> None:
        """Wait for what was started, and for every call."""
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.reads.drain()
        await self.scripts.drain()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.breaker.aclose()
        for channel in (self._reading, self._calling, self._probing):
            await channel.aclose()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, should its caller be gone

    def _guarded(
        self, send: Callable[[Any], Awaitable[Sequence[Any]]]
    ) -> Callable[[list[Any]], Awaitable[Sequence[Any]]]:
        """`send`, refusing while the breaker is open, and opening it when a call is lost."""

        async def guarded(items: list[Any]) -> Sequence[Any]:
            if self.breaker.is_open:
                raise Unavailable(_AWAY)  # queued before it opened
            try:
                replies = await send(items)
            except Unavailable:
                self._trip()
                raise
            if any(isinstance(reply, Lost) for reply in replies):
                self._trip()
            return replies

        return guarded

    def _trip(self) -> None:
        if not self.breaker.is_open:
            log.warning("the cache does not answer; reads go to the database")
        self.breaker.trip()
