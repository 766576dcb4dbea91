"""Loading one thing under a token: claim, load, fill.

The token is the whole discipline. An update deletes the lock after its COMMIT, so a load that
began before it finds its token gone and cannot fill: older data never comes back.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from flashsale.buckets import LATENCY_S, Buckets
from flashsale.cache.bits import Id
from flashsale.cache.entry import NULL, Entry, pack, unpack
from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import script
from flashsale.settings import CacheSettings
from flashsale.storage.channel import Call

T = TypeVar("T")

_CLAIM = script("cache_claim")
_FILL = script("cache_fill")
_RELEASE = script("lock_release")

ANY_ENTRY = 0
NO_ENTRY = -1


class Claim(Enum):
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
        encode: Callable[[T], bytes],
    ) -> None:
        self._ask = ask
        self._settings = settings
        self._load = load
        self._encode = encode
        self.durations_s = Buckets(LATENCY_S)  # of loads, failed ones too
        self.loads = 0
        self.failures = 0
        self.fills = 0
        self.refused_fills = 0

    def __repr__(self) -> str:
        return f"<Loading loads={self.loads} failures={self.failures} fills={self.fills}>"

    async def claim(self, keys: tuple[str, str], token: str, fresh_after_ms: int) -> Entry | Claim:
        """The fresh entry, else who is to load. Raises Unavailable or Indeterminate."""
        reply = await self._ask(
            Call(_CLAIM, keys, (token, self._settings.lease_ms, fresh_after_ms))
        )
        if isinstance(reply, bytes):
            return unpack(reply) or Claim.ANOTHERS
        return Claim.OURS if reply == 1 else Claim.ANOTHERS

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
        return NULL if value is None else self._encode(value)

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
