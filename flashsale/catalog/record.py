"""A row as JSON shows it: camelCase names, no nulls, times as UTC."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic.alias_generators import to_camel
from sqlalchemy import Row

Record = dict[str, Any]

camel = lru_cache(maxsize=256)(to_camel)


def record(row: Row[*tuple[Any, ...]]) -> Record:
    """The columns of `row` that hold something."""
    return {
        camel(str(name)): _shown(value) for name, value in row._mapping.items() if value is not None
    }


def unix_ms(moment: datetime) -> int:
    """A time of MySQL's, or one with its offset, as Unix milliseconds."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _shown(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    precision = "milliseconds" if value.microsecond else "seconds"
    return f"{value.isoformat(timespec=precision)}Z"
