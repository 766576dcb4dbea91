"""A sale that does as it is told: answers, delays, breaks off or keeps silent, claim by claim.

It runs in a thread of its own, so that a test can storm it from its own loop or from another
process, and it knows nothing of the code that it tests.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_TIMER_LATE_S = 0.002


@dataclass(frozen=True)
class Claim:
    """One request: how many came before it in all and on its connection, and what it asks."""

    number: int
    on_connection: int
    method: str
    path: str
    token: str


@dataclass(frozen=True)
class Act:
    """What to do with a claim: send `data` after `delay_s`, then stay, `close` or `reset`."""

    data: bytes = b""
    delay_s: float = 0.0
    then: str = "stay"


def http(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """A response with its length."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"HTTP/1.1 {status} Any\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body


def sold(order: int) -> bytes:
    """The answer to a claim that sold."""
    body = b'{"success":true,"data":%d}' % order
    return http(200, body, {"x-outcome": "sold", "x-order-id": str(order)})


SOLD_OUT = http(
    200,
    b'{"success":false,"errorMsg":"Insufficient inventory"}',
    {"x-outcome": "sold_out"},
)
SHED = http(503, b'{"success":false}', {"x-outcome": "shed", "retry-after": "1"})
FIRST_ORDER = 515385561440059393


def sell(units: int) -> Callable[[Claim], Act]:
    """A healthy sale of so many units."""

    def act(claim: Claim) -> Act:
        if claim.method != "POST":
            return Act(http(200, b'{"success":true,"data":{"state":"none"}}'))
        return Act(sold(FIRST_ORDER + claim.number) if claim.number < units else SOLD_OUT)

    return act


@dataclass
class ScriptedSale:
    """The sale at `base_url`; `claims` are those that came, and `reached(n)` waits for n."""

    script: Callable[[Claim], Act]
    claims: list[Claim] = field(default_factory=list)
    others: list[Claim] = field(default_factory=list)
    visitors: set[asyncio.Transport] = field(default_factory=set)
    connections: int = 0
    base_url: str = ""

    def __post_init__(self) -> None:
        self._changed = threading.Condition()

    def reached(self, claims: int, timeout_s: float = 20.0) -> bool:
        """Wait until so many claims have come."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.claims) >= claims, timeout_s)

    @contextmanager
    def open(self) -> Iterator["ScriptedSale"]:
        """Answer for as long as this lasts."""
        loop = asyncio.new_event_loop()
        listening = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            serving = loop.create_server(lambda: _Visitor(self), sock=listening, backlog=4096)
            self._server = asyncio.run_coroutine_threadsafe(serving, loop).result()
            self._loop = loop
            yield self
        finally:
            self.refuse()
            asyncio.run_coroutine_threadsafe(self._part(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def refuse(self) -> None:
        """Take no more connections; those that stand stay."""

        async def close() -> None:
            self._server.close()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result()

    async def _part(self) -> None:
        for visitor in list(self.visitors):
            visitor.abort()

    def refuse_soon(self) -> None:
        """The same, for a script: it runs in the loop that would have to wait for itself."""
        self._server.close()

    def take(self, claim: Claim) -> Act:
        """Note the request and ask the script."""
        with self._changed:
            (self.claims if claim.method == "POST" else self.others).append(claim)
            self._changed.notify_all()
        return self.script(claim)


class _Visitor(asyncio.Protocol):
    def __init__(self, sale: ScriptedSale) -> None:
        self._sale = sale
        self._data = b""
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._sale.visitors.add(transport)
        self._sale.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._sale.visitors.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            act = self._sale.take(self._claim(head.decode("latin-1")))
            self._perform_at(time.monotonic() + act.delay_s, act)

    def _claim(self, head: str) -> Claim:
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        self._count += 1
        posts = len(self._sale.claims)
        return Claim(posts, self._count - 1, method, path, headers.get("authorization", ""))

    def _perform_at(self, due_s: float, act: Act) -> None:
        """To the tenth of a millisecond: a timer of the loop alone may be a whole one late."""
        left_s = due_s - time.monotonic()
        loop = asyncio.get_running_loop()
        if left_s > _TIMER_LATE_S:
            loop.call_later(left_s - _TIMER_LATE_S, self._perform_at, due_s, act)
        elif left_s > 0:
            loop.call_soon(self._perform_at, due_s, act)
        else:
            self._perform(act)

    def _perform(self, act: Act) -> None:
        if self._transport.is_closing():
            return
        if act.data:
            self._transport.write(act.data)
        if act.then == "close":
            self._transport.close()
        elif act.then == "reset":
            linger = struct.pack("ii", 1, 0)  # a close that sends RST instead of FIN
            with suppress(OSError):
                found = self._transport.get_extra_info("socket")
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
