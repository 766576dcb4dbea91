"""The server: listening sockets, the clock of its connections, and how it ends.

server = Server(app, settings)
await server.start(listen("127.0.0.1", 8081))
…
await server.drain(10.0)
await server.aclose()
"""

import asyncio
import ctypes
import os
import resource
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import structlog

from flashsale.server.http.connection import Connection, Limits
from flashsale.server.http.exchange import Application, Exchange, Message
from flashsale.server.http.heads import status_line
from flashsale.server.http.incoming import Sizes
from flashsale.server.http.tasks import StandingTasks
from flashsale.settings import ReplicaSettings

_SWEEP_S = 0.25
_TURNED_AWAY_MAX = 256  # connections beyond the limit that are told so at a time; others are cut
_IDLE_TASKS_MAX = 1_024
_DESCRIPTORS_SPARED = 256  # for stores, logs and files
_SO_ATTACH_FILTER = 26  # socket(7)
_BPF_RETURN = 0x06  # a filter's instruction: keep so many bytes of the packet
_QUIET_S = 0.02
_GONE_S = 1.0

log = structlog.get_logger(__name__)


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of `host`. Raises OSError, naming what is wrong."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in found:
            one = socket.socket(family, kind, protocol)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # 0.0.0.0 is another socket's
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(1)  # another who listens here is found out now
            one.setblocking(False)
    except OSError:
        for one in bound:
            one.close()
        raise
    return bound


def listen_unix(path: Path) -> socket.socket:
    """A Unix socket that nobody but this user may connect to, in the place of a dead one."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and one.connect_ex(str(path)) != 0:
            path.unlink()
        one.close()
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)  # from its first instant, not only after a chmod
        try:
            one.bind(str(path))
        finally:
            os.umask(mask)
        one.listen(1)
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one


class Server:
    """An HTTP/1.1 server of one ASGI application, on the running loop."""

    def __init__(
        self,
        app: Application,
        settings: ReplicaSettings,
        on_refusal: Callable[[int], None] = lambda status: None,
    ) -> None:
        self._app = app
        self._backlog = settings.backlog
        self._connections_max = _connections(settings.connections_max)
        self.limits = _limits(settings)
        self.refused = on_refusal
        self.is_draining = False
        self._begun = 0
        self._connections: set[Connection] = set()
        self._turned_away: set[Connection] = set()
        self._is_empty = asyncio.Event()
        self._listeners: list[tuple[asyncio.AbstractServer, socket.socket]] = []
        self._lines: dict[int, bytes] = {}
        self._loop = asyncio.get_running_loop()
        self.now_s = self._loop.time()
        self._tasks = StandingTasks(_IDLE_TASKS_MAX)
        self._lifespan = _Lifespan(app)
        self._sweeper: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Server connections={len(self._connections)} draining={self.is_draining}>"

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Start the application, then serve on these bound sockets, which are ours from now on."""
        await self._lifespan.start()
        self._sweep()
        for one in sockets:
            unix = one.family == socket.AF_UNIX
            serve: Any = self._loop.create_unix_server if unix else self._loop.create_server
            server = await serve(lambda: Connection(self), sock=one, backlog=self._backlog)
            self._listeners.append((server, one))

    async def drain(self, timeout_s: float) -> int:
        """Take no more connections, answer what is under way, close; how many had to be cut off.

        Every answer from now on closes its connection. Idle ones are closed once no request has
        come for a moment: a request may be on its way on any of them.
        """
        self.is_draining = True
        await self._stop_listening()
        give_up_s = self._loop.time() + timeout_s
        quiet = 0
        while quiet < 3 and self._loop.time() < give_up_s:
            begun = self._begun
            await asyncio.sleep(_QUIET_S)
            quiet = 0 if self._is_at_work or self._begun > begun else quiet + 1
        for connection in [*self._connections]:
            if not connection.is_at_work:
                connection.close()
        self._tell_when_gone()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_empty.wait(), _GONE_S)
        cut = sum(one.is_at_work for one in self._connections)
        for connection in [*self._connections]:
            connection.abort()
        return cut

    async def aclose(self) -> None:
        """End whatever is left, and the application."""
        await self._stop_listening()
        for connection in [*self._connections, *self._turned_away]:
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.sleep(0)  # connections learn that they are gone
        await self._tasks.aclose()
        await self._lifespan.stop()

    # What connections ask.

    def admit(self, connection: Connection) -> bool:
        """Take it in; False where there are too many."""
        if len(self._connections) < self._connections_max:
            self._connections.add(connection)
            return True
        if len(self._turned_away) < _TURNED_AWAY_MAX:
            self._turned_away.add(connection)
        else:
            connection.abort()
        return False

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.discard(connection)
        self._turned_away.discard(connection)
        self._tell_when_gone()

    def begin(self, exchange: Exchange) -> None:
        """Let the application serve it."""
        self._begun += 1
        work: Any = self._app(exchange.scope, exchange.receive, exchange.send)
        self._tasks.run(work, exchange.ended)

    def status_line(self, status: int) -> bytes:
        """The first lines of an answer, made once a tick for each status."""
        line = self._lines.get(status)
        if line is None:
            date = formatdate(usegmt=True).encode("ascii")
            line = self._lines[status] = status_line(status, date)
        return line

    # What follows from it.

    @property
    def _is_at_work(self) -> bool:
        """Whether a request is under way, also one whose client has gone."""
        return self._tasks.busy > 0 or any(one.is_at_work for one in self._connections)

    def _tell_when_gone(self) -> None:
        if self.is_draining and not self._connections:
            self._is_empty.set()

    def _sweep(self) -> None:
        """Set the clock that all connections read, and tell those whose time has run out."""
        self.now_s = now_s = self._loop.time()
        self._lines.clear()
        for group in (self._connections, self._turned_away):
            for connection in [one for one in group if one.due_s <= now_s]:
                connection.expire()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    async def _stop_listening(self) -> None:
        """Stop, and accept whom the kernel has let in already: they have perhaps sent a request."""
        listeners, self._listeners = self._listeners, []
        for server, one in listeners:
            queue = one.dup()  # keeps the queue while the loop's own socket is closed
            _let_nobody_in(queue)
            server.close()
            await asyncio.sleep(0)
            with queue:
                while True:
                    try:
                        client, _ = queue.accept()
                    except OSError:
                        break
                    client.setblocking(False)
                    await self._loop.connect_accepted_socket(lambda: Connection(self), client)


def _let_nobody_in(listener: socket.socket) -> None:
    """Have the kernel drop what arrives for a listener, from now until it is closed.

    Else a client is let in between the last look at the queue and its end, and gets a reset for
    the request that it sent. A handshake that is dropped is tried again in a second, and refused.
    """
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    with suppress(OSError):  # a Unix socket has no packets
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _limits(settings: ReplicaSettings) -> Limits:
    return Limits(
        Sizes(
            target_max=settings.target_bytes_max,
            head_max=settings.header_bytes_max,
            headers_max=settings.headers_max,
            body_max=settings.body_bytes_max,
            body_max_of=settings.larger_bodies,
        ),
        pipeline_max=settings.pipeline_max,
        write_buffer_max=settings.write_buffer_bytes_max,
        head_s=settings.header_timeout_ms / 1000,
        body_s=settings.body_timeout_ms / 1000,
        idle_s=settings.idle_timeout_ms / 1000,
        send_s=settings.send_timeout_ms / 1000,
    )


def _connections(wanted: int) -> int:
    """Never more than there are descriptors for: what cannot be accepted waits for ever."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        wanted
        if soft == resource.RLIM_INFINITY
        else max(1, min(wanted, soft - _DESCRIPTORS_SPARED))
    )


class _Lifespan:
    """The application's own start and end, where it has them."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises RuntimeError where the application says that it cannot start."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        answer = await self._tell("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            raise RuntimeError(answer.get("message") or "the application did not start")

    async def stop(self) -> None:
        if self._task is not None:
            await self._tell("lifespan.shutdown")
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        await self._app(scope, self._events.get, self._answers.put)

    async def _tell(self, kind: str) -> Message | None:
        """Tell it, and wait for what it says; None where it does not take part."""
        assert self._task is not None
        await self._events.put({"type": kind})
        answer = asyncio.get_running_loop().create_task(self._answers.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None
