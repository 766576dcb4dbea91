"""One connection: requests in, answers out in the same order, each wait with an end.

uvloop calls `data_received`, an exchange `write`, `answered` and `failed`. Everything runs in the
loop's one thread.

Requests wait in `_line`; the first is with the application where `_is_busy`. Where the line is
full, or the client does not read its answers, nothing more is parsed and nothing more is read.
After a request that breaks the protocol nothing on the connection can be believed any more: what
came before it is answered, it is refused, and the connection closes. It closes by ending our side
first and listening on for a while, since a socket that is closed with unread bytes in it resets,
and the client would lose the answer.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from flashsale.server.http.exchange import Exchange
from flashsale.server.http.heads import TOO_MANY_CONNECTIONS, TOO_SLOW, Ends, whole_answer
from flashsale.server.http.incoming import Incoming, Sizes
from flashsale.server.response import Response

LINGER_S = 2.0
"""How long the client may take to end its side after ours."""

_SLICE = 4_096  # bytes that are parsed before the line is looked at again
_NEVER = float("inf")


class Limits(NamedTuple):
    """Bounds of one connection: sizes in bytes, times in seconds."""

    sizes: Sizes
    pipeline_max: int
    write_buffer_max: int
    head_s: float
    body_s: float
    idle_s: float
    send_s: float


class Host(Protocol):
    """The server, as its connections know it."""

    limits: Limits
    now_s: float
    is_draining: bool

    def admit(self, connection: "Connection") -> bool:
        """Take it in; False where there are too many."""

    def forget(self, connection: "Connection") -> None:
        """It is gone."""

    def begin(self, exchange: Exchange) -> None:
        """Let the application serve it."""

    def refused(self, status: int) -> None:
        """A request was refused without the application."""

    def status_line(self, status: int) -> bytes:
        """The first lines of an answer."""


class Connection(asyncio.Protocol):
    """One client's connection. Past `due_s` on the server's clock it wants `expire` called."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._limits = host.limits
        self._line: list[Exchange] = []
        self._unfed: bytes | memoryview = b""
        self._unclogged: list[asyncio.Future[None]] = []
        self._is_busy = self._is_pumping = self._is_paused = self._is_closing = False
        self._head_due_s = _NEVER
        self._close_by_s = _NEVER
        self.is_clogged = self.has_ended = False
        self.due_s = host.now_s + self._limits.idle_s
        self.status_line = host.status_line

    def __repr__(self) -> str:
        return f"<Connection waiting={len(self._line)} busy={self._is_busy} {self._incoming!r}>"

    @property
    def is_at_work(self) -> bool:
        """Whether a request is on its way in, with the application, or on its way out."""
        incoming = self._incoming
        reads = incoming.in_head or incoming.reading is not None or bool(self._unfed)
        return reads or bool(self._line) or self.is_clogged

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write: Callable[[bytes], None] = self._transport.write
        address = transport.get_extra_info
        ends = Ends(_tcp(address("peername")), _tcp(address("sockname")))
        self._incoming = Incoming(self, self._line, ends, self._limits.sizes)
        if self._host.admit(self):
            self._transport.set_write_buffer_limits(high=self._limits.write_buffer_max)
        elif not self._is_closing:
            self._tell(TOO_MANY_CONNECTIONS)

    def data_received(self, data: bytes) -> None:
        if self._incoming.is_over:
            return
        self._unfed = bytes(self._unfed) + data if self._unfed else data
        self._pump()

    def eof_received(self) -> bool:
        self.has_ended = True
        if self._is_closing or not (self._line or self._unfed):
            return False  # nobody waits for an answer: asyncio closes
        if not self._unfed:
            self._incoming.hang_up()
        for exchange in self._line:
            exchange.wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop()
        self._unclog()
        self._host.forget(self)

    def pause_writing(self) -> None:
        self.is_clogged = True
        self._schedule()
        self._flow()

    def resume_writing(self) -> None:
        self._unclog()
        self._schedule()
        self._pump_soon()

    # What the application's answers call.

    def closes_next(self) -> bool:
        """Whether the next answer is the last one."""
        return self._host.is_draining or (self.has_ended and len(self._line) == 1)

    def answered(self, exchange: Exchange) -> None:
        """The first of the line has its answer: the next one, if the connection stays."""
        del self._line[0]
        self._is_busy = False
        if not exchange.keeps or (self.has_ended and not (self._line or self._unfed)):
            self._close(in_peace=exchange.is_whole and self._incoming.is_over)
        elif self._line or self._unfed:
            self._pump_soon()
        elif not self._is_pumping:
            self._schedule()

    def failed(self, exchange: Exchange, response: Response | None) -> None:
        """The first of the line has no answer but this."""
        self._is_busy = False
        if response is None:
            self.abort()
        else:
            self._tell(response, exchange)

    async def unclogged(self) -> None:
        """Return when the client reads again, or is gone."""
        waiter = asyncio.get_running_loop().create_future()
        self._unclogged.append(waiter)
        await waiter

    # What the server calls.

    def expire(self) -> None:
        """What was waited for has not come in time."""
        if self.is_clogged:
            self.abort()
        elif self._is_closing:
            slow = self._transport.get_write_buffer_size() and self._host.now_s < self._close_by_s
            if not slow:
                self.abort()
        elif self._incoming.in_head or self._incoming.reading is not None:
            self._refuse(TOO_SLOW)
            self._pump()
        else:
            self.close()

    def close(self) -> None:
        """Close an idle connection."""
        self._close(in_peace=True)

    def abort(self) -> None:
        """Cut it off, whatever is under way."""
        self._drop()
        self._transport.abort()

    # What follows from it.

    def _pump(self) -> None:
        """Parse what has come, and begin what can begin."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            if self._unfed:
                self._parse_and_begin()
            self._begin()
        except BaseException:
            self.abort()  # a bug here must not leave a client waiting
            raise
        self._is_pumping = False
        if not self._is_closing:
            if self._unfed or self._is_paused or len(self._line) >= self._limits.pipeline_max:
                self._flow()
            self._schedule()

    def _pump_soon(self) -> None:
        """Not from here: this may be a task, in which no other can begin."""
        if not self._is_pumping:
            asyncio.get_running_loop().call_soon(self._pump)

    def _parse_and_begin(self) -> None:
        incoming, depth = self._incoming, self._limits.pipeline_max
        while self._unfed and len(self._line) < depth and not (incoming.is_over or self.is_clogged):
            data = self._unfed
            if len(data) <= _SLICE:
                self._unfed = b""
            else:
                rest = memoryview(data)
                data, self._unfed = rest[:_SLICE], rest[_SLICE:]
            refusal = incoming.feed(data)
            if refusal is not None:
                self._refuse(refusal)
            if not self._unfed:
                break
            self._begin()
        if incoming.is_over:
            self._unfed = b""
        elif self.has_ended and not self._unfed:
            incoming.hang_up()

    def _begin(self) -> None:
        while self._line and not (self._is_busy or self.is_clogged or self._is_closing):
            exchange = self._line[0]
            if exchange.refusal is not None:
                self._tell(exchange.refusal, exchange)
            else:
                self._is_busy = True
                self._host.begin(exchange)

    def _refuse(self, response: Response) -> None:
        """Answer what is being read by this, after what came before it, and close."""
        exchange = self._incoming.give_up()
        if exchange.is_finished:
            self._close()
        elif exchange.has_started:
            exchange.hang_up()
        elif self._is_busy and exchange is self._line[0]:
            exchange.disconnect()
            self._tell(response, exchange)
        else:
            exchange.refusal = response

    def _tell(self, response: Response, exchange: Exchange | None = None) -> None:
        """Answer in the application's place, and close."""
        self._host.refused(response.status)
        line = self._host.status_line(response.status)
        with_body = exchange is None or exchange.scope["method"] != "HEAD"
        self.write(whole_answer(line, response, with_body=with_body))
        self._close()

    def _close(self, *, in_peace: bool = False) -> None:
        """End our side; `in_peace` where nothing more is on its way from the client."""
        self._drop()
        self._close_by_s = self._host.now_s + self._limits.send_s
        self._schedule()
        if in_peace or self.has_ended or self._transport.is_closing():
            self._transport.close()
            return
        self._transport.write_eof()
        self._flow()

    def _drop(self) -> None:
        """From now on nothing is read, and nobody is answered."""
        self._is_closing = True
        self._is_busy = False
        self._unfed = b""
        self._incoming.drop()
        for exchange in self._line:
            exchange.disconnect()
        self._line.clear()

    def _unclog(self) -> None:
        self.is_clogged = False
        for waiter in self._unclogged:
            if not waiter.done():
                waiter.set_result(None)
        self._unclogged.clear()

    def _flow(self) -> None:
        """Read, or leave the client's bytes where they are."""
        full = bool(self._unfed) or len(self._line) >= self._limits.pipeline_max or self.is_clogged
        pause = full and not self._is_closing
        if pause is not self._is_paused and not self._transport.is_closing():
            self._is_paused = pause
            if pause:
                self._transport.pause_reading()
            elif not self.has_ended:
                self._transport.resume_reading()

    def _schedule(self) -> None:
        """When `expire` is due, by what is waited for now."""
        limits, now_s, incoming = self._limits, self._host.now_s, self._incoming
        if incoming.begins:
            incoming.begins = False
            self._head_due_s = now_s + limits.head_s
        if self.is_clogged:
            self.due_s = now_s + limits.send_s
        elif self._is_closing:
            self.due_s = now_s + LINGER_S
        elif incoming.in_head:
            self.due_s = self._head_due_s
        elif incoming.reading is not None:
            self.due_s = now_s + limits.body_s
        elif self._line:
            self.due_s = _NEVER  # the application has time-outs of its own
        else:
            self.due_s = now_s + limits.idle_s


def _tcp(address: Any) -> tuple[str, int] | None:
    return (address[0], address[1]) if isinstance(address, tuple) else None
