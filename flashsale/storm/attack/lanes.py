"""The storm's connections, one a lane: raised in bounded parallelism, and again when they fall."""

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic_ns

from flashsale.errors import UnreachableError
from flashsale.scenario.scenario import Timeouts
from flashsale.scenario.target import Target
from flashsale.storm.attack.wire import IDLE, Connection

HANDSHAKES_MAX = 64
"""Under way at once, so that a listen queue has a chance: Tomcat's takes 100, nginx' 511. A
handshake that overflows one is tried again by the kernel a second later, before the barrier."""

_RETRY_FIRST_S, _RETRY_LAST_S = 0.02, 0.5


class Lanes:
    """`connections[lane]` is the lane's latest connection, None until there was one."""

    _handshakes_max = HANDSHAKES_MAX

    def __init__(
        self,
        target: Target,
        count: int,
        timeouts: Timeouts,
        connection: Callable[[int], Connection],
    ) -> None:
        self.connections: list[Connection | None] = [None] * count
        self.connect_us: list[int] = []
        self._target = target
        self._timeouts = timeouts
        self._connection = connection
        self._handshakes = asyncio.Semaphore(self._handshakes_max)
        self._last_trouble = ""

    def __repr__(self) -> str:
        return f"<Lanes standing={len(self) - len(self._fallen())} of {len(self)}>"

    def __len__(self) -> int:
        return len(self.connections)

    def in_flight(self) -> Iterator[Connection]:
        """The connections that wait for an answer."""
        for connection in self.connections:
            if connection is not None and connection.attempt != IDLE:
                yield connection

    async def assemble(self) -> None:
        """Raise every lane; those that fall while others rise are raised again.

        Raises UnreachableError where not all stand when `barrier_ms` have passed.
        """
        try:
            async with asyncio.timeout(self._timeouts.barrier_ms / 1000):
                while fallen := self._fallen():
                    await asyncio.gather(*(self._raise(lane) for lane in fallen))
        except TimeoutError:
            trouble = f": {self._last_trouble}" if self._last_trouble else ""
            raise UnreachableError(
                f"{len(self) - len(self._fallen()):,} of {len(self):,} connections to "
                f"{self._target.base_url} stood after {self._timeouts.barrier_ms:,} ms "
                f"(timeouts.barrier_ms){trouble}"
            ) from None

    async def hold(self, for_ns: int) -> None:
        """Keep every lane standing for so long: servers drop connections that idle.

        Raises UnreachableError where one that fell cannot be raised within `barrier_ms`.
        """
        await self.assemble()
        await asyncio.sleep(for_ns / 1e9)
        await self.assemble()

    async def revive(self, lane: int) -> Connection:
        """A new connection for `lane`. Raises TimeoutError when `connect_ms` have passed."""
        async with asyncio.timeout(self._timeouts.connect_ms / 1000):
            return await self._raise(lane)

    def disperse(self) -> None:
        """Close whatever stands."""
        for connection in self.connections:
            if connection is not None and connection.is_open:
                connection.abandon()

    def _fallen(self) -> list[int]:
        return [
            lane
            for lane, connection in enumerate(self.connections)
            if connection is None or not connection.is_open
        ]

    async def _raise(self, lane: int) -> Connection:
        pause_s = _RETRY_FIRST_S
        while True:
            try:
                connection = await self._connect(lane)
            except OSError as error:  # a TimeoutError is one
                self._last_trouble = error.strerror or "no answer to a handshake"
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_LAST_S)
            else:
                self.connections[lane] = connection
                return connection

    async def _connect(self, lane: int) -> Connection:
        async with self._handshakes:
            begun = monotonic_ns()
            async with asyncio.timeout(self._timeouts.connect_ms / 1000):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: self._connection(lane), self._target.address, self._target.port
                )
            self.connect_us.append((monotonic_ns() - begun) // 1000)
            return connection


class ColdLanes(Lanes):
    """Nothing is raised before it is needed, and then at once: how many handshakes the target's
    listen queue takes at a time is part of the question."""

    _handshakes_max = 1_000_000

    async def assemble(self) -> None:
        """Nothing: each lane is raised at the instant of its attempt."""

    async def hold(self, for_ns: int) -> None:
        """Wait for so long."""
        await asyncio.sleep(for_ns / 1e9)
