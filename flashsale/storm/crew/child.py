"""One process of a crew, from its own side: `python -m flashsale.storm.crew.child DESCRIPTOR`.

It is told its part of the plan over the inherited socket, raises its connections, fires from the
instant that all processes are told, and tells of every outcome. When the socket ends it ends, too.
"""

import asyncio
import os
import signal
import socket
import sys
import traceback
from collections import Counter
from time import monotonic_ns

import uvloop

from flashsale.errors import FlashsaleError
from flashsale.model import Ending
from flashsale.run.attempts import Attempts
from flashsale.storm.attack.attack import Mission, Progress, Records, SelfWatch
from flashsale.storm.attack.connections import ensure_descriptors
from flashsale.storm.attack.engine import Engine
from flashsale.storm.attack.instants import Hold
from flashsale.storm.crew.messages import (
    Done,
    Failed,
    Go,
    NewOutcomes,
    Pipe,
    Ready,
    StopSending,
    outcomes_since,
)
from flashsale.storm.figures.generator import ProcessEffort

HEARTBEAT_NS = 100_000_000
_HOLD_S = 1.0


class Reporter:
    """Tells outcomes over a channel: the writer of an engine whose record is kept
    elsewhere."""

    def __init__(self, channel: Pipe, numbers: "list[int]") -> None:
        self._channel, self._numbers = channel, numbers
        self._told = self._spared = self._told_at_ns = self._looked_at_ns = 0
        self._in_flight = 0
        self.outcomes: Counter[Ending] = Counter()

    def __repr__(self) -> str:
        return f"<Reporter told={self._told}>"

    def write_barrier(self, unix_us: int) -> None:
        """Nothing: who opened it has written it."""

    def write_results(self, attempts: Attempts) -> None:
        """Tell what is new; without news, that all is well.

        Outcomes are entered with the instant at which the callback began that settles them, so
        those that are still to come are later than the look before this one.
        """
        now, before = monotonic_ns(), self._looked_at_ns
        self._looked_at_ns = now
        is_news = len(attempts.arrivals) > self._told or len(attempts.spared) > self._spared
        if is_news or now - self._told_at_ns >= HEARTBEAT_NS:
            news = outcomes_since(attempts, self._told, self._numbers, before, self._spared)
            self._told, self._told_at_ns = len(attempts.arrivals), now
            self._spared = len(attempts.spared)
            self._channel.tell(NewOutcomes(news, self._in_flight))

    def note(self, progress: Progress) -> None:
        """Remember what the next message is to say of the attempts in flight."""
        self._in_flight = progress.in_flight


class Child:
    """The process: from its mission to its report."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._mission: asyncio.Future[Mission] = loop.create_future()
        self._go: asyncio.Future[int] = loop.create_future()
        self._engine: Engine | None = None
        self._over = loop.create_future()
        self._leaving = False

    async def serve(self, end: socket.socket) -> None:
        """Do what is told over `end`, until it is done."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(
            lambda: Pipe(self._hear, self._part), sock=end
        )
        self._channel = channel
        try:
            channel.tell(await self._fire(await self._mission))
        except FlashsaleError as error:
            channel.tell(Failed(error))
        except Exception:  # noqa: BLE001 - the outermost frame of a process: it is told, not lost
            channel.tell(Failed(None, traceback.format_exc()))
        self._leaving = True
        channel.close()
        await self._over

    async def _fire(self, mission: Mission) -> Done:
        plan = mission.plan
        ensure_descriptors(plan.connection_count)
        attempts, watch = Attempts(len(plan)), SelfWatch()
        reporter = Reporter(self._channel, list(plan.numbers))
        self._engine = engine = Engine(
            mission, Records(attempts, reporter, watch), reporter.note, self._barrier
        )
        await engine.run()
        effort = engine.effort()
        return Done(
            ProcessEffort(
                name="",  # whoever gave the part its number knows
                connections=plan.connection_count,
                planned=attempts.planned,
                sent=attempts.sent,
                watch=effort.watch,
                start_lag=attempts.start_lag(),
                connect=effort.connect,
            )
        )

    async def _barrier(self, hold: Hold) -> int:
        self._channel.tell(Ready())
        while not (await asyncio.wait([self._go], timeout=_HOLD_S))[0]:
            await hold(0)
        return self._go.result()

    def _hear(self, message: object) -> None:
        match message:
            case Mission():
                self._mission.set_result(message)
            case Go(at_ns):
                self._go.set_result(at_ns)
            case StopSending(reason) if self._engine is not None:
                self._engine.stop(reason)

    def _part(self) -> None:
        """The other side is gone: what is left to do has nobody to be told to."""
        if not self._leaving:
            os._exit(1)
        self._over.set_result(None)


def main(descriptor: int) -> None:
    """Serve over the inherited socket. What a terminal sends, by Ctrl-C or when it is closed, is
    for the process that started this one."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    async def serve() -> None:
        await Child().serve(socket.socket(fileno=descriptor))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
