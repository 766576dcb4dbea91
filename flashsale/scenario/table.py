"""A table of a scenario's file: frozen, strict, and with one line for whatever is wrong in it."""

from difflib import get_close_matches
from reprlib import Repr
from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


class Table(BaseModel):
    """Takes the keys it knows, as the types they have."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def one_line(error: ValidationError, document: type[Table]) -> str:
    """The first error, a misspelt key before whatever follows from it."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return in_short(_sentence(details[0], document)) + more


def suggestion(name: str, known: list[str]) -> str:
    """A question for a name that is close to a known one, else nothing."""
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _sentence(detail: ErrorDetails, document: type[Table]) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    path, kind = ".".join(str(part) for part in detail["loc"]), detail["type"]
    table, key = detail["loc"][:-1], str(detail["loc"][-1])
    if kind == "extra_forbidden":
        known = list(_fields_of(table, document))
        return f"{path}: no such key{suggestion(key, known)}; expected one of {', '.join(known)}"
    if kind == "missing":
        return f"{path}: missing, expected {_fields_of(table, document)[key].description}"
    return f"{path}: found {shown(detail['input'])}, expected {_expected(detail)}"


def unquoted(table: str, key: str, value: object) -> str:
    """What is wrong with a key of `table` that holds a table where a value belongs: TOML takes the
    dots in a key without quotes for tables in tables."""
    while isinstance(value, dict) and value:
        inner, value = next(iter(value.items()))
        key = f"{key}.{inner}"
    example = f'"{value}"' if isinstance(value, str) else '"…"'
    return f'{table}.{key}: a key with dots needs quotes; write "{key}" = {example}'


def _expected(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "int_type" | "int_from_float":
            return "a whole number"
        case "greater_than_equal":
            return f"at least {detail['ctx']['ge']:,}"
        case "less_than_equal":
            return f"at most {detail['ctx']['le']:,}"
        case "string_pattern_mismatch":
            return "lower-case letters, digits, '-' and '_'"
        case "model_type" | "dict_type":
            return "a table"
        case "tuple_type":
            found = detail["input"]
            return f'a list, such as ["{found[:40]}"]' if isinstance(found, str) else "a list"
        case _:
            return detail["msg"].removeprefix("Input should be ")


def shown(value: object) -> str:
    """A value in an error: short, however long it is or deep it nests."""
    return "a table" if isinstance(value, dict) else _SHORT.repr(value)


def in_short(sentence: str) -> str:
    """An error whose names are a file's own, and may be of any length: its begin and its end."""
    if len(sentence) <= _SENTENCE_MAX:
        return sentence
    return f"{sentence[: _SENTENCE_MAX // 2]} … {sentence[-_SENTENCE_MAX // 2 :]}"


_SENTENCE_MAX = 1_000
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def _fields_of(table: tuple[int | str, ...], document: type[Table]) -> dict[str, FieldInfo]:
    """The fields of the table at this path, by the key under which a file gives them."""
    model: type[BaseModel] = document
    for part in table:
        if isinstance(part, str):  # a number is a place in a list of tables
            model = _table_in(_by_key(model)[part].annotation) or model
    return _by_key(model)


def _by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _table_in(annotation: object) -> type[BaseModel] | None:
    """The table that an annotation is of: itself, or an optional one, or a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_table_in, get_args(annotation))), None)
