"""Redis clients by role. The ledger's never retry by themselves: a retry could sell twice."""

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from flashsale.errors import Indeterminate, Unavailable
from flashsale.lua.scripts import REFUSED
from flashsale.store_urls import read_redis_url

CONNECT_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 5.0

_REFUSED_BEFORE_EXECUTION = (
    REFUSED,
    "NOSCRIPT",
    "LOADING",
    "OOM",
    "MISCONF",
    "READONLY",
    "NOREPLICAS",
    "BUSY ",
)
_NOT_EXECUTED = (NoScriptError, BusyLoadingError, OutOfMemoryError, ReadOnlyError)


def sync_client(url: str, *, timeout_s: float = CALL_TIMEOUT_S) -> "redis.Redis":
    """A blocking client, text replies, no retry. A blocking XREADGROUP needs its own, longer one.

    Raises UsageError for a URL that is not one of a Redis.
    """
    read_redis_url(url)
    return redis.Redis.from_url(
        url,
        protocol=2,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=timeout_s,
    )


def async_client(
    url: str, *, timeout_s: float = CALL_TIMEOUT_S, connections_max: int = 16
) -> "redis.asyncio.Redis":
    """An asyncio client with a bounded pool, text replies, no retry. Raises UsageError."""
    read_redis_url(url)
    return redis.asyncio.Redis.from_url(
        url,
        protocol=2,
        decode_responses=True,
        retry=AsyncRetry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=timeout_s,
        max_connections=connections_max,
    )


def trouble(error: RedisError) -> Unavailable | Indeterminate:
    """Which kind of trouble a failed call is, for a call that had been sent.

    Errors that Redis answers before it executes are Unavailable; everything else that was sent,
    a lost connection and a time-out among it, is Indeterminate.
    """
    text = str(error)
    refused = isinstance(error, _NOT_EXECUTED) or (
        isinstance(error, ResponseError) and text.startswith(_REFUSED_BEFORE_EXECUTION)
    )
    kind = Unavailable if refused else Indeterminate
    return kind(f"Redis: {text or type(error).__name__}")
