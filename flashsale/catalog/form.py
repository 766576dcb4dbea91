"""What a client may send to create or change something: strict types, one clear complaint."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from flashsale.model import ID_MAX


class Malformed(ValueError):  # noqa: N818 - the client's mistake, not ours
    """The first thing that is wrong, naming the field."""


class Form(BaseModel):
    """Fields in camelCase, as the family has them; unknown ones are ignored, null is absent."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            return {name: value for name, value in given.items() if value is not None}
        return given


F = TypeVar("F", bound=Form)


def read(kind: type[F], given: Mapping[str, Any]) -> F:
    """The form in `given`. Raises Malformed."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise Malformed(f"{field}: {message}" if field else message) from error


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


_FIRST_YEAR = 2000

Moment = Annotated[datetime, BeforeValidator(_moment)]
"""A time, UTC unless it carries an offset, to the millisecond."""

Id = Annotated[int, Field(ge=1, le=ID_MAX)]
Cents = Annotated[int, Field(ge=1, le=10**12)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
