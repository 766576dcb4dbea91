"""Deletes owed to a cache that is away: remembered until they are done.

The update is committed by then, so there is no way back. Until its delete is done this process
reads the thing from the database; other processes may answer the older entry for as long as it
lives, or until the cache has lost it.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import script
from flashsale.storage.channel import Call

_DROP = script("cache_drop")
_PAIRS_MAX = 200

Pair = tuple[str, str]
"""The keys of an entry and of its lock."""


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
