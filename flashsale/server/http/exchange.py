"""One exchange: a request with its body as it comes in, and the answer to it as it goes out."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import structlog

from flashsale.server.http.heads import (
    BODYLESS,
    CHUNKED,
    CONTINUE,
    INTERNAL,
    Framing,
    Start,
    answer_start,
)
from flashsale.server.response import Response

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

log = structlog.get_logger(__name__)

ANSWER = "flashsale.answer"
"""In a scope of this server: the exchange, whose `answer` takes a whole answer at once, in place of
two events. Where it is, the bounds of a head have been seen to."""


class ExchangeConnection(Protocol):
    """What an exchange asks of its connection."""

    is_clogged: bool  # the client does not read
    has_ended: bool  # the client sends no more; it may still read

    def status_line(self, status: int) -> bytes:
        """The first lines of an answer."""

    def closes_next(self) -> bool:
        """Whether the next answer is the last one, whatever the client wants."""

    def write(self, data: bytes) -> None:
        """Send it."""

    def answered(self, exchange: "Exchange") -> None:
        """The whole answer was written."""

    def failed(self, exchange: "Exchange", response: Response | None) -> None:
        """There is no answer but `response`, or the one that began is torn where it is None."""

    async def unclogged(self) -> None:
        """Return when the client reads again, or is gone."""


_ANSWERED: Start = (b"", 0, False)


class Exchange:
    """`receive` and `send` of one ASGI scope."""

    refusal: Response | None = None  # answered in the application's place
    has_started = is_finished = is_whole = False
    _is_read = _is_gone = _is_chunked = _is_bodyless = False
    _size = 0
    _left: int | None = None  # bytes of the body that were announced, and not sent
    _start: Start | None = None
    _waiters: list[asyncio.Future[None]] | None = None

    def __init__(
        self,
        link: ExchangeConnection,
        scope: MutableMapping[str, Any],
        framing: Framing,
        keeps: bool,
    ) -> None:
        self._link = link
        self.scope = scope
        self.keeps = keeps  # the connection, after the answer
        self._length, self._asks = framing
        self._parts: list[bytes] = []
        scope[ANSWER] = self

    def __repr__(self) -> str:
        return (
            f"<Exchange {self.scope.get('method')} {self.scope.get('path')} "
            f"whole={self.is_whole} finished={self.is_finished}>"
        )

    # What the connection tells.

    def feed(self, part: bytes) -> int:
        """A part of the body came; the size of the body until now. Nobody may want it any more."""
        self._asks = False  # whoever sends without being asked does not wait
        self._size += len(part)
        if not (self.is_finished or self._is_gone):
            self._parts.append(part)
            self.wake()
        return self._size

    def complete(self) -> None:
        """The body is whole."""
        self.is_whole = True
        self._asks = False
        if self._waiters:
            self.wake()

    def disconnect(self) -> None:
        """Nothing more will be read for this exchange, and nothing that it sends matters."""
        self._is_gone = True
        self.wake()

    def hang_up(self) -> None:
        """The client ended its side in the middle of the body; it may still read an answer."""
        self.keeps = False
        self._asks = False
        self._length = 0
        self._is_read = True
        self._parts.clear()
        self.wake()

    def ended(self, error: BaseException | None) -> None:
        """The application has returned, or raised."""
        cut_off = self._is_gone and isinstance(error, asyncio.CancelledError)
        if error is not None and not cut_off:
            log.error("the application failed", path=self.scope.get("path"), exc_info=error)
        if self.is_finished or self._is_gone:
            return
        if error is None:
            log.error("the application gave no answer", path=self.scope.get("path"))
        self._link.failed(self, None if self.has_started else INTERNAL)

    # What the application calls.

    async def receive(self) -> Message:
        """The next part of the body, or `http.disconnect` when there is nothing to wait for."""
        while True:
            if not self._is_read and (self._parts or self.is_whole):
                body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts.clear()
                self._is_read = self.is_whole
                return {"type": "http.request", "body": body, "more_body": not self.is_whole}
            if self._is_gone or self.is_finished or (self._is_read and self._link.has_ended):
                return {"type": "http.disconnect"}
            if self._asks and not self.has_started:
                self._asks = False
                self._link.write(CONTINUE)
            await self._news()

    async def send(self, message: Message) -> None:
        """The head of the answer, kept until its body comes; or a part of the body."""
        if self._is_gone:
            return
        kind = message["type"]
        if kind == "http.response.start":
            if self._start is not None:
                raise RuntimeError("the answer has begun already")
            status = message["status"]
            line = self._link.status_line(status)
            self._start = answer_start(line, message.get("headers", ()))
            self._is_bodyless = status in BODYLESS
            return
        if kind != "http.response.body" or self._start is None or self.is_finished:
            raise RuntimeError(f"{kind} is out of place")
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.has_started:
            data = self._framed(body, more)
        else:
            data = self._first(self._start, body, more)
            self.has_started = True
        if data:
            self._link.write(data)
        if not more:
            self.is_finished = True
            if self._waiters:
                self.wake()
            self._link.answered(self)
        elif self._link.is_clogged:
            await self._link.unclogged()

    def answer(self, response: Response) -> None:
        """As `send` for both events of an answer of ours."""
        if self._is_gone:
            return
        if self._start is not None:
            raise RuntimeError("the answer has begun already")
        status, body, head = response
        link = self._link
        self._start = _ANSWERED
        self.has_started = self.is_finished = True
        unread = not self.is_whole and (self._asks or self._length == CHUNKED)
        if unread or link.closes_next():
            self.keeps = False
        end = b"\r\n" if self.keeps else b"connection: close\r\n\r\n"
        if self.scope["method"] == "HEAD":
            body = b""
        link.write(b"%b%b%b%b" % (link.status_line(status), head, end, body))
        if self._waiters:
            self.wake()
        link.answered(self)

    def _first(self, start: Start, body: bytes, more: bool) -> bytes:
        """Head and first part as one piece, so that an answer in one part is one write."""
        head, length, closes = start
        # A body that was not asked for, or has no length, cannot be waited for: it may never come.
        unread = not self.is_whole and (self._asks or self._length == CHUNKED)
        if closes or unread or self._link.closes_next():
            self.keeps = False
        if length is None and not self._is_bodyless:
            if not more:
                length = len(body)
                head += b"content-length: %d\r\n" % length
            elif self.scope["http_version"] == "1.1":
                self._is_chunked = True
                head += b"transfer-encoding: chunked\r\n"
            else:
                self.keeps = False  # the end of the connection is the end of the body
        if not (self.keeps or closes):
            head += b"connection: close\r\n"
        self._left = length
        return b"%b\r\n%b" % (head, self._framed(body, more))

    def _framed(self, body: bytes, more: bool) -> bytes:
        if self._is_bodyless or self.scope["method"] == "HEAD":
            return b""
        if self._is_chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body is not as long as was announced")
        return body

    async def _news(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()
