"""Time passing for the cache: entries that are gone, or logically expired, at one stroke."""

import time
from collections.abc import Iterable

from redis import Redis

from flashsale import keys
from flashsale.cache.entry import pack, unpack
from flashsale.catalog.warming import LOCK
from flashsale.errors import UnreachableError

_AT_ONCE = 1_000
_LONG_AGO_MS = 1
_WARMED_WITHIN_S, _POLL_S = 60.0, 0.05


def await_warmed(cache: Redis) -> None:
    """Wait until no replica warms the cache; after `warm` has marked it, none begins.

    A replica that finds a cache without its marker warms it by itself, perhaps while `warm` does.
    Raises UnreachableError where that takes too long.
    """
    until_s = time.monotonic() + _WARMED_WITHIN_S
    while cache.exists(keys.lock(LOCK)):
        if time.monotonic() > until_s:
            raise UnreachableError(f"a replica warms the cache for over {_WARMED_WITHIN_S:g} s")
        time.sleep(_POLL_S)


def drop_shops(cache: Redis, shops: Iterable[int]) -> int:
    """Remove the entries of these shops, as the end of their lifetime does; how many there were."""
    found = 0
    for names in _batches(shops):
        found += int(cache.unlink(*names))
    return found


def expire_shops(cache: Redis, shops: Iterable[int]) -> int:
    """Make the warmed entries of these shops logically expired; how many there are."""
    expired = 0
    for names in _batches(shops):
        for name, raw in zip(names, cache.mget(names), strict=True):
            entry = unpack(raw if isinstance(raw, bytes) else None)
            if entry is not None and entry.expires_ms:
                cache.set(name, pack(entry.body, _LONG_AGO_MS))
                expired += 1
    return expired


def _batches(shops: Iterable[int]) -> Iterable[list[str]]:
    names = [keys.cache_entry("shop", shop) for shop in shops]
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))
