"""Flights: one load of a key at a time in one process, shared by whoever may share it.

A reader may take a value only if the operation that produced it began after the reader came:
else an update could have been committed, and its delete done, between the two, and the reader
would see older data. So a flight counts its operations, and each reader remembers the count.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from flashsale.cache.entry import Source


@dataclass(frozen=True, slots=True)
class Landed:
    """What a flight brought: `body` as encoded, and the operation that it is as fresh as."""

    body: bytes
    source: Source
    as_of: int


@dataclass(slots=True, eq=False)
class Flight:
    """One load under way."""

    landed: asyncio.Future[Landed]
    operations: int = 0

    def begin(self) -> int:
        """Count one more operation; call it right before sending or loading."""
        self.operations += 1
        return self.operations


Fly = Callable[[Flight], Awaitable[Landed]]


class Flights:
    """The flights of one kind of thing, by key. They survive the cancellation of every reader."""

    def __init__(self) -> None:
        self._open: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Flights open={len(self._tasks)}>"

    @property
    def are_open(self) -> bool:
        """True while one is under way."""
        return bool(self._tasks)

    async def fresh(self, key: str, fly: Fly) -> tuple[Landed, bool]:
        """A value no older than this call, and whether it came of a flight that we began.

        Raises what `fly` raises.
        """
        flight, is_ours = self._join(key, fly)
        joined_at = flight.operations
        landed = await asyncio.shield(flight.landed)
        if joined_at >= landed.as_of:
            # Too old for us. Whatever flies now began after that one had landed, and so after we
            # came: at most two flights for anybody.
            flight, is_ours = self._join(key, fly)
            landed = await asyncio.shield(flight.landed)
        return landed, is_ours

    async def land(self) -> None:
        """Wait for every flight under way; their trouble is their readers'."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _join(self, key: str, fly: Fly) -> tuple[Flight, bool]:
        flight = self._open.get(key)
        if flight is not None:
            return flight, False
        flight = self._open[key] = self._start(key, fly)
        return flight, True

    def _start(self, key: str, fly: Fly) -> Flight:
        loop = asyncio.get_running_loop()
        flight = Flight(loop.create_future())
        task = loop.create_task(self._run(key, flight, fly))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight

    async def _run(self, key: str, flight: Flight, fly: Fly) -> None:
        landed = flight.landed
        try:
            result = await fly(flight)
        except asyncio.CancelledError:
            self._close(key, flight)
            landed.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the loader's own, raised to every reader
            self._close(key, flight)
            landed.set_exception(error)
            landed.exception()  # looked at, should no reader be left
        else:
            self._close(key, flight)
            landed.set_result(result)

    def _close(self, key: str, flight: Flight) -> None:
        """Before the result is out: whoever comes now would be too late for it."""
        assert self._open.pop(key) is flight
