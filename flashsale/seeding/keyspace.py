"""Keys of ours in a Redis that may hold others': found by name, and deleted in batches."""

from collections.abc import Callable
from itertools import islice

from redis import Redis

_SCAN_COUNT = 2_000
_UNLINK_KEYS = 1_000


def unlink(redis: Redis, is_ours: Callable[[str], bool]) -> int:
    """Delete the keys whose name `is_ours`; how many they were. May raise RedisError."""
    found = filter(is_ours, redis.scan_iter(count=_SCAN_COUNT))
    deleted = 0
    while batch := list(islice(found, _UNLINK_KEYS)):
        deleted += len(batch)
        redis.unlink(*batch)
    return deleted
