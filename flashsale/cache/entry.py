"""The one format of a cached thing, and the answer that a read gives.

An entry is `{"expireTime":0,"data":…}`, valid JSON in exactly this order, so that its parts can
be cut out without parsing. expireTime is Unix milliseconds under logical expiry, and 0 where the
key's own lifetime counts. `"data":null` says that there is no such thing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

NULL = b"null"

_HEAD = b'{"expireTime":'
_DATA = b',"data":'
_PLAIN_HEAD = _HEAD + b"0" + _DATA
_EXPIRY_AT = len(_HEAD)
_BODY_AT = len(_PLAIN_HEAD)
_EXPIRY_DIGITS_MAX = 16


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
    return b"%b%d%b%b}" % (_HEAD, expires_ms, _DATA, body)


def unpack(raw: bytes | None) -> Entry | None:
    """The parts of an entry, None where there is none or where it is not one of ours."""
    if raw is None or not raw.endswith(b"}"):
        return None
    if raw.startswith(_PLAIN_HEAD):
        return Entry(0, raw[_BODY_AT:-1])
    end = raw.find(_DATA, _EXPIRY_AT, _EXPIRY_AT + _EXPIRY_DIGITS_MAX + len(_DATA))
    digits = raw[_EXPIRY_AT:end]
    if end < 0 or not raw.startswith(_HEAD) or not digits.isdigit():
        return None
    return Entry(int(digits), raw[end + len(_DATA) : -1])


@dataclass(slots=True, eq=False)
class Answer(Generic[T]):
    """What a read gives: the JSON as it was encoded, None where there is no such thing."""

    source: Source
    body: bytes | None
    _decode: Callable[[bytes], T]

    @property
    def value(self) -> T | None:
        """The thing itself, decoded at each use."""
        return None if self.body is None else self._decode(self.body)
