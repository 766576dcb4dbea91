"""A database of versions in memory, slow on demand, and the clients that cache it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from flashsale.cache.client import CacheClient
from flashsale.cache.strategies import Entries, Strategy
from flashsale.errors import Unavailable
from flashsale.settings import BloomSettings, CacheSettings

Row = dict[str, int]


class Versions:
    """Rows by id, each a version number. A load sees what is committed when it begins."""

    def __init__(self, *ids: int) -> None:
        self.versions = dict.fromkeys(ids, 1)
        self.loads = 0
        self.at_once = 0
        self.most_at_once = 0
        self.delay_s = 0.0
        self.failure: Exception | None = None
        self.open = asyncio.Event()  # a load waits here, after it has read
        self.open.set()
        self.read = asyncio.Event()  # a load has read

    async def load(self, entry_id: int) -> Row | None:
        """The row, read at once and answered later."""
        self.loads += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            version = self.versions.get(entry_id)
            self.read.set()
            await asyncio.sleep(self.delay_s)
            await self.open.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.at_once -= 1
        return None if version is None else {"id": entry_id, "version": version}

    def write(self, entry_id: int) -> "_Write":
        """A transaction: to be given to `Entries.update`."""
        return _Write(self, entry_id)

    def hold(self) -> None:
        """Let loads read, and wait."""
        self.open.clear()
        self.read.clear()


class _Write:
    def __init__(self, shelf: Versions, entry_id: int) -> None:
        self._shelf = shelf
        self._id = entry_id

    async def __call__(self) -> int:
        """COMMIT, and the new version."""
        version = self._shelf.versions.get(self._id, 0) + 1
        self._shelf.versions[self._id] = version
        return version


@asynccontextmanager
async def client(url: str, **given: Any) -> AsyncIterator[CacheClient]:
    """A client with quick settings, closed at the end."""
    given.setdefault("timeout_ms", 5_000)  # tests share their cores
    blooms = BloomSettings.load(settle_ms=0)
    made = CacheClient(url, CacheSettings.load(**given), blooms)
    try:
        yield made
    finally:
        await made.aclose()


def kind(
    cache: CacheClient, shelf: "Loads", strategy: Strategy = Strategy.MUTEX, **given: Any
) -> Entries[Row]:
    """The kind "thing" over `shelf`."""
    bloom = cache.bloom("thing") if strategy is Strategy.PASS_THROUGH else None
    given.setdefault("bloom", bloom)
    given.setdefault("ttl_s", 60)
    return cache.entries("thing", shelf.load, strategy=strategy, **given)


async def version_of(entries: Entries[Row], entry_id: int) -> int | None:
    """What a reader sees."""
    value = (await entries.read(entry_id)).value
    return None if value is None else value["version"]


class Loads(Protocol):
    """Whatever loads a row."""

    async def load(self, entry_id: int) -> Row | None: ...


class NoDatabase(Unavailable):
    """The database is away."""
