"""The one format of a cached thing, and the answer that a read gives.

An entry is `{"expireTime":0,"data":…}`, valid JSON in exactly this order, so that its parts can
be cut out without parsing. expireTime is Unix milliseconds under logical expiry, and 0 where the
key's own lifetime counts. `"data":null` says that there is no such thing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

NULL = b"null"

_ENTRY = re.compile(rb'\{"expireTime":(\d{1,16}),"data":(.*)\}', re.DOTALL)


class Source(StrEnum):
    """How an answer came about: the values of the `x-cache` header."""

    HIT = "hit"
    STALE = "stale"  # logically expired; a rebuild runs behind the answer
    LOAD = "load"  # this reader's own load
    WAIT = "wait"  # somebody else's load
    NULL = "null"  # remembered as absent
    BLOOM = "bloom"  # the filter knows that there is none


class Entry(NamedTuple):
    """A cached thing. `expires_ms` is 0 where the key's own lifetime counts."""

    expires_ms: int
    body: bytes


def pack(body: bytes, expires_ms: int = 0) -> bytes:
    """The entry for `body`, JSON as encoded."""
    return b'{"expireTime":%d,"data":%b}' % (expires_ms, body)


def unpack(raw: bytes | None) -> Entry | None:
    """The parts of an entry, None where there is none or where it is not one of ours."""
    match = _ENTRY.fullmatch(raw) if raw is not None else None
    return Entry(int(match[1]), match[2]) if match else None


@dataclass(slots=True, eq=False)
class Cached(Generic[T]):
    """What a read gives: the JSON as it was encoded, None where there is no such thing."""

    source: Source
    body: bytes | None
    _decode: Callable[[bytes], T]

    @property
    def value(self) -> T | None:
        """The thing itself, decoded at each use."""
        return None if self.body is None else self._decode(self.body)
