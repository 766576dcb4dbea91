"""The storefront's JSON: what a client may send to create or change something, with strict types
and one clear complaint; and what it is shown, a row, and pages of such rows.

A row has camelCase names, no nulls, and times as UTC. A page is put together from entries of the
cache, none of them decoded.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Annotated, Any, Self, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from sqlalchemy import ColumnElement, Row

from flashsale.cache.entry import Cached, Source
from flashsale.model import ID_MAX, UNITS_MAX

NAME_LENGTH_MAX = 128

LATITUDE_MAX = 85.05112878
"""The highest latitude that Redis' geo sets hold."""

_FIRST_YEAR = 2000


class BadForm(ValueError):  # noqa: N818 - the client's mistake, not ours
    """The first thing that is wrong, naming the field."""


class Form(BaseModel):
    """Fields in camelCase, as the family has them; unknown ones are ignored, null is absent, and
    5.0 is 5, since JSON has one kind of number."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _as_json_has_it(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            return {name: _whole(value) for name, value in given.items() if value is not None}
        return given


_EXACT_MAX = 2.0**53  # beyond it, what was written may have been another number


def _whole(value: object) -> object:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_MAX
    return int(value) if is_whole else value  # type: ignore[call-overload]


F = TypeVar("F", bound=Form)


def read(kind: type[F], given: Mapping[str, Any]) -> F:
    """The form in `given`. Raises BadForm."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise BadForm(f"{field}: {message}" if field else message) from error


def _moment(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("expected a time such as 2030-01-31T10:00:00Z")
    try:
        moment = datetime.fromisoformat(value)
        utc = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("expected a time such as 2030-01-31T10:00:00Z") from None
    if utc.year < _FIRST_YEAR:
        raise ValueError(f"expected a time from the year {_FIRST_YEAR} on")
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)  # the column keeps milliseconds


Moment = Annotated[datetime, BeforeValidator(_moment)]
"""A time, UTC unless it carries an offset, to the millisecond."""

Id = Annotated[int, Field(ge=1, le=ID_MAX)]
Cents = Annotated[int, Field(ge=1, le=10**12)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
_IN_SIGHT = Field(json_schema_extra={"pattern": r"\S"})
Title = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255), _IN_SIGHT
]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH_MAX),
    _IN_SIGHT,
]
Longitude = Annotated[float, Field(ge=-180, le=180)]
Latitude = Annotated[float, Field(ge=-LATITUDE_MAX, le=LATITUDE_MAX)]
Price = Annotated[int, Field(ge=0, le=10**12)]
Score = Annotated[int, Field(ge=0, le=50)]


class NewShop(Form):
    """A shop as it is created."""

    name: Name
    type_id: Id
    x: Longitude
    y: Latitude
    images: str = Field("", max_length=1024)
    area: str | None = Field(None, max_length=128)
    address: str = Field("", max_length=255)
    avg_price: Price | None = None
    sold: Count = 0
    comments: Count = 0
    score: Score = 0
    open_hours: str | None = Field(None, max_length=32)


class ShopChange(Form):
    """What is to change about a shop; what is absent stays."""

    id: Id
    name: Name | None = None
    type_id: Id | None = None
    x: Longitude | None = None
    y: Latitude | None = None
    images: str | None = Field(None, max_length=1024)
    area: str | None = Field(None, max_length=128)
    address: str | None = Field(None, max_length=255)
    avg_price: Price | None = None
    sold: Count | None = None
    comments: Count | None = None
    score: Score | None = None
    open_hours: str | None = Field(None, max_length=32)


_PICTURES_MAX = 9
_PICTURE = r"/imgs/[A-Za-z0-9/_-]{1,100}\.(jpe?g|png|gif|webp)"
_PICTURES = rf"({_PICTURE}(,{_PICTURE}){{0,{_PICTURES_MAX - 1}}})?"


def _pictures(text: str) -> str:
    """Only our own pictures: whatever else a page would fetch for everybody who reads it."""
    if not re.fullmatch(_PICTURES, text):
        raise ValueError(
            f"expected up to {_PICTURES_MAX} pictures by comma, such as /imgs/blogs/7/name.jpg"
        )
    return text


class NewBlog(Form):
    """A blog about a shop."""

    shop_id: Id
    title: Title
    content: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    images: Annotated[
        str, AfterValidator(_pictures), Field(json_schema_extra={"pattern": f"^{_PICTURES}$"})
    ] = ""


class NewVoucher(Form):
    """An ordinary voucher. Values are in cents."""

    shop_id: Id
    title: Title
    sub_title: str | None = Field(None, max_length=255)
    rules: str | None = Field(None, max_length=1024)
    pay_value: Cents
    actual_value: Cents


class NewSale(NewVoucher):
    """A voucher that is sold in a sale."""

    stock: Annotated[int, Field(ge=1, le=UNITS_MAX)]
    begin_time: Moment
    end_time: Moment

    @model_validator(mode="after")
    def _has_a_window(self) -> Self:
        if self.end_time <= self.begin_time:
            raise ValueError("endTime: expected a time after beginTime")
        if self.end_time <= datetime.now(UTC):
            raise ValueError("endTime: expected a time to come")
        return self


# What is shown -----------------------------------------------------------------------------------

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
