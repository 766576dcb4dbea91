"""The storefront's JSON: a row as clients see it, and pages of such rows.

A row has camelCase names, no nulls, and times as UTC. A page is put together from entries of the
cache, none of them decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson
from pydantic.alias_generators import to_camel
from sqlalchemy import Row

from flashsale.cache.entry import Cached, Source

Record = dict[str, Any]

NUMBER_MAX = 100
"""The last page that can be asked for: what lies before it has to be read, too."""

_SLOWEST_FIRST = (Source.LOAD, Source.WAIT, Source.STALE, Source.NULL, Source.BLOOM, Source.HIT)

camel = lru_cache(maxsize=256)(to_camel)


def record(row: Row[*tuple[Any, ...]]) -> Record:
    """The columns of `row` that hold something."""
    return {
        camel(str(name)): _shown(value) for name, value in row._mapping.items() if value is not None
    }


def _shown(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    precision = "milliseconds" if value.microsecond else "seconds"
    return f"{value.isoformat(timespec=precision)}Z"


@dataclass(frozen=True, slots=True)
class Page:
    """A JSON array, and the slowest way by which any part of it came."""

    body: bytes
    source: Source


def slowest(sources: Sequence[Source]) -> Source:
    """The one that a client had to wait for. Pure; a hit where there is none."""
    return min(sources, key=_SLOWEST_FIRST.index, default=Source.HIT)


def assemble(bodies: Sequence[bytes], sources: Sequence[Source]) -> Page:
    """A page of JSON objects."""
    return Page(b"[" + b",".join(bodies) + b"]", slowest(sources))


def bodies(answers: Sequence[Cached[Any]]) -> list[bytes]:
    """What the cache answered, without what does not exist."""
    return [answer.body for answer in answers if answer.body is not None]


def extended(body: bytes, **fields: object) -> bytes:
    """The JSON object `body`, which is not empty, with more fields at its end."""
    return body[:-1] + b"," + orjson.dumps(fields)[1:]
