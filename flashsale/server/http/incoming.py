"""Bytes into requests, strictly: what the parser lets through, within its bounds, or a refusal."""

from collections.abc import Mapping
from typing import NamedTuple

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from flashsale.server.http.exchange import Exchange, ExchangeConnection
from flashsale.server.http.heads import (
    BODY_TOO_LARGE,
    HEAD_TOO_LARGE,
    MALFORMED,
    TARGET_TOO_LONG,
    Ends,
    Refusal,
    make_scope,
    read_framing,
    read_plain_head,
    read_target,
)
from flashsale.server.response import Header, Response

_CHUNKS_OVERHEAD = 8  # bytes on the wire for each byte of a chunked body, at most
_VERSION_1_1 = b" HTTP/1.1\r\n"
_NO_BODY = (0, False)


class Sizes(NamedTuple):
    """Bounds of one request, in bytes; `headers_max` is their number. Some paths have another
    bound of their bodies."""

    target_max: int
    head_max: int
    headers_max: int
    body_max: int
    body_max_of: Mapping[str, int]


class Incoming:
    """The requests of one connection, appended to its `line` as their heads are whole."""

    __slots__ = (
        "_body_max",
        "_ends",
        "_headers",
        "_line",
        "_link",
        "_parser",
        "_sizes",
        "_slice",
        "_url",
        "_whole",
        "_wire_bytes",
        "begins",
        "in_head",
        "is_over",
        "reading",
    )

    def __init__(
        self, link: ExchangeConnection, line: list[Exchange], ends: Ends, sizes: Sizes
    ) -> None:
        self._link = link
        self._line = line
        self._ends = ends
        self._sizes = sizes
        self._body_max = sizes.body_max  # of the request that is being read
        self._parser = HttpRequestParser(self)
        self._wire_bytes = 0  # of the head or the body that is being read, before this slice
        self._slice = 0  # bytes in the slice that is being parsed
        self._whole: bytes | None = None  # the slice, where a head begins with it
        self._url = b""
        self._headers: list[Header] = []
        self.in_head = False
        self.begins = False  # a head began since somebody last looked
        self.is_over = False  # what follows is no request
        self.reading: Exchange | None = None  # whose body is not whole

    def __repr__(self) -> str:
        return f"<Incoming in_head={self.in_head} reading={self.reading} over={self.is_over}>"

    def feed(self, data: bytes | memoryview) -> Response | None:
        """Parse a slice; the refusal of whatever is being read, which ends it."""
        self._slice = len(data)
        between = not self.in_head and self.reading is None
        self._whole = data if between and isinstance(data, bytes) else None
        if self._whole is not None and self._take_plain(self._whole):
            return None
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.is_over = True  # we stay with HTTP/1.1, and never read what would follow
        except HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Refusal):
                raise
            return cause.response
        except HttpParserError:
            return None if self.is_over else MALFORMED
        self._wire_bytes += self._slice
        sizes = self._sizes
        if self.in_head and self._wire_bytes > sizes.head_max:
            return HEAD_TOO_LARGE if self._url else TARGET_TOO_LONG
        if self.reading is not None and self._wire_bytes > (
            _CHUNKS_OVERHEAD * self._body_max + sizes.head_max
        ):
            return BODY_TOO_LARGE
        return None

    def _take_plain(self, data: bytes) -> bool:
        """Take the one request that `data` is, where it is a plain one; the parser is not told."""
        sizes = self._sizes
        if len(data) > sizes.head_max:
            return False
        head = read_plain_head(data)
        if head is None:
            return False
        method, target, headers = head
        path_and_query = len(target[1]) + 1 + len(target[2])
        if len(headers) > sizes.headers_max or path_and_query > sizes.target_max:
            return False
        scope = make_scope(method, "1.1", target, headers, self._ends)
        exchange = Exchange(self._link, scope, _NO_BODY, keeps=True)
        exchange.is_whole = True
        self._line.append(exchange)
        return True

    def give_up(self) -> Exchange:
        """Read no more; the exchange that was being read, or one for what was not even that."""
        self.is_over = True
        exchange, self.reading = self.reading, None
        if exchange is None:
            method = self._parser.get_method().decode() if self.in_head and self._url else ""
            exchange = Exchange(self._link, {"method": method}, _NO_BODY, keeps=False)
            self._line.append(exchange)
        self.in_head = False
        return exchange

    def drop(self) -> None:
        """Forget what was being read: nobody waits for it."""
        self.is_over = True
        if self.reading is not None:
            self.reading.disconnect()
            self.reading = None
        self.in_head = False

    def hang_up(self) -> None:
        """The client has ended its side."""
        if self.reading is not None:
            self.reading.hang_up()
            self.reading = None
            self.is_over = True

    # What the parser calls.

    def on_message_begin(self) -> None:
        self.in_head = self.begins = True
        self._wire_bytes = 0
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._sizes.target_max:
            raise Refusal(TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        sizes, parser, headers = self._sizes, self._parser, self._headers
        if len(headers) > sizes.headers_max or (
            self._wire_bytes + self._slice > sizes.head_max and self._head_bytes > sizes.head_max
        ):
            raise Refusal(HEAD_TOO_LARGE)
        method = parser.get_method().decode()
        # What the parser tells of the version costs as much as all its other work on the head.
        rest_of_line = len(method) + 1 + len(self._url)
        if self._whole is not None and self._whole.startswith(_VERSION_1_1, rest_of_line):
            version = "1.1"
        else:
            version = parser.get_http_version()
        target = read_target(method, self._url)
        self._body_max = sizes.body_max_of.get(target[0], sizes.body_max)
        framing = read_framing(version, headers, self._body_max)
        scope = make_scope(method, version, target, headers, self._ends)
        keeps = parser.should_keep_alive() and version == "1.1" and not parser.should_upgrade()
        self.in_head = False
        self._wire_bytes = 0
        self._headers = []  # for trailers, which nobody asked for
        self.reading = exchange = Exchange(self._link, scope, framing, keeps)
        self._line.append(exchange)

    def on_body(self, body: bytes) -> None:
        if self.reading is not None and self.reading.feed(body) > self._body_max:
            raise Refusal(BODY_TOO_LARGE)

    def on_message_complete(self) -> None:
        exchange, self.reading = self.reading, None
        if exchange is not None:
            exchange.complete()
            self._whole = None
            self.is_over = not exchange.keeps

    @property
    def _head_bytes(self) -> int:
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)
