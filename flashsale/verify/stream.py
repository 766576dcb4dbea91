"""Reading a Redis stream and its consumer group, page by page and between two entries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from flashsale import keys

BEGINNING = "0-0"
NOW = "+"
"""As far as the stream goes."""
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Group:
    """The workers' consumer group. `read` is None where Redis has lost count."""

    last_delivered: str
    read: int | None
    lag: int | None


def position(entry: str) -> tuple[int, int]:
    """An entry id as numbers that compare."""
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq or 0)


def entry_id(text: str) -> str:
    """`text`, if it names an entry. Raises ValueError."""
    position(text)
    return text


def is_past(entry: str, until: str) -> bool:
    """True for an entry that was added after `until`."""
    return until != NOW and position(entry) > position(until)


def read_info(ledger: Redis, stream: str) -> Mapping[str, Any] | None:
    """XINFO STREAM, None where there is no such stream."""
    try:
        info: Any = ledger.xinfo_stream(stream)
    except ResponseError as error:
        if "no such key" in str(error):
            return None
        raise
    return dict(info)


def last_entry(info: Mapping[str, Any] | None) -> str:
    """The id of the newest entry that ever was in a stream."""
    return bytes(info["last-generated-id"]).decode() if info else BEGINNING


def read_group(ledger: Redis) -> Group | None:
    """The workers' group of the stream of orders."""
    groups: Any = ledger.xinfo_groups(keys.STREAM_ORDERS)
    for group in groups:
        if group["name"] == keys.GROUP.encode():
            delivered = group["last-delivered-id"].decode()
            return Group(delivered, group.get("entries-read"), group.get("lag"))
    return None


def page(ledger: Redis, stream: str, after: str, until: str, count: int = _PAGE) -> list[Any]:
    """The first entries after `after` up to `until`: (id, fields) of each."""
    if until != NOW and position(after) >= position(until):
        return []
    found: Any = ledger.xrange(stream, min=f"({after}", max=until, count=count)
    return list(found)


def pages(ledger: Redis, stream: str, after: str, until: str = NOW) -> Iterator[list[Any]]:
    """All of them, a thousand at a time."""
    while found := page(ledger, stream, after, until):
        yield found
        after = found[-1][0].decode()


def count(ledger: Redis, after: str, until: str = NOW) -> int:
    """How many orders are in the stream between the two."""
    return sum(len(found) for found in pages(ledger, keys.STREAM_ORDERS, after, until))


def read_pending(ledger: Redis, since: str, until: str = NOW) -> list[Any]:
    """What workers were given and have not acknowledged, between the two, as XPENDING tells it."""
    every: list[Any] = []
    while until == NOW or position(since) < position(until):
        found: Any = ledger.xpending_range(
            keys.STREAM_ORDERS, keys.GROUP, min=f"({since}", max=until, count=_PAGE
        )
        every += found
        if len(found) < _PAGE:
            break
        since = found[-1]["message_id"].decode()
    return every
