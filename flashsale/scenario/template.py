"""Templates of requests: text with `{names}` in it, and how a value is written where it stands.

A value is escaped for its place: in a path or a query as a URL wants it, in a form as a form, in
JSON as a string. `{voucher:number}` alone in a JSON string stands there without quotes. `{{` and
`}}` are braces.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import orjson

from flashsale.scenario.table import suggestion

PLANNED = ("voucher", "user", "token", "attempt", "run", "uuid", "quantity")
"""What is known of every attempt when the plan is made; `user.…` are columns of the users' file,
and `uuid` is one that follows from `run` and `attempt`."""

ORDER = "order"
"""What a claim's answer names; known to the steps after it."""

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_COLUMN = re.compile(r"user\.[A-Za-z0-9_-]{1,64}")
_AS_NUMBER = re.compile(r"\{([^{}:]*):number\}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,18})?")
_HEADER_VALUE = re.compile(r"[\t -~]*")

Values = Mapping[str, str]
Write = Callable[[str], str]
_plain: Write = str


@dataclass(frozen=True)
class Hole:
    """Where the value of a variable goes, and how it is written there."""

    name: str
    write: Write


Piece = str | Hole


def pieces(text: str, write: Write, literal: Write = _plain) -> list[Piece]:
    """The pieces of a template. Raises ValueError for a brace that closes or opens nothing."""
    found: list[Piece] = []
    place = 0
    for match in _PART.finditer(text):
        found.append(literal(text[place : match.start()]))
        place = match.end()
        if match[0] in ("{{", "}}"):
            found.append(literal(match[0][0]))
        elif match[1] is None:
            raise ValueError(f"found {match[0]!r} alone in {text[:80]!r}; a brace is written twice")
        else:
            found.append(Hole(match[1].strip(), write))
    found.append(literal(text[place:]))
    return list(_joined(found))


def in_path(text: str) -> list[Piece]:
    """A path, with its query if it has one, as it was written."""
    return pieces(text, _in_path)


def in_form(fields: Mapping[str, object]) -> list[Piece]:
    """Fields of a form, or of a query."""
    found: list[Piece] = []
    for name, value in fields.items():
        found += ["&" if found else "", quote_plus(name), "="]
        found += pieces(_scalar(value), _in_form, _in_form)
    return list(_joined(found))


def in_header(text: str) -> list[Piece]:
    """The value of a header."""
    return pieces(text, _header_value)


def in_text(text: str) -> list[Piece]:
    """A body that is sent as it is."""
    return pieces(text, _plain)


def in_json(value: Any) -> list[Piece]:
    """A JSON body, whose texts are templates."""
    return list(_joined(_json(value)))


def _json(value: Any) -> Iterator[Piece]:
    if isinstance(value, Mapping):
        for number, (name, each) in enumerate(value.items()):
            yield f"{',' if number else '{'}{orjson.dumps(str(name)).decode()}:"
            yield from _json(each)
        yield "}" if value else "{}"
    elif isinstance(value, list | tuple):
        yield "["
        for number, each in enumerate(value):
            yield "," if number else ""
            yield from _json(each)
        yield "]"
    elif not isinstance(value, str):
        yield orjson.dumps(value).decode()
    elif as_number := _AS_NUMBER.fullmatch(value):
        yield Hole(as_number[1].strip(), _number)
    else:
        yield '"'
        yield from pieces(value, _in_string, _in_string)
        yield '"'


def _in_path(text: str) -> str:
    return text if text.isascii() and text.isalnum() else quote(text, safe="")


def _in_form(text: str) -> str:
    return text if text.isascii() and text.isalnum() else quote_plus(text)


def _in_string(text: str) -> str:
    if text.isascii() and text.isalnum():
        return text
    return orjson.dumps(text).decode()[1:-1]


def _number(text: str) -> str:
    """A value that is to stand in JSON without quotes; one that is no number is null."""
    return text if is_number(text) else "null"


def _header_value(text: str) -> str:
    """What a header can say: a value that would end it is cut where it would."""
    if text.isascii() and text.isprintable():
        return text
    match = _HEADER_VALUE.match(text)
    assert match is not None
    return match[0]


def _scalar(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _joined(found: Iterable[Piece]) -> Iterator[Piece]:
    """The same with what stands side by side put together."""
    text = ""
    for piece in found:
        if isinstance(piece, str):
            text += piece
            continue
        if text:
            yield text
        text = ""
        yield piece
    if text:
        yield text


def names_in(found: Iterable[Piece]) -> list[str]:
    """The variables that these pieces ask for."""
    return [piece.name for piece in found if isinstance(piece, Hole)]


def numbers_in(found: Iterable[Piece]) -> set[str]:
    """The variables among them that are to stand as numbers."""
    return {piece.name for piece in found if isinstance(piece, Hole) and piece.write is _number}


def is_number(text: str) -> bool:
    """Whether a value can stand in JSON without quotes."""
    return _NUMBER.fullmatch(text) is not None


def fill(found: Iterable[Piece], values: Values) -> str:
    """The text with these values; one that nobody knows is empty."""
    return "".join(
        [
            piece if isinstance(piece, str) else piece.write(values.get(piece.name, ""))
            for piece in found
        ]
    )


def is_known(name: str, taken: Iterable[str]) -> bool:
    """Whether there is such a variable, where `taken` are those that answers give."""
    return name in PLANNED or name in taken or _COLUMN.fullmatch(name) is not None


def column_of(name: str) -> str | None:
    """The column of the users' file that a variable names; None for any other."""
    return name.removeprefix("user.") if _COLUMN.fullmatch(name) else None


def unknown(name: str, taken: Iterable[str]) -> str:
    """What to say of a variable that there is not."""
    known = [*PLANNED, *taken]
    listed = ", ".join(f"{{{each}}}" for each in known)
    found = f"found {{{name}}}{suggestion(name, known)}, expected one of {listed}, {{user.COLUMN}}"
    return f"{found}; a brace that is sent is written twice, {{{{ and }}}}"
