"""One keep-alive connection: an attempt goes out as prepared bytes, its answer comes back parsed.

Nothing here waits. asyncio calls `data_received` and `connection_lost`, and either says once how
the attempt in flight ended: with the answer, or indeterminate, with what went wrong.
"""

import asyncio
import re
import zlib
from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from flashsale.asking import WINDOWS
from flashsale.model import Outcome
from flashsale.scenario.answer import (
    CACHE_HEADER,
    MESSAGES,
    ORDER_HEADER,
    OUTCOME_HEADER,
    Answer,
    indeterminate,
    new_answer,
    read_answer,
    read_reading,
    read_signing,
)

IDLE = -1
_BODY_BYTES_MAX = 1_048_576
"""So much of a body is read, packed or not."""

_HEAD_BYTES_MAX = 262_144
_ANSWER_BYTES_MAX = 16 * 1_048_576
"""Beyond so many bytes without an end to the head, or in all, an answer is given up as `too_long`:
a parser keeps a header that does not end, and nobody reads such a page of a sale."""

_SHAPES_MAX, _SHAPE_BYTES_MAX = 1_024, 16_384
_SAID_MAX = 256
"""So many different answers that could not be read leave evidence; further ones are counted."""

_ORDER_LINE = b"\r\n" + ORDER_HEADER + b": "
_LEAD_BYTES = 12
_DIGITS = re.compile(rb"[1-9][0-9]{0,17}")
_TEXT = re.compile(rb"[0-9A-Za-z_-]{1,128}")
_BLANKS = {_DIGITS: b"\0" * 18, _TEXT: b"\1" * 128}
"""Ids that can be exchanged for one another: numbers without a leading zero, which with 19 digits
could exceed 2^63−1, and names; and what is put in their place, which no answer holds."""
_LEARNED_AT_ONCE, _LEARNED_EVERY = 256, 16
"""So many answers that were parsed are learned from; then only one in sixteen: where each differs
in more than its order id, there is nothing to learn."""
KEPT = frozenset(
    {
        OUTCOME_HEADER,
        ORDER_HEADER,
        CACHE_HEADER,
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
    }
)
"""The headers that somebody looks at."""


Ended = Callable[[int, int, int, Answer], None]
"""Told how an attempt ended: the connection's number, the attempt, the instant (`monotonic_ns`) and
the answer. Where that is `reset`, `truncated` or `malformed`, the connection is gone."""


class Reader:
    """Reads answers for all connections of a storm, and remembers their shapes.

    Parsing is strict, and costs several µs. But most answers of a sale differ from one before
    only in the order id, or not at all, and equal bytes on a parser at rest mean the same each
    time. So an answer that was parsed whole is remembered by its bytes, and one that names an order
    by its bytes with the id blanked out, if its place is one where any id would do: the answer is
    parsed twice more with other ids, and has to mean the same with those.
    """

    kept = KEPT
    any_id_will_do = True
    """Whether nothing but the order id itself depends on which one it is."""

    def __init__(self, messages: Mapping[str, Outcome] = MESSAGES) -> None:
        self._messages = messages
        self._alike: dict[bytes, Answer] = {}
        self._shapes: dict[bytes, Answer] = {}
        self._lead, self._ids = _ORDER_LINE, _DIGITS
        self._start = self._end = 0  # where the last id stood
        self._learned = 0
        self._said: set[str] = set()

    def __repr__(self) -> str:
        return f"<Reader shapes={len(self._shapes) + len(self._alike)}>"

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        """The answer with these headers, their names in lower case."""
        get = headers.get
        return read_answer(status, get(OUTCOME_HEADER), get(ORDER_HEADER), body, self._messages)

    def recall(self, data: bytes) -> Answer | None:
        """What `data` means, if an answer of its shape was read before."""
        order = data[self._start : self._end]
        if self._ids.fullmatch(order) is not None:
            answer = self._shapes.get(_blanked(data, order, self._ids))
            if answer is not None:
                outcome, status, _, error, _ = answer
                return new_answer((outcome, status, order.decode("ascii"), error, None))
        return self._sought(data)

    def _sought(self, data: bytes) -> Answer | None:
        """The same for an answer whose id is not where the last one was, or that has none."""
        start = data.find(self._lead)
        if start >= 0:
            found = self._ids.match(data, start + len(self._lead))
            if found is not None:
                answer = self._shapes.get(_blanked(data, found[0], self._ids))
                if answer is not None:
                    self._start, self._end = found.span()
                    return answer._replace(order=found[0].decode("ascii"))
        return self._alike.get(data)

    def remember(self, data: bytes, answer: Answer) -> None:
        """`data`, parsed whole and by itself, meant `answer`."""
        self._learned += 1
        if self._learned > _LEARNED_AT_ONCE and self._learned % _LEARNED_EVERY:
            return
        if len(data) > _SHAPE_BYTES_MAX:
            return
        names_one = answer.order is not None and answer.said is None and self.any_id_will_do
        if not (names_one and self._learn(data, answer)):
            _keep(self._alike, data, answer)

    def bounded(self, answer: Answer) -> Answer:
        """`answer`, without what it said where too many have said something else before it."""
        if answer.said is None or answer.said in self._said:
            return answer
        if len(self._said) >= _SAID_MAX:
            return answer._replace(said=None)
        self._said.add(answer.said)
        return answer

    def _learn(self, data: bytes, answer: Answer) -> bool:
        """Remember an answer by its shape, if other ids in the place of its own would be read as it
        was; whether they would."""
        assert answer.order is not None
        order = answer.order.encode()
        ids = _DIGITS if order.isdigit() else _TEXT
        start = data.find(order)
        lead = data[max(0, start - _LEAD_BYTES) : start]
        if not (ids.fullmatch(order) and lead and data.find(lead) + len(lead) == start):
            return False
        shape = _blanked(data, order, ids)
        for other in _others(order):
            told = ClientConnection(IDLE, _untold).understood(
                shape.replace(_BLANKS[ids][: len(order)], other), self
            )
            if told != answer._replace(order=other.decode("ascii")):
                return False
        if (lead, ids) != (self._lead, self._ids):
            self._lead, self._ids = lead, ids
            self._shapes.clear()
        _keep(self._shapes, shape, answer)
        return True


class BrowseReader(Reader):
    """Reads answers to reads: what counts is how they came about."""

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        return read_reading(status, headers.get(CACHE_HEADER), body)


class SignReader(Reader):
    """Reads answers to daily sign-ins."""

    def read(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        return read_signing(status, body)


def unpacked(body: bytes, packed: str) -> bytes:
    """A body that was packed so, asked for or not, as far as it is read; where that cannot be, what
    to do about it in its place."""
    if packed in ("", "identity"):
        return body
    try:
        return zlib.decompressobj(WINDOWS[packed]).decompress(body, _BODY_BYTES_MAX)
    except (KeyError, zlib.error):
        cure = 'ask for it as it is, by headers = { accept-encoding = "identity" }'
        return f"(a body packed as {packed[:40]}, which cannot be read; {cure})".encode()


def _blanked(data: bytes, order: bytes, ids: "re.Pattern[bytes]") -> bytes:
    """`data` with the order id blanked out wherever it stands."""
    return data.replace(order, _BLANKS[ids][: len(order)])


_NEXT = bytes.maketrans(
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"1234567891bcdefahijklmnopqrstuvwxyzgBCDEFAHIJKLMNOPQRSTUVWXYZG",
)
"""Each sign's next of its kind; those of hexadecimal numbers by themselves, and never a 0."""


def _others(order: bytes) -> tuple[bytes, bytes]:
    """Two other ids of the same length and kind."""
    other = order.translate(_NEXT)
    return other, other.translate(_NEXT)


def _untold(_number: int, _attempt: int, _at_ns: int, _answer: Answer) -> None:
    """For a connection that has no other end."""


def _keep(shapes: dict[bytes, Answer], shape: bytes, answer: Answer) -> None:
    if len(shapes) >= _SHAPES_MAX:
        shapes.clear()
    shapes[shape] = answer


class ClientConnection(asyncio.Protocol):
    """One connection, at most one attempt in flight on it."""

    def __init__(self, number: int, ended: Ended) -> None:
        self.number = number
        self.attempt = IDLE
        self.is_open = False
        self._ended = ended
        self._parser = HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._first, self._received = b"", 0
        self._rest()

    def __repr__(self) -> str:
        return f"<ClientConnection {self.number} open={self.is_open} attempt={self.attempt}>"

    def send(self, attempt: int, request: bytes, reader: Reader) -> None:
        """Send one attempt, whose answer `reader` reads; uvloop hands the bytes to the kernel
        before this returns."""
        self.attempt = attempt
        self._reader = reader
        self._transport.write(request)

    def hold(self, attempt: int, reader: Reader) -> None:
        """Keep the attempt in flight without having asked anything; what comes is `reader`'s."""
        self.attempt = attempt
        self._reader = reader

    def abandon(self) -> None:
        """Forget the attempt in flight and drop the connection; nobody is told."""
        self.attempt = IDLE
        self.is_open = False
        self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        if self.attempt == IDLE:  # nobody asked: a server saying goodbye, or worse
            self.abandon()
            return
        if not self._started:
            answer = self._reader.recall(data)
            if answer is not None:
                self._deliver(now, answer)
                return
        self._parse(now, data)

    def eof_received(self) -> None:
        if self._headers_done and not self._is_framed():  # HTTP/1.0: the end is the end
            self._finish(close=True)
            self._conclude(monotonic_ns())

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self.attempt != IDLE:
            if self._started:
                self._fail(monotonic_ns(), "truncated", self._first)
            else:
                self._fail(monotonic_ns(), "reset", b"")

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._answer is None:
            self._headers = {}
            self._body: bytes | bytearray = b""
            self._headers_done = False
        else:
            self._excess = True

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        # A trailer is no part of the head (RFC 9110, 6.5), nor a blank of a value (5.5).
        if name in self._reader.kept and not (self._excess or self._headers_done):
            value = value.strip(b" \t")
            if name == b"set-cookie" and name in self._headers:
                value = self._headers[name] + b"\n" + value
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._headers_done = self._answer is None and self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        if len(self._body) < _BODY_BYTES_MAX and self._answer is None:
            if not self._body:
                self._body = body
            elif isinstance(self._body, bytearray):
                self._body += body
            else:  # pieces of a byte each, put together as bytes, would be copied each time
                self._body = bytearray(self._body + body)

    def on_message_complete(self) -> None:
        if self._headers_done:  # else a 1xx, which announces the answer
            self._finish(close=not self._parser.should_keep_alive())

    # What follows from it.

    def _rest(self) -> None:
        """The state between two answers."""
        self._answer: Answer | None = None
        self._headers = {}
        self._body = b""
        self._started = self._headers_done = self._excess = self._closing = False

    def understood(self, data: bytes, reader: Reader) -> Answer | None:
        """What `reader` makes of `data`, for one who neither sends nor receives; None where they
        are not one whole answer, and no more."""
        self._reader = reader
        whole = self._feed(data) and not (self._closing or self._excess)
        return self._answer if whole else None

    def _parse(self, now: int, data: bytes) -> None:
        in_one_piece, self._started = not self._started, True
        if in_one_piece:
            self._first, self._received = data, 0
        else:
            self._received += len(data)
        if not self._feed(data) and self._answer is None:
            self._fail(now, "malformed", self._first)
            return
        answer = self._answer
        if answer is None:
            limit = _ANSWER_BYTES_MAX if self._headers_done else _HEAD_BYTES_MAX
            if self._received > limit:
                self._fail(now, "too_long", self._first)
            return
        if in_one_piece and not (self._closing or self._excess):
            self._reader.remember(data, answer)
        self._conclude(now)

    def _feed(self, data: bytes) -> bool:
        """Let the parser have `data`; whether they are HTTP."""
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._closing = True
            return False
        return True

    def _finish(self, close: bool) -> None:
        if self._answer is None:
            status = self._parser.get_status_code()
            body, packed = bytes(self._body), self._headers.get(b"content-encoding")
            if packed is not None and body:
                body = unpacked(body, packed.decode("latin-1").lower())
            answer = self._reader.read(status, self._headers, body)
            self._answer = answer if answer.said is None else self._reader.bounded(answer)
            self._closing = close
            self._headers_done = False

    def _conclude(self, now: int) -> None:
        """Hand over the answer. After bytes beyond it, nothing on this connection is to be
        believed any more, so that it is closed like one whose server asked for it."""
        answer = self._answer
        assert answer is not None
        if self._closing or self._excess:
            self.is_open = False
            self._transport.close()
        self._deliver(now, answer)

    def _deliver(self, now: int, answer: Answer) -> None:
        attempt, self.attempt = self.attempt, IDLE
        if self._started:
            self._rest()
        self._ended(self.number, attempt, now, answer)

    def _fail(self, now: int, error: str, said: bytes) -> None:
        attempt = self.attempt
        self.abandon()
        answer = self._reader.bounded(indeterminate(error, said))
        self._ended(self.number, attempt, now, answer)

    def _is_framed(self) -> bool:
        return b"content-length" in self._headers or b"transfer-encoding" in self._headers
