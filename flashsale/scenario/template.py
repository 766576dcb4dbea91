"""What a shop is asked: requests whose texts are templates, with `{names}` in them, and the bytes
that come of them.

A value is escaped for its place: in a path or a query as a URL wants it, in a form as a form, in
JSON as a string. `{voucher:number}` alone in a JSON string stands there without quotes, and
`{link:url}` is part of a URL already. `{{` and `}}` are braces.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import quote, quote_plus

import orjson
from pydantic import Field, model_validator

from flashsale.scenario.table import Table, suggestion

PLANNED = ("voucher", "user", "token", "attempt", "run", "uuid", "quantity")
"""What is known of every attempt when the plan is made; `user.…` are columns of the users' file,
and `uuid` is one that follows from `run` and `attempt`."""

ORDER = "order"
"""What a claim's answer names; known to the steps after it."""

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_COLUMN = re.compile(r"user\.[A-Za-z0-9_-]{1,64}")
_AS_NUMBER = re.compile(r"\{([^{}:]*):number\}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,18})?")
_URL, _OF_URL = ":url", "%/:?#[]@!$&'()*+,;=-._~"
_ORIGIN = re.compile(r"(?:https?:)?//[^/?#]*", re.IGNORECASE)
_HEADER_VALUE = re.compile(r"[\t -~]*")

Values = Mapping[str, str]
Write = Callable[[str], str]
_plain: Write = str


@dataclass(frozen=True)
class Placeholder:
    """Where the value of a variable goes, and how it is written there."""

    name: str
    write: Write


Piece = str | Placeholder


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
            found.append(Placeholder(match[1].strip(), write))
    found.append(literal(text[place:]))
    return list(_joined(found))


def in_path(text: str) -> list[Piece]:
    """A path, with its query if it has one, as it was written; one that begins with a link that an
    answer told is that link's."""
    found = _as_urls(pieces(text, _in_path))
    if found and isinstance(found[0], Placeholder):
        found[0] = Placeholder(found[0].name, _path_of)
    return found


def in_form(fields: Mapping[str, object]) -> list[Piece]:
    """Fields of a form, or of a query."""
    found: list[Piece] = []
    for name, value in fields.items():
        found += ["&" if found else "", quote_plus(name), "="]
        found += _as_urls(pieces(_scalar(value), _in_form, _in_form))
    return list(_joined(found))


def _as_urls(found: Iterable[Piece]) -> list[Piece]:
    """The same with `{name:url}` as values that were part of a URL already."""
    return [
        Placeholder(piece.name.removesuffix(_URL), _of_url)
        if isinstance(piece, Placeholder) and piece.name.endswith(_URL)
        else piece
        for piece in found
    ]


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
        yield Placeholder(as_number[1].strip(), _number)
    else:
        yield '"'
        yield from pieces(value, _in_string, _in_string)
        yield '"'


def _in_path(text: str) -> str:
    return text if text.isascii() and text.isalnum() else quote(text, safe="")


def _of_url(text: str) -> str:
    """What stood in a URL stands there again: what was escaped is, as is what HTML did."""
    return quote(text.replace("&amp;", "&"), safe=_OF_URL)


def _path_of(text: str) -> str:
    """The path and the query of a link, wherever it leads: the shop is one host here."""
    path = _of_url(_ORIGIN.sub("", text).partition("#")[0])
    return path if path.startswith("/") else f"/{path}"


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
    return [piece.name for piece in found if isinstance(piece, Placeholder)]


def numbers_in(found: Iterable[Piece]) -> set[str]:
    """The variables among them that are to stand as numbers."""
    return {
        piece.name for piece in found if isinstance(piece, Placeholder) and piece.write is _number
    }


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
    plain = name.partition(":")[0]
    if plain != name and is_known(plain, taken):
        forms = "'{x:url}' in a path, a query or a form, or '{x:number}' as all of a JSON text"
        return f"found {{{name}}}, expected {{{plain}}} here; a form is {forms}"
    listed = ", ".join(f"{{{each}}}" for each in known)
    found = f"found {{{name}}}{suggestion(name, known)}, expected one of {listed}, {{user.COLUMN}}"
    return f"{found}; a brace that is sent is written twice, {{{{ and }}}}"


# Requests -----------------------------------------------------------------------------------------

_PATH = re.compile(r"(?:/|\{[a-z_][a-z0-9_]*:url\})[!-\"$-~]*")
_HEADER_NAME = re.compile(r"[!#-'*+.0-9A-Z^_`a-z|~-]+")
_HEADER_TEXT = re.compile(r"[ -~]*")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})
_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Prepared:
    """A request that lacks its values alone."""

    head: tuple[Piece, ...]
    body: tuple[Piece, ...] | None

    def filled(self, values: Values) -> bytes:
        """The bytes to send."""
        head = fill(self.head, values)
        if self.body is None:
            return f"{head}\r\n".encode()
        body = fill(self.body, values).encode()
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    @property
    def names(self) -> frozenset[str]:
        """The variables that it asks for."""
        return frozenset(names_in((*self.head, *(self.body or ()))))


class RequestTemplate(Table):
    """What is asked. Texts are templates over `{voucher}`, `{user}`, `{token}`, `{attempt}`,
    `{run}`, `{uuid}`, `{quantity}`, columns of the users' file (`{user.email}`) and what answers
    gave."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(
        default="POST", description="the method"
    )
    path: str = Field(description="the path, such as '/orders/{voucher}'")
    query: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description='name = "value" behind the path'
    )
    headers: dict[str, str] = Field(default_factory=dict, description='name = "value"')
    body_json: Any = Field(default=None, alias="json", description="the body, as JSON")
    form: dict[str, str | int | float | bool] | None = Field(
        default=None, description="the body, as a form"
    )
    text: str | None = Field(default=None, description="the body, as it is sent")

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        if not _PATH.fullmatch(self.path):
            raise ValueError(
                f"path: found {self.path!r}, expected a path such as '/orders/{{voucher}}'"
            )
        given = [
            name
            for name, body in (("json", self.body_json), ("form", self.form), ("text", self.text))
            if body is not None
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: a request has one body; leave one of them")
        if isinstance(self.body_json, str) and self.body_json.lstrip()[:1] in ("{", "["):
            raise ValueError(
                'json: found text, expected a table, such as json = { sku = "{voucher}" }; text '
                "that is JSON already goes into text, with a content-type among the headers"
            )
        check_headers(self.headers)
        self.variables({})  # every template is one
        return self

    def variables(self, common: Mapping[str, str]) -> dict[str, set[str]]:
        """The variables that each part asks for, `common` being headers that it has besides. Raises
        ValueError for a template that is none, in the part's name."""
        parts: dict[str, Callable[[], Iterable[Piece]]] = {
            "path": lambda: in_path(self.path),
            "query": lambda: in_form(self.query),
            "headers": lambda: self._in_headers(self.headers),
            "json": lambda: in_json(self.body_json),
            "form": lambda: in_form(self.form or {}),
            "text": lambda: in_text(self.text or ""),
            "target.headers": lambda: self._in_headers(common),
        }
        found = {}
        for name, pieces in parts.items():
            try:
                found[name] = set(names_in(pieces()))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return found

    @staticmethod
    def _in_headers(headers: Mapping[str, str]) -> Iterator[Piece]:
        return (piece for text in headers.values() for piece in in_header(text))

    def prepared(self, authority: str, prefix: str, common: Mapping[str, str]) -> Prepared:
        """The request to this host. Raises ValueError for a template that is none."""
        path = in_path(self.path)
        is_whole = isinstance(path[0], Placeholder)  # a link has the prefix already
        head: list[Piece] = [f"{self.method} " if is_whole else f"{self.method} {prefix}", *path]
        if self.query:
            head += ["&" if "?" in self.path else "?", *in_form(self.query)]
        head.append(f" HTTP/1.1\r\nhost: {authority}\r\n")
        for name, text in self._headers(common).items():
            head += [f"{name}: ", *in_header(text), "\r\n"]
        body = self._body()
        if body is None and self.method != "GET":
            body = []
        return Prepared(tuple(head), None if body is None else tuple(body))

    def _headers(self, common: Mapping[str, str]) -> dict[str, str]:
        kind = "json" if self.body_json is not None else "form" if self.form is not None else ""
        usual = {"content-type": _TYPES[kind]} if kind else {}
        given = {name.lower(): text for name, text in {**common, **self.headers}.items()}
        return {name: text for name, text in {**usual, **given}.items() if text}

    def _body(self) -> list[Piece] | None:
        if self.body_json is not None:
            return in_json(self.body_json)
        if self.form is not None:
            return in_form(self.form)
        return None if self.text is None else in_text(self.text)


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises ValueError for a header that cannot be sent, or is not the file's to give."""
    for name, text in headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OURS:
            raise ValueError(
                f"headers: found {name!r}, expected a header's name that is yours to give"
            )
        if not _HEADER_TEXT.fullmatch(text):
            raise ValueError(f"headers.{name}: expected visible ASCII and spaces")
