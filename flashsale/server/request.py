"""One request as the routes see it: read from the ASGI scope once, within the limits.

Its query parameters are read strictly: each within its bounds, or 400 with one line.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar
from urllib.parse import parse_qs

import orjson

from flashsale.catalog.form import LATITUDE_MAX, BadForm, Form, read
from flashsale.catalog.page import NUMBER_MAX
from flashsale.model import parse_id
from flashsale.server.response import Response, rejected
from flashsale.settings import ReplicaSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
F = TypeVar("F", bound=Form)

_DECIMAL = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{1,20})?")
_LONGITUDE_MAX = 180.0
_LENGTH_DIGITS_MAX = 18  # Python refuses to read a number of thousands of digits


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
        self.token = self.idempotency_key = ""
        self._declared = 0  # bytes of body announced; -1: chunked, length unknown
        size, chunked = len(self.path), False
        length: bytes | None = None
        for name, value in scope["headers"]:
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
        if chunked or length is not None:
            self._declared = self._body_length(length, chunked)

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
        kinds = [value for name, value in self.scope["headers"] if name == b"content-type"]
        if not kinds or kinds[0].partition(b";")[0].strip().lower() != b"application/json":
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


class Query:
    """The parameters of one request. Its methods raise Refused with 400."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def text(self, name: str, length_max: int) -> str:
        """Text of up to `length_max` characters, "" where it is absent."""
        text = self._request.query(name).strip()
        if len(text) > length_max:
            raise _refused(f"{name}: expected at most {length_max} characters")
        return text

    def id(self, name: str) -> int:
        """An id."""
        number = parse_id(self._request.query(name))
        if number is None:
            raise _refused(f"{name}: expected an id from 1 to 9223372036854775807")
        return number

    def page(self, name: str = "current") -> int:
        """The number of a page, 1 where it is absent."""
        number = parse_id(self._request.query(name) or "1")
        if number is None or number > NUMBER_MAX:
            raise _refused(f"{name}: expected a page from 1 to {NUMBER_MAX}")
        return number

    def place(self) -> tuple[float, float] | None:
        """Longitude `x` and latitude `y`, None where both are absent."""
        if not (self._request.query("x") or self._request.query("y")):
            return None
        return self._degrees("x", _LONGITUDE_MAX), self._degrees("y", LATITUDE_MAX)

    def _degrees(self, name: str, bound: float) -> float:
        text = self._request.query(name)
        if not _DECIMAL.fullmatch(text) or abs(float(text)) > bound:
            raise _refused(f"{name}: expected degrees from -{bound:g} to {bound:g}, x and y both")
        return float(text)


def _refused(message: str) -> Refused:
    return Refused(rejected(message, 400))
