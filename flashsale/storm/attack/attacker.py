"""The attack: connect → barrier → fire → drain, in one thread, by callbacks alone.

There is no task, future or timer per request. An answer arrives, its outcome is recorded, and the
connection's next claim leaves in the same callback. One timer for all does the rest: it writes
results to disk, gives up on what is overdue and measures how late the loop is.
"""

import asyncio
import gc
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import monotonic_ns
from typing import Any

from flashsale.errors import UnreachableError
from flashsale.run.attempts import NEVER
from flashsale.run.histogram import Histogram
from flashsale.scenario.answer import Answer, indeterminate, unsent
from flashsale.storm.attack.alarm import Alarm
from flashsale.storm.attack.arsenal import Arsenal
from flashsale.storm.attack.barrier import Barrier, at_once, unix_us_at, wait_until
from flashsale.storm.attack.lanes import ColdLanes, Lanes
from flashsale.storm.attack.progress import Progress, ShowProgress
from flashsale.storm.attack.records import Records
from flashsale.storm.attack.wire import IDLE, Connection
from flashsale.storm.figures.effort import Effort
from flashsale.storm.plan.plan import LAST

TICK_NS = 20_000_000
SWEEP_NS = 100_000_000
UNTENDED_MAX = 1_024
"""Outcomes that a crash can cost, even where answers come so fast that no timer gets its turn."""

INTERRUPT_GRACE_S = 1.0
_MS = 1_000_000


class Attacker:
    """One attack. When `run()` returns, every attempt of the plan has an outcome."""

    def __init__(
        self,
        arsenal: Arsenal,
        records: Records,
        show: ShowProgress,
        barrier: Barrier = at_once,
    ) -> None:
        self._plan, self._requests = arsenal.plan, arsenal.requests
        self._timeouts = arsenal.timeouts
        self._ledger, self._attempts = records.ledger, records.attempts
        self._watch, self._show, self._barrier = records.watch, show, barrier
        self._due, self._sent = self._ledger.due_ns, self._ledger.sent_ns
        self._following = self._plan.following
        self._planned = len(self._plan)
        self._fired = 0  # first attempts that have left
        self._alarm: Alarm | None = None  # rings for whoever is due next
        reader = arsenal.readers[self._plan.asks[0]]
        self.lanes = (ColdLanes if self._plan.cold else Lanes)(
            arsenal.target,
            self._plan.connection_count,
            self._timeouts,
            lambda lane: Connection(lane, self, reader),
        )
        self._reviving: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._defect: BaseException | None = None
        self._drain_until_ns: int | None = None
        self._halt_at_ns: int | None = None  # set by stop()
        self._halt_reason = ""

    def __repr__(self) -> str:
        return f"<Attacker {self._ledger!r} {self.lanes!r}>"

    async def run(self) -> None:
        """Connect, open the barrier, fire the plan, wait for what is out.

        Raises UnreachableError where the barrier cannot open; then nothing was sent.
        """
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._crash)
        with ExitStack() as quiet:
            self._assembling = self._loop.create_task(self._assemble(quiet))
            try:
                origin_ns = await self._assembling
                if self._halt_at_ns is None:
                    await self._fire_from(origin_ns)
            except UnreachableError:
                self._settle_unsent("barrier")
                raise
            except asyncio.CancelledError:
                if self._halt_at_ns is None:
                    raise
            finally:
                self._attempts.write_results(self._ledger)
                self._cancel_revivals()
                self.lanes.disperse()
                if self._alarm is not None:
                    self._alarm.close()

    def stop(self, reason: str = "interrupted") -> None:
        """Send nothing more. Answers that are out get a moment; told twice, none."""
        now, self._halt_reason = monotonic_ns(), reason
        if self._halt_at_ns is not None:
            self._halt_at_ns = now
            return
        self._halt_at_ns = now + round(INTERRUPT_GRACE_S * 1e9)
        self._assembling.cancel()
        self._settle_unsent(reason)

    def effort(self) -> Effort:
        """What it has taken so far."""
        return Effort(self._watch.report(), Histogram(self.lanes.connect_us))

    # Barrier and fire.

    async def _assemble(self, quiet: ExitStack) -> int:
        """Raise every lane and wait for the instant of the barrier, which is returned."""
        await self.lanes.assemble()
        instant_ns = await self._barrier(self.lanes.hold)
        quiet.enter_context(_without_gc())
        if instant_ns is None:
            return monotonic_ns()
        await wait_until(instant_ns)
        return instant_ns

    async def _fire_from(self, origin_ns: int) -> None:
        with self._watch.counting():
            self._open_barrier(origin_ns)
            await self._over.wait()
            self._attempts.write_results(self._ledger)
        if self._defect is not None:
            raise self._defect

    def _open_barrier(self, origin: int) -> None:
        ledger = self._ledger
        ledger.barrier_unix_us = unix_us_at(origin)
        ledger.origin_ns = origin
        self._attempts.write_barrier(ledger.barrier_unix_us)
        for i in self._plan.first_attempts:
            self._due[i] = origin + self._plan.at_us[i] * 1000
        self._sweep_due_ns = self._tick_due_ns = origin
        if not self._planned:
            self._over.set()
        self._loop.call_soon(self._tick)
        self._fire()

    def _fire(self) -> None:
        """Send every first attempt that is due, and come back for the next."""
        firsts, connections, due = self._plan.first_attempts, self.lanes.connections, self._due
        while self._fired < len(firsts):
            i = firsts[self._fired]
            if due[i] > monotonic_ns():
                self._fire_at(due[i])
                return
            self._fired += 1
            self._send(connections[self._plan.connections[i]], i)

    def _fire_at(self, due_ns: int) -> None:
        """Come back at `due_ns`, more exactly than the loop's own timers do."""
        if self._alarm is None:
            self._alarm = Alarm(self._loop, self._fire)
        self._alarm.set(due_ns)

    def _send(self, connection: Connection | None, i: int) -> None:
        if connection is None or not connection.is_open:
            self._revive(i)
            return
        self._sent[i] = monotonic_ns()
        connection.send(i, self._requests[i])

    def _revive(self, i: int) -> None:
        task = self._loop.create_task(self._continue(i))
        self._reviving.add(task)
        task.add_done_callback(self._reviving.discard)

    async def _continue(self, i: int) -> None:
        """Go on with attempt `i` over a new connection; without one it was never sent."""
        while i != LAST:
            try:
                connection = await self.lanes.revive(self._plan.connections[i])
            except TimeoutError:
                now = monotonic_ns()
                self._settle(i, now, unsent("connect"))
                i = self._following[i]
                if i != LAST:
                    self._due[i] = now
            else:
                self._send(connection, i)
                return

    # What connections report.

    def answered(self, connection: Connection, attempt: int, at_ns: int, answer: Answer) -> None:
        """Record the answer, and send the claim that waited for it."""
        settled = self._settle(attempt, at_ns, answer)
        following = self._following[attempt]
        if following != LAST:
            self._due[following] = at_ns
            self._send(connection, following)
        if not settled % UNTENDED_MAX:
            self._tend(at_ns)

    def failed(self, connection: Connection, attempt: int, at_ns: int, error: str) -> None:
        """The attempt is indeterminate; the chain goes on over a new connection."""
        self.answered(connection, attempt, at_ns, indeterminate(error))

    def _settle(self, attempt: int, at_ns: int, answer: Answer) -> int:
        settled = self._ledger.settle(attempt, at_ns, answer)
        if settled == self._planned:
            self._over.set()
        return settled

    # The one timer.

    def _tick(self) -> None:
        now = monotonic_ns()
        self._watch.late_by(now - self._tick_due_ns, TICK_NS)
        self._tend(now)
        if not self._over.is_set():
            self._tick_due_ns = monotonic_ns() + TICK_NS
            self._loop.call_later(TICK_NS / 1e9, self._tick)

    def _tend(self, now: int) -> None:
        self._attempts.write_results(self._ledger)
        if now >= self._sweep_due_ns:
            self._sweep_due_ns = now + SWEEP_NS
            waiting = list(self.lanes.in_flight())
            self._watch.look(now - self._ledger.origin_ns, len(waiting))
            self._sweep(now, waiting)
            self._show(self._progress(now, len(waiting)))

    def _sweep(self, now: int, waiting: Sequence[Connection]) -> None:
        """Give up on what is overdue: an interrupted storm, the run, the drain, one answer."""
        if self._halt_at_ns is not None:
            if now >= self._halt_at_ns:
                self._give_up(now, self._halt_reason)
        elif now >= self._ledger.origin_ns + self._timeouts.run_ms * _MS:
            self._give_up(now, "deadline")
        elif len(waiting) == self._ledger.open:  # everything is sent: the drain
            self._drain_until_ns = self._drain_until_ns or now + self._timeouts.drain_ms * _MS
            if now >= self._drain_until_ns:
                self._give_up(now, "deadline")
        overdue = now - self._timeouts.request_ms * _MS
        for connection in waiting:
            attempt = connection.attempt
            if attempt != IDLE and self._sent[attempt] <= overdue:
                connection.abandon()
                self.failed(connection, attempt, now, "timeout")

    def _give_up(self, now: int, reason: str) -> None:
        """Whatever is out is indeterminate, whatever is not was never sent."""
        for connection in self.lanes.in_flight():
            attempt = connection.attempt
            connection.abandon()
            self._settle(attempt, now, indeterminate(reason))
        self._settle_unsent(reason)

    def _settle_unsent(self, reason: str) -> None:
        """Send nothing more: what has not left never will."""
        now = monotonic_ns()
        self._ledger.origin_ns = self._ledger.origin_ns or now  # no barrier: there is no before
        self._following = array("q", [LAST]) * len(self._plan)
        self._fired = len(self._plan.first_attempts)
        self._cancel_revivals()
        for i, answer in enumerate(self._ledger.answers):
            if answer is None and self._sent[i] == NEVER:
                self._settle_never(i, now, reason)

    def _settle_never(self, i: int, now: int, reason: str) -> None:
        self._settle(i, now, unsent(reason))

    def _cancel_revivals(self) -> None:
        for task in self._reviving:
            task.cancel()

    def _progress(self, now: int, in_flight: int) -> Progress:
        return Progress(
            elapsed_s=(now - self._ledger.origin_ns) / 1e9,
            planned=self._planned,
            settled=len(self._ledger.arrivals),
            in_flight=in_flight,
            outcomes=self._attempts.outcomes,
        )

    def _crash(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A defect in a callback ends the storm at once, instead of leaving it waiting."""
        self._defect = context.get("exception") or RuntimeError(context["message"])
        self._over.set()


@contextmanager
def _without_gc() -> Iterator[None]:
    """No collection in the middle of a storm: nothing there makes cycles, and a pass over its
    records would show as latency of the target."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
