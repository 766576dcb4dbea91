"""The storm's connections: opened before the barrier, so many at a time, and again when lost; and
whether this machine has the open files and the ports that they take.
"""

import asyncio
import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns

from flashsale.errors import UnreachableError, UsageError
from flashsale.scenario.answer import CONNECT
from flashsale.scenario.scenario import Timeouts
from flashsale.scenario.target import Target
from flashsale.storm.attack.wire import IDLE, ClientConnection

HANDSHAKES_MAX = 64
"""Under way at once, so that a listen queue has a chance: Tomcat's takes 100, nginx' 511. A
handshake that overflows one is tried again by the kernel a second later, before the barrier."""

_COLD_HANDSHAKES_MAX = 1_000_000
"""As many as there are: how many a listen queue takes at a time is part of the question."""

_RETRY_FIRST_S, _RETRY_LAST_S = 0.02, 0.5

SOCKET = "socket"
_OWN_LACKS = frozenset(
    {
        errno.EADDRNOTAVAIL,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EACCES,
        errno.EPERM,
    }
)
"""Why this machine has no socket to connect with: no port, no descriptor, no memory, no leave.
Whatever else keeps a connection from standing is the target's doing, or the way's to it."""


class Connections:
    """`latest[number]` is the latest connection of that number, None until there was one.

    Where they are `cold` none is opened before the barrier: each is when its attempt is due.
    """

    def __init__(
        self,
        target: Target,
        count: int,
        timeouts: Timeouts,
        connection: Callable[[int], ClientConnection],
        cold: bool = False,
    ) -> None:
        self.latest: list[ClientConnection | None] = [None] * count
        self.connect_us: list[int] = []
        self._target, self._timeouts = target, timeouts
        self._connection, self._cold = connection, cold
        self._context = None if target.tls is None else target.tls.context()
        self._handshakes = asyncio.Semaphore(_COLD_HANDSHAKES_MAX if cold else HANDSHAKES_MAX)
        self._last_trouble = ""
        self._last_errno: int | None = None

    def __repr__(self) -> str:
        return f"<Connections open={len(self) - len(self._lost())} of {len(self)}>"

    def __len__(self) -> int:
        return len(self.latest)

    def in_flight(self) -> Iterator[ClientConnection]:
        """Those that wait for an answer."""
        for connection in self.latest:
            if connection is not None and connection.attempt != IDLE:
                yield connection

    async def open_all(self) -> None:
        """Open every one; those that are lost while others are opened are opened again.

        Raises UnreachableError where not all are open when `barrier_ms` have passed.
        """
        if self._cold:
            return
        try:
            async with asyncio.timeout(self._timeouts.barrier_ms / 1000):
                while lost := self._lost():
                    await asyncio.gather(*(self._open(number) for number in lost))
        except TimeoutError:
            trouble = f": {self._last_trouble}" if self._last_trouble else ""
            raise UnreachableError(
                f"{len(self) - len(self._lost()):,} of {len(self):,} connections to "
                f"{self._target.shown} stood after {self._timeouts.barrier_ms:,} ms "
                f"(timeouts.barrier_ms){trouble}"
            ) from None

    async def hold(self, for_ns: int) -> None:
        """Keep every one open for so long: servers drop connections that idle.

        Raises UnreachableError where one that was lost cannot be opened within `barrier_ms`.
        """
        await self.open_all()
        await asyncio.sleep(for_ns / 1e9)
        await self.open_all()

    async def reopen(self, number: int, due_ns: int) -> str | None:
        """Open one anew for an attempt that is due since `due_ns`, until `connect_ms` after that,
        but once at least. None when it stands, else the error of the attempt: CONNECT where the
        target took none, SOCKET where this machine had none to give."""
        limit_ns = self._timeouts.connect_ms * 1_000_000
        left_ns = limit_ns - (monotonic_ns() - due_ns)
        try:
            async with asyncio.timeout(max(0, left_ns) / 1e9 if left_ns > 0 else None):
                await self._open(number, forever=left_ns > 0)
        except OSError:  # a TimeoutError is one
            return SOCKET if self._last_errno in _OWN_LACKS else CONNECT
        return None

    def close(self) -> None:
        """Drop whatever is open."""
        for connection in self.latest:
            if connection is not None and connection.is_open:
                connection.abandon()

    def _lost(self) -> list[int]:
        return [
            number
            for number, connection in enumerate(self.latest)
            if connection is None or not connection.is_open
        ]

    async def _open(self, number: int, forever: bool = True) -> None:
        """Raises OSError for the first try that fails, unless it is tried `forever`."""
        pause_s = _RETRY_FIRST_S
        while True:
            try:
                self.latest[number] = await self._connect(number)
            except OSError as error:  # a TimeoutError is one
                self._last_trouble = error.strerror or "no answer to a handshake"
                self._last_errno = error.errno
                if not forever:
                    raise
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_LAST_S)
            else:
                return

    async def _connect(self, number: int) -> ClientConnection:
        async with self._handshakes:
            begun = monotonic_ns()
            async with asyncio.timeout(self._timeouts.connect_ms / 1000):
                connection = await self._stand(lambda: self._connection(number))
            self.connect_us.append((monotonic_ns() - begun) // 1000)
            return connection

    async def _stand(self, made: Callable[[], ClientConnection]) -> ClientConnection:
        """A connection with all of its handshake done, TLS's included."""
        loop, target = asyncio.get_running_loop(), self._target
        if target.socket:
            _, connection = await loop.create_unix_connection(made, target.socket)
        elif self._context is None:
            _, connection = await loop.create_connection(made, target.address, target.port)
        else:
            _, connection = await loop.create_connection(
                made,
                target.address,
                target.port,
                ssl=self._context,
                server_hostname=target.server_name,
            )
        return connection


SPARE_DESCRIPTORS = 64
"""Files, event loop, logs and the status polls, beside one descriptor a connection."""

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
SPARE_PORTS = 64
"""The preflight, the resolver, and whatever else this machine has to do there."""


def ensure_descriptors(connections: int) -> None:
    """Raise this process's limit on open files to what `connections` need.

    Raises UsageError where the system does not allow it.
    """
    needed = connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UsageError(
            f"{connections:,} connections need {needed:,} open files and the limit is {hard:,}; "
            f"raise it (`ulimit -n {needed}` as root, or LimitNOFILE), or lower load.connections"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def ensure_ports(connections: int) -> None:
    """See that there are as many ports as `connections` to one target take.

    Raises UsageError with the cure. Where the system does not tell its range, nothing is seen.
    """
    try:
        first, last = map(int, _RANGE.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return
    ports = last - first + 1
    if connections + SPARE_PORTS > ports:
        raise UsageError(
            f"{connections:,} connections need {connections + SPARE_PORTS:,} local ports and there "
            f'are {ports:,}; widen them (`sysctl -w net.ipv4.ip_local_port_range="1024 65535"`), '
            "storm in shards from several machines, or lower load.connections"
        )
