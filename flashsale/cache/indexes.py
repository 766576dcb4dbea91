"""Sets and sorted sets in the cache, each of which MySQL can make again.

An index that is not there is read from MySQL and put in place, never taken for empty: nobody, the
member 0, is in each of them. Whoever changes what it was read from drops it after the COMMIT,
together with the lock of who is just reading it, so that older data never comes back. Where the
cache is away, whoever asks does what it was asked for on what MySQL says.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from flashsale.cache.calls import CacheCalls, Pair
from flashsale.cache.entry import Limit, Source, new_token
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import Call, Script, Word, script

R = TypeVar("R")

_TAKE = script("cache_take")
_FILL = script("index_fill")
_RELEASE = script("lock_release")
_PUSH = script("index_push")
_NOBODY = 0
_BELOW_ALL = -1
_WHATEVER_IS_THERE = -1
_TRIES = 20
_RETRY_S = 0.05
_PUSHED_AT_ONCE = 250


class Member(NamedTuple):
    """Who is in an index. Scores of a set mean nothing."""

    id: int
    score: int = 0


Load = Callable[[int], Awaitable[Sequence[Member]]]


class Indexes:
    """The indexes of one kind, one an id. Made by `CacheClient.index`; their calls raise what
    `load` raises."""

    def __init__(
        self,
        calls: CacheCalls,
        limit: Limit,
        keys_of: Callable[[int], Pair],
        load: Load,
        *,
        is_sorted: bool,
        ttl_s: float,
    ) -> None:
        self._calls = calls
        self._limit = limit
        self._keys_of = keys_of
        self._load = load
        self._is_sorted = is_sorted
        self._ttl_ms = round(ttl_s * 1000)
        self._builds: dict[int, asyncio.Task[bool]] = {}
        self.outcomes: Counter[Source] = Counter()

    def __repr__(self) -> str:
        return f"<Indexes {dict(self.outcomes)}>"

    async def ask(self, what: Script, ids: Sequence[int], *args: Word) -> Sequence[int] | None:
        """The reply of a script to the indexes of `ids`, without nobody; None where the cache
        cannot say, and MySQL has to be asked by `load`."""
        pairs = [self._keys_of(each) for each in ids]
        if any(index in self._calls.owed for index, _ in pairs):
            return None
        call, source = Call(what, [index for index, _ in pairs], args), Source.HIT
        try:
            for _ in range(_TRIES):
                reply = await self._calls.ask(call)
                if reply is not None:
                    self.outcomes[source] += 1
                    return [number for word in reply if (number := int(word)) != _NOBODY]
                source = Source.WAIT
                if not all([await self._built(each) for each in ids]):
                    await asyncio.sleep(_RETRY_S)  # another is at it, or it was overtaken
        except (Unavailable, Indeterminate):
            pass
        return None

    async def load(self, index_id: int) -> Sequence[Member]:
        """What MySQL says, in a turn of those that all loads share."""
        async with self._limit.turn():
            self.outcomes[Source.LOAD] += 1
            return await self._load(index_id)

    async def update(self, ids: Sequence[int], work: Callable[[], Awaitable[R]]) -> R:
        """What `work` returns, run to its end even if the caller is cancelled; then drop `ids`.

        Raises Unavailable before it begins where the cache is owed too much.
        """
        self._calls.owed.check_room(len(ids))
        return await asyncio.shield(self._calls.start(self._update(ids, work)))

    async def push(self, ids: Sequence[int], member: Member, *, keep: int) -> None:
        """Add `member` to those of the indexes that are there, and keep the newest of each."""
        for start in range(0, len(ids), _PUSHED_AT_ONCE):
            pairs = [self._keys_of(each) for each in ids[start : start + _PUSHED_AT_ONCE]]
            names = [name for pair in pairs for name in pair]
            try:
                await self._calls.ask(Call(_PUSH, names, (member.score, member.id, keep)))
            except (Unavailable, Indeterminate):
                await self._calls.owed.drop(pairs)

    async def _update(self, ids: Sequence[int], work: Callable[[], Awaitable[R]]) -> R:
        try:
            return await work()
        finally:  # also where the COMMIT's answer was lost
            await self._calls.owed.drop([self._keys_of(each) for each in ids])

    async def _built(self, index_id: int) -> bool:
        """One build a process and index at a time; who comes later waits for the same."""
        task = self._builds.get(index_id)
        if task is None:
            task = self._calls.start(self._build(index_id))
            self._builds[index_id] = task
            task.add_done_callback(lambda _: self._builds.pop(index_id, None))
        return await asyncio.shield(task)

    async def _build(self, index_id: int) -> bool:
        names, token = self._keys_of(index_id), new_token()
        take = Call(_TAKE, names, (token, self._calls.settings.lease_ms, _WHATEVER_IS_THERE))
        if await self._calls.ask(take) != 1:
            return False
        try:
            members = await self.load(index_id)
        except BaseException:
            await self._calls.ask(Call(_RELEASE, names[1:], (token,)))
            raise
        words: list[Word] = [_BELOW_ALL, _NOBODY] if self._is_sorted else [_NOBODY]
        for member in members:
            words += (member.score, member.id) if self._is_sorted else (member.id,)
        args = (token, self._ttl_ms, int(self._is_sorted), *words)
        return bool(await self._calls.ask(Call(_FILL, names, args)) == 1)
