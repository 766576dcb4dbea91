"""One request as the routes see it: read from the ASGI scope once, within the limits."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar
from urllib.parse import parse_qs

import orjson

from flashsale.catalog.form import BadForm, Form, read
from flashsale.server.answers import Response, rejected
from flashsale.settings import ReplicaSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
F = TypeVar("F", bound=Form)

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
        self.token = ""
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
