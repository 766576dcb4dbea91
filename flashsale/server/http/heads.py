"""Heads, purely: what a request's must be, and the bytes that an answer begins with."""

import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

from flashsale.server.response import RETRY_SOON, Header, Response, rejected

CHUNKED = -1
"""The length of a body that does not say it."""

MALFORMED = rejected("Malformed request", 400)
CUT_SHORT = rejected("The body was cut short", 400)
TOO_SLOW = rejected("The request took too long", 408)
BODY_TOO_LARGE = rejected("Body too large", 413)
TARGET_TOO_LONG = rejected("Request target too long", 414)
UNEXPECTED = rejected("Expected 100-continue, or no Expect", 417)
HEAD_TOO_LARGE = rejected("Headers too large", 431)
INTERNAL = rejected("Internal error", 500)
TOO_MANY_CONNECTIONS = rejected("Too many connections, try again", 503, RETRY_SOON)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_VERSIONS = ("1.1", "1.0")
_PLAIN_LINE = re.compile(rb"(GET|HEAD|POST|PUT|DELETE) (/[-A-Za-z0-9/._~%?&=+,]*) HTTP/1\.1")
_PLAIN_HOST = re.compile(rb"[-A-Za-z0-9.:\[\]]+")
_PLAIN_NAMES = {
    spelled: name
    for name in (
        *(b"host", b"content-length", b"authorization", b"accept", b"accept-encoding"),
        *(b"accept-language", b"cache-control"),
        *(b"content-type", b"cookie", b"idempotency-key", b"origin", b"pragma", b"priority"),
        *(b"referer", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"traceparent"),
        *(b"user-agent", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip", b"x-request-id"),
    )
    for spelled in (name, name.title(), name.title().replace(b"-Ip", b"-IP"))
}
"""Headers that can be read without the parser, as clients spell them."""
_PLAIN_BYTES = bytes(range(0x20, 0x7F))
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
BODYLESS = frozenset({204, 304})
"""Statuses of answers that have no body, whatever was asked."""

_ANSWER_FRAMING = frozenset({b"content-length", b"connection", b"transfer-encoding"})
_HOST = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:[]%"
_LENGTH_DIGITS_MAX = 18
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Refusal(Exception):  # noqa: N818 - carries the answer, is no bug
    """The request breaks a limit or the protocol; `response` says which. The connection closes."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


Framing = tuple[int, bool]
"""What a head says of its body: bytes, or CHUNKED; whether its sender waits to be asked for it."""


def read_framing(version: str, headers: Iterable[Header], body_bytes_max: int) -> Framing:
    """How long the body is, from headers with names in lower case. Raises Refusal.

    The parser has refused bare LF, folded lines, a length beside chunks, and two lengths. Here is
    the rest of RFC 9112: one Host, no coding but chunked, and that not in HTTP/1.0. Versions that
    are not 1.0 or 1.1 get 400, not 505: to us a 5xx says that we failed.
    """
    if version not in _VERSIONS:
        raise Refusal(rejected("Expected HTTP/1.1", 400))
    length, hosts, waits = 0, 0, False
    for name, value in headers:
        if name not in _FRAMING:
            continue
        if name == b"host":
            hosts += 1
            if value.translate(None, _HOST):
                raise Refusal(rejected("Host is malformed", 400))
        elif name == b"content-length":
            length = _length(value, body_bytes_max)
        elif name == b"transfer-encoding":
            if version == "1.0" or length == CHUNKED or value.lower() != b"chunked":
                raise Refusal(rejected("Expected no transfer coding but chunked", 400))
            length = CHUNKED
        elif value.lower() != b"100-continue":
            raise Refusal(UNEXPECTED)
        else:
            waits = version == "1.1"
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise Refusal(rejected("Expected one Host", 400))
    return length, waits and length != 0


def _length(value: bytes, body_bytes_max: int) -> int:
    if not value.isdigit():
        raise Refusal(rejected("Content-Length is not a number", 400))
    if len(value) > _LENGTH_DIGITS_MAX or int(value) > body_bytes_max:
        raise Refusal(BODY_TOO_LARGE)
    return int(value)


PlainHead = tuple[str, "Target", list[Header]]
"""Method, target and headers of a request that `read_plain_head` could read."""


def read_plain_head(data: bytes) -> PlainHead | None:
    """The head of a request that is whole in `data`, without a body or anything unusual; None where
    the parser has to be asked. But for what it remembers, pure.

    This says no wherever there might be a doubt, so that it needs no rule that the parser has: a
    byte that is not visible ASCII, a header that it does not know by its spelling, an odd target,
    two of a name. A claim's head is read in a third of the parser's time, whose every header is a
    call back into Python.
    """
    lines = data.split(b"\r\n")
    if len(lines) < 4 or lines[-1] or lines[-2]:
        return None
    first = _plain_line(lines[0])
    if first is None or data.translate(None, _PLAIN_BYTES) != b"\r\n" * (len(lines) - 1):
        return None
    headers: list[Header] = []
    for line in lines[1:-2]:
        header = _SEEN.get(line) or _plain_header(line)
        if header is None:
            return None
        headers.append(header)
    named = dict(headers)
    if len(named) < len(headers) or b"host" not in named:
        return None
    return (*first, headers)


def _plain_header(line: bytes) -> Header | None:
    """One that says nothing of where the request ends, but for a length of 0, and a plain host.
    It is remembered, unless it is as good as sure never to come again."""
    spelled, separator, value = line.partition(b": ")
    name = _PLAIN_NAMES.get(spelled)
    if name is None or not separator:
        return None
    if (name == b"host" and not _PLAIN_HOST.fullmatch(value)) or (
        name == b"content-length" and value != b"0"
    ):
        return None
    header = (name, value.strip(b" "))
    if name not in _OF_ONE_CLIENT and len(line) <= _SEEN_BYTES_MAX:
        if len(_SEEN) >= _SEEN_MAX:
            _SEEN.clear()
        _SEEN[line] = header
    return header


_SEEN: dict[bytes, Header] = {}
_SEEN_MAX, _SEEN_BYTES_MAX = 1_024, 256
_OF_ONE_CLIENT = frozenset({b"authorization", b"cookie", b"idempotency-key", b"x-request-id"})


@lru_cache(maxsize=1_024)
def _plain_line(line: bytes) -> tuple[str, "Target"] | None:
    found = _PLAIN_LINE.fullmatch(line)
    if found is None:
        return None
    method = found[1].decode()
    return method, read_target(method, found[2])


Target = tuple[str, bytes, bytes]
"""Where a request goes: the path decoded, the path as it came, the query as it came."""


@lru_cache(maxsize=1_024)
def read_target(method: str, target: bytes) -> Target:
    """A target in origin, absolute or asterisk form. Raises Refusal. A sale has few, asked often.

    A proxy's CONNECT is not ours to serve, nor is a target with a fragment, which no client sends.
    """
    if method == "CONNECT" or b"#" in target:
        raise Refusal(MALFORMED)
    if not target.startswith(b"/"):
        target = _origin_form(method, target)
    raw_path, _, query = target.partition(b"?")
    try:
        path = raw_path.decode("ascii")
    except UnicodeDecodeError:
        raise Refusal(MALFORMED) from None
    return unquote(path) if "%" in path else path, raw_path, query


def _origin_form(method: str, target: bytes) -> bytes:
    if target == b"*" and method == "OPTIONS":
        return target
    scheme, separator, rest = target.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if not slash:
        authority, question, query = rest.partition(b"?")
        path = question + query
    if scheme.lower() not in (b"http", b"https") or not separator:
        raise Refusal(MALFORMED)
    if not authority or authority.translate(None, _HOST):
        raise Refusal(MALFORMED)
    return b"/" + path


Start = tuple[bytes, int | None, bool]
"""The head of an answer without the empty line at its end; the length of the body, where the
application announced it; whether the head says that the connection closes."""


def answer_start(status_line: bytes, headers: Iterable[Header]) -> Start:
    """Write the head of an answer. Raises ValueError for what would break the protocol."""
    lines = [status_line]
    length: int | None = None
    closes = False
    for name, value in headers:
        lines.append(b"%b: %b\r\n" % (name, value))
        if name in _ANSWER_FRAMING:
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                closes = closes or value.lower() == b"close"
            else:
                raise ValueError("the server frames the body, not the application")
    head = b"".join(lines)
    if not head.count(b"\n") == head.count(b"\r") == len(lines) + 1:
        raise ValueError("a header holds a line break")
    return head, length, closes


def status_line(status: int, date: bytes) -> bytes:
    """The first two lines, with the date that HTTP asks for. Raises ValueError below 200."""
    if not 200 <= status <= 999:
        raise ValueError(f"expected a final status, got {status}")
    return b"HTTP/1.1 %d %b\r\ndate: %b\r\n" % (status, _REASONS.get(status, b""), date)


def whole_answer(status_line: bytes, response: Response, *, with_body: bool = True) -> bytes:
    """An answer of the server itself, after which the connection closes."""
    body = response.body if with_body else b""
    return b"%b%bconnection: close\r\n\r\n%b" % (status_line, response.head, body)


def make_scope(
    method: str, version: str, target: Target, headers: list[Header], ends: "Ends"
) -> dict[str, Any]:
    """What the application learns of a request (ASGI 3, HTTP)."""
    path, raw_path, query = target
    client, server = ends
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": server,
    }


_ASGI = {"version": "3.0", "spec_version": "2.4"}


class Ends(NamedTuple):
    """Addresses of both ends of a connection; None where there is none, as on a Unix socket."""

    client: tuple[str, int] | None
    server: tuple[str, int] | None
