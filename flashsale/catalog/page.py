"""The storefront's JSON: a row as clients see it, and pages of such rows.

A row has camelCase names, no nulls, and times as UTC. A page is put together from entries of the
cache, none of them decoded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import orjson
from pydantic.alias_generators import to_camel
from sqlalchemy import ColumnElement, Row

from flashsale.cache.entry import Cached, Source

Record = dict[str, Any]
Shape = Mapping[str, Any]
"""A JSON schema."""

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


_SHAPES: dict[type, Shape] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
}


def shape_of(
    columns: Iterable[ColumnElement[Any]],
    joined: Iterable[ColumnElement[Any]] = (),
    **more: Shape,
) -> Shape:
    """The shape of the `record` of such a row, whose `joined` columns come from an outer join, with
    `more` fields that are sometimes there."""
    always, sometimes = tuple(columns), tuple(joined)
    properties = {
        camel(str(column.key)): _SHAPES[column.type.python_type] for column in (*always, *sometimes)
    }
    absent = [column for column in always if getattr(column, "nullable", False)]
    optional = [camel(str(column.key)) for column in (*absent, *sometimes)]
    return closed({**properties, **more}, *optional, *more)


def closed(properties: Mapping[str, Shape], *optional: str) -> Shape:
    """The shape of an object with these properties and no other; all are there but `optional`."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


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
