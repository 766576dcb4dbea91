"""Redis clients by role, the one way to call a synchronous one, and their driver's errors as ours.

The ledger's clients never retry by themselves: a retry could sell twice.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ParamSpec, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
    WatchError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from flashsale import keys
from flashsale.errors import Indeterminate, Unavailable
from flashsale.keys import WHOLE, Lane, Layout
from flashsale.lua.scripts import REFUSED, Call, Word
from flashsale.primaries import DRIVER, Topology, client_url, follow, told_of, topology
from flashsale.settings import ClaimSettings
from flashsale.store_urls import LaneClient, lane_of, layout_of, of_node, read_redis_url

P = ParamSpec("P")
T = TypeVar("T")

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
_NOT_EXECUTED = (
    NoScriptError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    AuthenticationError,
    ClusterDownError,
    MasterDownError,
    AskError,  # MovedError among it: the slot is not, or not wholly, at this node
    TryAgainError,
)
_DEMOTED = (ReadOnlyError, AuthenticationError, MasterDownError, MovedError)

RECYCLE_S = 300.0
"""A connection older than this is made anew: behind one name another server may have taken over,
which a connection that only reads would never be told."""


def is_demoted(error: RedisError) -> bool:
    """Whether the server at the other end is not, or no more, the one to be spoken to.

    The connection has to end then: behind the same name there may be another server by now.
    """
    return isinstance(error, _DEMOTED)


@cache
def _ending(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """`kind` of connection, but made anew before its next command once it is old or the server
    at its end was found to be demoted."""

    class Ending(kind):  # type: ignore[valid-type,misc]  # one of redis-py's three
        _until_s = math.inf

        def connect_check_health(self, *args: Any, **words: Any) -> None:
            is_new = not self._sock
            super().connect_check_health(*args, **words)
            if is_new:
                self._until_s = time.monotonic() + RECYCLE_S

        def read_response(self, *args: Any, **words: Any) -> Any:
            try:
                return super().read_response(*args, **words)
            except RedisError as error:
                if is_demoted(error):
                    self._until_s = 0.0
                raise

        def send_packed_command(self, *args: Any, **words: Any) -> None:
            if time.monotonic() > self._until_s:
                self._until_s = math.inf  # while it is made anew
                self.disconnect()
            super().send_packed_command(*args, **words)

    return Ending


def _led(kind: type[AbstractConnection], lane: Lane, masters: Topology) -> type[AbstractConnection]:
    """`kind` of connection, but each time it is made it leads to the master of `lane`."""

    class Led(_ending(kind)):  # type: ignore[misc]  # as above
        def connect_check_health(self, *args: Any, **words: Any) -> None:
            if not self._sock:
                self.host, self.port = masters.place(lane)
            try:
                super().connect_check_health(*args, **words)
            except (RedisConnectionError, RedisTimeoutError, OSError):
                masters.doubt()
                raise

        def read_response(self, *args: Any, **words: Any) -> Any:
            try:
                return super().read_response(*args, **words)
            except (RedisConnectionError, *_DEMOTED):
                masters.doubt()
                raise

    return Led


class Ledgers:
    """A synchronous client for each lane of one ledger, whichever its layout."""

    def __init__(self, clients: "Sequence[redis.Redis]", layout: Layout) -> None:
        self.clients = tuple(clients)
        self.layout = layout

    def __repr__(self) -> str:
        return f"<Ledgers of {len(self.clients)}>"

    @classmethod
    def at(cls, url: str, *, timeout_s: float = CALL_TIMEOUT_S) -> "Ledgers":
        """Those of the ledger at `url`. Raises UsageError."""
        layout = layout_of(url)
        clients = [sync_client(url, lane=lane, timeout_s=timeout_s) for lane in layout.lanes]
        return cls(clients, layout)

    @property
    def home(self) -> "redis.Redis":
        """The client of the home lane."""
        return self.clients[0]

    def of(self, voucher_id: int) -> "redis.Redis":
        """The client of the lane that has a voucher's sale."""
        return self.clients[voucher_id % len(self.clients)]

    def of_order(self, order_id: int) -> "redis.Redis":
        """The client of the lane whose counter an order id is of (seckill/ids.py)."""
        return self.clients[(order_id & 0xFFFF_FFFF) % len(self.clients)]

    def close(self) -> None:
        """Close all connections."""
        for client in self.clients:
            client.close()


def ledgers(of: "redis.Redis | Ledgers") -> Ledgers:
    """The same ledger as one of lanes: a client of a single server is the only one."""
    return of if isinstance(of, Ledgers) else Ledgers([of], Layout((lane_of(of),)))


def sync_client(
    url: str, *, lane: Lane = WHOLE, timeout_s: float = CALL_TIMEOUT_S
) -> "redis.Redis":
    """A blocking client, text replies, no retry. A blocking XREADGROUP needs its own, longer one.
    On a cluster it is of one lane, which has to be named.

    No reply can fail to be text: somebody may have written anything where we read.

    Behind Sentinels each connection leads to who is the primary then.

    Raises UsageError for a URL that is not one of a Redis, or of a cluster where no lane is named.
    """
    masters = topology(url) if lane is not WHOLE else None
    if masters is None:
        place = read_redis_url(url)
        client = redis.Redis.from_url(client_url(place, url), **_blocking(timeout_s))
        follow(client.connection_pool, place)
        pool = client.connection_pool
        pool.connection_class = _ending(pool.connection_class)
        return client
    led = LaneClient.from_url(of_node(url), **_blocking(timeout_s))
    assert isinstance(led, LaneClient)
    led.lane = lane
    pool = led.connection_pool
    pool.connection_class = _led(pool.connection_class, lane, masters)
    return led


def _blocking(timeout_s: float) -> dict[str, Any]:
    return {
        "protocol": 2,
        "decode_responses": True,
        "encoding_errors": "surrogateescape",  # bytes that are no text come, and go back, as are
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": timeout_s,
        **DRIVER,
    }


def async_client(
    url: str, *, timeout_s: float = CALL_TIMEOUT_S, connections_max: int = 16
) -> "redis.asyncio.Redis":
    """An asyncio client with a bounded pool, text replies, no retry. Raises UsageError."""
    place = read_redis_url(url)
    client = redis.asyncio.Redis.from_url(
        client_url(place, url),
        protocol=2,
        decode_responses=True,
        retry=AsyncRetry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=timeout_s,
        max_connections=connections_max,
        **DRIVER,
    )
    follow(client.connection_pool, place)
    return client


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How many replicas must have what a connection has written, or seen, before it counts; and
    with `on_disk` have it on their disks. What is not confirmed within the time may be lost."""

    replicas: int
    timeout_ms: int
    on_disk: bool = False
    mark: str = keys.PROBE

    @classmethod
    def wanted(cls, settings: ClaimSettings) -> "Confirmation | None":
        """What the settings ask for; None where no replica is asked."""
        if not settings.confirm_replicas:
            return None
        return cls(settings.confirm_replicas, settings.confirm_timeout_ms, settings.confirm_on_disk)

    def on(self, lane: Lane) -> "Confirmation":
        """The same of one lane, with a mark that is the lane's own. Pure."""
        return replace(self, mark=lane.probe)

    @property
    def commands(self) -> tuple[tuple[Word, ...], ...]:
        """What asks them: a mark is written, then waited for, with all that the server wrote before
        it. From 7.2 on a server waits for what the connection itself has written, so that one which
        only read would be confirmed what others had written a moment before."""
        mark: tuple[Word, ...] = ("SET", self.mark, "", "PX", 1)
        if self.on_disk:
            return mark, ("WAITAOF", 1, self.replicas, self.timeout_ms)
        return mark, ("WAIT", self.replicas, self.timeout_ms)

    def holds(self, replies: Sequence[Any]) -> bool:
        """Whether the replies to `commands` say that enough of them have it. Pure."""
        marked, reply = replies
        if marked not in (True, "OK", b"OK"):
            return False
        if self.on_disk:
            return isinstance(reply, list) and reply[0] >= 1 and int(reply[1]) >= self.replicas
        return isinstance(reply, int) and reply >= self.replicas

    def told(self, replies: Sequence[Any]) -> str:
        """What was missing, for a reader. Pure."""
        for reply in replies:
            if isinstance(reply, Exception):
                return f"no replica was asked: {reply}"
        where, how = ("on their disks ", "WAITAOF") if self.on_disk else ("", "WAIT")
        return (
            f"fewer than {self.replicas} replicas had it {where}within {self.timeout_ms} ms "
            f"({how} answered {replies[-1]})"
        )


class Rejected(Unavailable):
    """The server answered a plain command with an error: it was not executed."""


class NoGroup(Rejected):
    """The stream or its consumer group is gone."""


class GroupExists(Rejected):
    """There is such a consumer group already."""


_REJECTIONS = {"NOGROUP": NoGroup, "BUSYGROUP": GroupExists}


def call(command: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a plain `command` of a synchronous client returns; the one way to call it.

    Raises Rejected, another Unavailable, or Indeterminate.
    """
    try:
        return command(*args, **kwargs)
    except RedisError as error:
        raise _plain_trouble(error) from error


def call_all(pipeline: Pipeline) -> list[Any]:
    """The replies to the plain commands of `pipeline`. Raises the first trouble, as `call` does."""
    replies = call(pipeline.execute, raise_on_error=False)
    for reply in replies:
        if isinstance(reply, RedisError):
            raise _plain_trouble(reply) from reply
    return replies


def call_each(pipeline: Pipeline) -> list[Any]:
    """The replies to the plain commands of `pipeline`, a Rejected in the place of each that the
    server answered with an error. Raises other trouble as `call` does."""
    replies = call(pipeline.execute, raise_on_error=False)
    found = [_plain_trouble(reply) if isinstance(reply, RedisError) else reply for reply in replies]
    for reply in found:
        if isinstance(reply, Indeterminate) or (
            isinstance(reply, Unavailable) and not isinstance(reply, Rejected)
        ):
            raise reply
    return found


def evaluate(client: "redis.Redis", script: Call) -> Any:
    """The reply to a script. Raises Unavailable or Indeterminate."""
    count, words = len(script.keys), (*script.keys, *script.args)
    try:
        try:
            return client.evalsha(script.script.sha, count, *words)
        except NoScriptError:
            return client.eval(script.script.text, count, *words)
    except RedisError as error:
        raise trouble(error) from error


def evaluate_each(
    client: "redis.Redis", scripts: Sequence[Call], confirmation: Confirmation | None = None
) -> list[Any]:
    """The replies to scripts that leave together, trouble with one as a value in its place; what is
    to be confirmed, and is not, is Indeterminate.

    Raises Unavailable or Indeterminate where all of them are in the same trouble.
    """
    pipeline = client.pipeline(transaction=False)
    for each in scripts:
        pipeline.eval(each.script.text, len(each.keys), *each.keys, *each.args)
    for command in confirmation.commands if confirmation else ():
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    replies = call(pipeline.execute, raise_on_error=False)
    told, asked = replies[: len(scripts)], replies[len(scripts) :]
    found = [trouble(reply) if isinstance(reply, RedisError) else reply for reply in told]
    if confirmation is None or confirmation.holds(asked):
        return found
    open_ = Indeterminate(confirmation.told(asked))
    return [reply if isinstance(reply, Unavailable) else open_ for reply in found]


def trouble(error: RedisError) -> Unavailable | Indeterminate:
    """Which kind of trouble a failed call is, for a call that had been sent.

    Errors that Redis answers before it executes are Unavailable; everything else that was sent,
    a lost connection and a time-out among it, is Indeterminate. To a demoted server nothing was
    done: it refuses every write.
    """
    text = str(error)
    refused = isinstance(error, _NOT_EXECUTED) or (
        isinstance(error, ResponseError) and text.startswith(_REFUSED_BEFORE_EXECUTION)
    )
    kind = Unavailable if refused else Indeterminate
    return kind(f"Redis: {told_of(error) or type(error).__name__}")


def _plain_trouble(error: RedisError) -> Unavailable | Indeterminate:
    """`trouble`, but an error that is a plain command's own says that it was not executed, and so
    does the end of a transaction whose watched keys have changed."""
    found = trouble(error)
    if isinstance(error, WatchError):
        return Rejected(str(found))
    if isinstance(error, ResponseError) and isinstance(found, Indeterminate):
        return _REJECTIONS.get(str(error).partition(" ")[0], Rejected)(str(found))
    return found
