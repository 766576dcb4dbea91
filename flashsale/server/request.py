"""One request as the routes see it: read from the ASGI scope once, within the limits.

Its query parameters are read strictly: each within its bounds, or 400 with one line.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

import orjson

from flashsale.catalog.json import LATITUDE_MAX, NUMBER_MAX, BadForm, Form, read
from flashsale.model import ID_MAX, parse_id
from flashsale.server.http.exchange import ANSWER
from flashsale.server.response import Header, Response, rejected
from flashsale.settings import PICTURES_PATH, ReplicaSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
F = TypeVar("F", bound=Form)

_DECIMAL = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{1,20})?")
_LONGITUDE_MAX = 180.0
_LENGTH_DIGITS_MAX = 18  # Python refuses to read a number of thousands of digits


_EMPTY = {"const": ""}
"""A parameter without a value is absent."""


class Refused(Exception):  # noqa: N818 - carries the answer, is no bug
    """The request breaks a limit or its own form; `response` says which."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Request:
    """Method, path, token and body of a request."""

    _fields: dict[str, list[str]]

    __slots__ = (
        "_body_bytes_max",
        "_declared",
        "_fields",
        "_receive",
        "idempotency_key",
        "method",
        "path",
        "scope",
        "token",
    )

    def __init__(self, scope: Scope, receive: Receive, limits: ReplicaSettings) -> None:
        """Read the head. Raises Refused with 400, 413 or 431."""
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self._receive = receive
        self._body_bytes_max = limits.body_bytes_max
        self._declared = 0  # bytes of body announced; -1: chunked, length unknown
        headers = scope["headers"]
        if ANSWER in scope and len(named := dict(headers)) == len(headers):
            self.token = named.get(b"authorization", b"").decode("latin-1")
            self.idempotency_key = named.get(b"idempotency-key", b"").decode("latin-1")
            length, chunked = named.get(b"content-length"), b"transfer-encoding" in named
        else:
            length, chunked = self._read_doubtful(headers, limits)
        if chunked or length not in (None, b"0"):
            if self.path == PICTURES_PATH:
                self._body_bytes_max = limits.larger_bodies[PICTURES_PATH]
            self._declared = self._body_length(length, chunked)

    def _read_doubtful(
        self, headers: Iterable[Header], limits: ReplicaSettings
    ) -> tuple[bytes | None, bool]:
        """Read headers of which nobody has seen to the bounds, or some of which come twice: the
        length that is announced, and whether there are chunks."""
        self.token = self.idempotency_key = ""
        size, chunked = len(self.path), False
        length: bytes | None = None
        for name, value in headers:
            size += len(name) + len(value)
            if name == b"authorization":
                self.token = value.decode("latin-1")
            elif name == b"content-length":
                if length not in (None, value):
                    raise Refused(rejected("Two values of Content-Length", 400))
                length = value
            elif name == b"transfer-encoding":
                chunked = True
            elif name == b"idempotency-key":
                self.idempotency_key = value.decode("latin-1")
        if size > limits.header_bytes_max:
            raise Refused(rejected("Headers too large", 431))
        return length, chunked

    def _body_length(self, length: bytes | None, chunked: bool) -> int:
        if chunked and length is not None:  # the ambiguity that request smuggling lives on
            raise Refused(rejected("Content-Length beside Transfer-Encoding", 400))
        if length is None:
            return -1
        if not length.isdigit():
            raise Refused(rejected("Content-Length is not a number", 400))
        if len(length) > _LENGTH_DIGITS_MAX or int(length) > self._body_bytes_max:
            raise Refused(rejected("Body too large", 413))
        return int(length)

    @property
    def has_body(self) -> bool:
        """True where a body was announced."""
        return self._declared != 0

    @property
    def content_type(self) -> str:
        """What the body is said to be, "" where nothing is said."""
        kinds = (value for name, value in self.scope["headers"] if name == b"content-type")
        found: bytes = next(kinds, b"")
        return found.decode("latin-1")

    async def body(self) -> bytes:
        """The whole body. Raises Refused with 413 once it grows past the limit."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Refused(rejected("The body was cut short", 400))
            part = message.get("body", b"")
            size += len(part)
            if size > self._body_bytes_max:
                raise Refused(rejected("Body too large", 413))
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises Refused with 415 or 400."""
        if self.content_type.partition(";")[0].strip().lower() != "application/json":
            raise Refused(rejected("Expected application/json", 415))
        try:
            value = orjson.loads(await self.body())
        except orjson.JSONDecodeError as error:
            raise Refused(rejected("The body is not JSON", 400)) from error
        if not isinstance(value, dict):
            raise Refused(rejected("Expected a JSON object", 400))
        return value

    def query(self, name: str) -> str:
        """One query parameter, the first of several, "" where it is absent."""
        try:
            fields = self._fields
        except AttributeError:  # the first to ask; a claim never does, and does not pay for it
            query: bytes = self.scope["query_string"]
            self._fields = fields = parse_qs(query.decode("utf-8", "replace"))
        return fields.get(name, [""])[0]

    async def form(self, kind: type[F]) -> F:
        """The body as a form. Raises Refused with 415 or 400."""
        try:
            return read(kind, await self.json())
        except BadForm as malformed:
            raise Refused(rejected(str(malformed), 400)) from malformed


class Parameter(Protocol):
    """Something that a request says beside its path and body."""

    def described(self) -> list[dict[str, Any]]:
        """As OpenAPI has it, in one part or several."""


@dataclass(frozen=True)
class TextParameter:
    """Text of up to `length_max` characters, "" where it is absent."""

    name: str
    length_max: int
    schema: Mapping[str, Any] = field(default_factory=dict)
    """What its reader asks of it beyond that."""
    is_needed: bool = False
    """Whether "" is refused by its reader."""

    def of(self, request: Request) -> str:
        """What the request says. Raises Refused with 400."""
        text = request.query(self.name).strip()
        if len(text) > self.length_max:
            raise _refused(f"{self.name}: expected at most {self.length_max} characters")
        return text

    def described(self) -> list[dict[str, Any]]:
        """As OpenAPI has it."""
        schema = {"type": "string", "maxLength": self.length_max, **self.schema}
        return [{"name": self.name, "in": "query", "required": self.is_needed, "schema": schema}]


@dataclass(frozen=True)
class NumberParameter:
    """A number from `least` on, `default` where it is absent; none may be absent without one."""

    name: str
    what: str
    most: int = ID_MAX
    default: int | None = None
    least: int = 1

    def of(self, request: Request) -> int:
        """What the request says. Raises Refused with 400."""
        text = request.query(self.name)
        if not text and self.default is not None:
            return self.default
        number = 0 if text == "0" else parse_id(text)
        if number is None or not self.least <= number <= self.most:
            raise _refused(f"{self.name}: expected {self.what} from {self.least} to {self.most}")
        return number

    def described(self) -> list[dict[str, Any]]:
        """As OpenAPI has it."""
        schema: dict[str, Any] = {
            "type": "integer",
            "minimum": self.least,
            "maximum": self.most,
        }
        is_needed = self.default is None
        if not is_needed:
            schema = {"anyOf": [schema, _EMPTY], "default": self.default}
        return [{"name": self.name, "in": "query", "required": is_needed, "schema": schema}]


@dataclass(frozen=True)
class HeaderParameter:
    """A header that a route reads by itself."""

    name: str
    meaning: str
    schema: Mapping[str, Any]

    def described(self) -> list[dict[str, Any]]:
        """As OpenAPI has it."""
        told = {"description": self.meaning, "schema": self.schema}
        return [{"name": self.name, "in": "header", "required": False, **told}]


class PlaceParameters:
    """Longitude `x` and latitude `y`, None where both are absent."""

    _BOUNDS = {"x": _LONGITUDE_MAX, "y": LATITUDE_MAX}  # noqa: RUF012 - never changed

    def of(self, request: Request) -> tuple[float, float] | None:
        """What the request says. Raises Refused with 400."""
        if not (request.query("x") or request.query("y")):
            return None
        return self._degrees(request, "x"), self._degrees(request, "y")

    def _degrees(self, request: Request, name: str) -> float:
        text, bound = request.query(name), self._BOUNDS[name]
        if not _DECIMAL.fullmatch(text) or abs(float(text)) > bound:
            raise _refused(f"{name}: expected degrees from -{bound:g} to {bound:g}, x and y both")
        return float(text)

    def described(self) -> list[dict[str, Any]]:
        """As OpenAPI has it, which cannot say that neither comes alone."""
        return [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": "x and y both, or neither",
                "schema": {
                    "anyOf": [{"type": "number", "minimum": -bound, "maximum": bound}, _EMPTY]
                },
            }
            for name, bound in self._BOUNDS.items()
        ]


TYPE_ID = NumberParameter("typeId", "an id")
CURRENT = NumberParameter("current", "a page", NUMBER_MAX, default=1)
PLACE = PlaceParameters()


def _refused(message: str) -> Refused:
    return Refused(rejected(message, 400))
