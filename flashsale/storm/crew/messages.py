"""What the processes of one storm tell each other, over a socket that nobody else has an end of.

A process that fires is told its `Mission` first.
"""

import asyncio
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from flashsale.errors import FlashsaleError
from flashsale.storm.crew.outcomes import OutcomeColumns
from flashsale.storm.figures.effort import ProcessEffort

_LENGTH_BYTES = 8


class Channel(asyncio.Protocol):
    """Both directions at once; nothing here waits. Each message is a pickle behind its length."""

    def __init__(self, heard: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._heard, self._lost = heard, lost
        self._data = bytearray()

    def __repr__(self) -> str:
        return f"<Channel unread={len(self._data)}>"

    def tell(self, message: object) -> None:
        """Send it, now or as soon as the other side reads on."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._transport.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    def close(self) -> None:
        """Send what was told, then say goodbye."""
        self._transport.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._data[:_LENGTH_BYTES], "big")
            if len(self._data) < end:
                return
            with memoryview(self._data) as view:
                message = pickle.loads(view[_LENGTH_BYTES:end])  # noqa: S301 - our own process
            del self._data[:end]
            self._heard(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


@dataclass(frozen=True)
class Go:
    """To a process: the barrier opens at this instant of the clock that all processes share."""

    at_ns: int


@dataclass(frozen=True)
class Stop:
    """To a process: send nothing more. Told twice, do not wait for answers either."""

    reason: str


@dataclass(frozen=True)
class Standing:
    """From a process: every connection is up."""


@dataclass(frozen=True)
class Told:
    """From a process: new outcomes, and how many attempts wait for an answer."""

    outcomes: OutcomeColumns
    in_flight: int


@dataclass(frozen=True)
class Trouble:
    """From a process: it cannot go on, for a reason that the user can cure, or by a defect."""

    error: FlashsaleError | None
    trace: str = ""


@dataclass(frozen=True)
class Done:
    """From a process: every attempt of its part has an outcome; how it did."""

    effort: ProcessEffort
