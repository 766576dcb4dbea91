"""The engine: connect → barrier → fire → drain, in one thread, by callbacks alone.

It fires every kind of plan: what is due when, and over which connection, is the schedule's to say.
There is no task, future or timer per request. An answer arrives, its outcome is recorded, and what
takes over the connection leaves in the same callback. One alarm rings for whoever is due next. One
timer for all does the rest: it writes results to disk, gives up on what is overdue and measures how
late the loop is.
"""

import asyncio
import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import monotonic_ns
from typing import Any

from flashsale.errors import UnreachableError
from flashsale.run.attempts import NEVER
from flashsale.run.histogram import Histogram
from flashsale.scenario.answer import SILENT, Answer, indeterminate, unsent
from flashsale.storm.attack.attack import Mission, Progress, Records, ShowProgress
from flashsale.storm.attack.connections import Connections
from flashsale.storm.attack.instants import (
    Alarm,
    Barrier,
    Deadlines,
    at_once,
    unix_us_at,
    wait_until,
)
from flashsale.storm.attack.requests import Polling, Requests
from flashsale.storm.attack.schedule import Schedule
from flashsale.storm.attack.wire import IDLE, ClientConnection
from flashsale.storm.figures.generator import Effort

TICK_NS = 20_000_000
SWEEP_NS = 100_000_000
UNTENDED_MAX = 1_024
"""Outcomes that a crash can cost, even where answers come so fast that no timer gets its turn."""

SILENT_NS = 500_000_000
"""A target that answers nobody for so long has fallen silent."""

_MS = 1_000_000


class Engine:
    """One attack by this process. When `run()` returns, every attempt of the plan has an outcome,
    or is spared."""

    def __init__(
        self, mission: Mission, records: Records, show: ShowProgress, barrier: Barrier = at_once
    ) -> None:
        plan, timeouts = mission.plan, mission.scenario.timeouts
        self._plan, self._timeouts, self._planned = plan, timeouts, len(plan)
        made = Requests(mission)
        self._requests, self._readers = made.requests, made.readers
        self._polling = Polling(mission, made, self._ended) if mission.polls else None
        ended = self._ended if self._polling is None else self._polling.ended
        self._attempts, self._writer, self._watch = records.attempts, records.writer, records.watch
        self._show, self._barrier = show, barrier
        self._schedule = Schedule(plan)
        self._attempts.due_ns, self._attempts.free_ns = (
            self._schedule.due_ns,
            self._schedule.free_ns,
        )
        self._attempts.spared = self._spared = self._schedule.spared
        self._sent_ns = self._attempts.sent_ns
        self._deadlines = Deadlines(timeouts)
        self._connections = Connections(
            mission.target,
            plan.connection_count,
            timeouts,
            lambda number: ClientConnection(number, ended),
            plan.cold,
        )
        if self._polling is not None:
            self._polling.connections = self._connections
        self._latest = self._connections.latest
        self._reopening: set[asyncio.Task[None]] = set()
        self._alarm: Alarm | None = None
        self._rings_at_ns: int | None = None
        self._stood_still = False  # at the last tick, for which the loop came late
        self._over = asyncio.Event()
        self._defect: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Engine {self._attempts!r} {self._connections!r}>"

    async def run(self) -> None:
        """Connect, open the barrier, fire the plan, wait for what is out.

        Raises UnreachableError where the barrier cannot open; then nothing was sent.
        """
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._crash)
        with ExitStack() as quiet:
            self._starting = self._loop.create_task(self._start(quiet))
            try:
                origin_ns = await self._starting
                if not self._deadlines.stopped:
                    await self._fire_from(origin_ns)
            except UnreachableError:
                self._settle_unsent("barrier")
                raise
            except asyncio.CancelledError:
                if not self._deadlines.stopped:
                    raise
            finally:
                self._writer.write_results(self._attempts)
                self._cancel_reopening()
                self._connections.close()
                if self._alarm is not None:
                    self._alarm.close()

    def request_of(self, attempt: int) -> bytes:
        """What an attempt sends, as far as it is known by now."""
        return self._requests[attempt]

    def stop(self, reason: str = "interrupted") -> None:
        """Send nothing more. Answers that are out get a moment; told twice, none."""
        if self._deadlines.stop(monotonic_ns(), reason):
            self._starting.cancel()
            self._settle_unsent(reason)

    def effort(self) -> Effort:
        """What it has taken so far."""
        return Effort(self._watch.report(), Histogram(self._connections.connect_us))

    # Barrier and fire.

    async def _start(self, quiet: ExitStack) -> int:
        """Open every connection and wait for the instant of the barrier, which is returned."""
        await self._connections.open_all()
        instant_ns = await self._barrier(self._connections.hold)
        quiet.enter_context(_without_gc())
        if instant_ns is None:
            return monotonic_ns()
        await wait_until(instant_ns)
        return instant_ns

    async def _fire_from(self, origin_ns: int) -> None:
        with self._watch.counting():
            self._open_barrier(origin_ns)
            await self._over.wait()
            self._writer.write_results(self._attempts)
        if self._defect is not None:
            raise self._defect

    def _open_barrier(self, origin_ns: int) -> None:
        attempts = self._attempts
        attempts.origin_ns, attempts.barrier_unix_us = origin_ns, unix_us_at(origin_ns)
        self._writer.write_barrier(attempts.barrier_unix_us)
        self._deadlines.start(origin_ns)
        self._schedule.start(origin_ns)
        self._sweep_due_ns = self._tick_due_ns = origin_ns
        if not self._planned:
            self._over.set()
        self._loop.call_soon(self._tick)
        self._fire()

    def _fire(self) -> None:
        """Send whatever is due, and come back for the next."""
        while (due := self._schedule.pop(monotonic_ns())) is not None:
            attempt, connection = due
            self._send(connection, attempt)
        next_ns = self._schedule.next_ns
        if next_ns is not None and (self._rings_at_ns is None or next_ns < self._rings_at_ns):
            self._alarm = self._alarm or Alarm(self._loop, self._rung)
            self._alarm.set(next_ns)
            self._rings_at_ns = next_ns

    def _rung(self) -> None:
        self._rings_at_ns = None
        self._fire()

    def _send(self, number: int, attempt: int) -> None:
        connection = self._latest[number]
        if connection is None or not connection.is_open:
            task = self._loop.create_task(self._reopen(number, attempt))
            self._reopening.add(task)
            task.add_done_callback(self._reopening.discard)
            return
        self._sent_ns[attempt] = monotonic_ns()
        connection.send(attempt, self._requests[attempt], self._readers[attempt])

    async def _reopen(self, number: int, attempt: int) -> None:
        """Send `attempt` over a new connection; without one it was never sent."""
        begun_ns = monotonic_ns()
        error = await self._connections.reopen(number, self._attempts.due_ns[attempt])
        if error is not None:
            self._ended(number, attempt, monotonic_ns(), unsent(error))
        else:
            self._schedule.reopened(attempt, begun_ns, monotonic_ns())
            self._send(number, attempt)

    def _ended(self, connection: int, attempt: int, at_ns: int, answer: Answer) -> None:
        """Record how an attempt ended, and send what waited for that or for its connection."""
        settled = self._attempts.settle(attempt, at_ns, answer)
        following = self._schedule.ended(attempt, connection, at_ns, answer)
        if following is not None:
            self._send(connection, following)
        if self._schedule.has_pauses:
            self._fire()
        if settled + len(self._spared) == self._planned:
            self._over.set()
        if not settled % UNTENDED_MAX:
            self._tend(at_ns)

    # The one timer.

    def _tick(self) -> None:
        now = monotonic_ns()
        late_ns = now - self._tick_due_ns
        self._watch.late_by(late_ns, TICK_NS)
        stood_still = late_ns > SWEEP_NS and not self._stood_still
        if stood_still:  # answers that came meanwhile are read before anybody is given up on
            self._sweep_due_ns = now + 1
        self._stood_still = stood_still
        self._tend(now)
        if not self._over.is_set():
            self._tick_due_ns = monotonic_ns() + TICK_NS
            self._loop.call_later(TICK_NS / 1e9, self._tick)

    def _tend(self, now: int) -> None:
        self._writer.write_results(self._attempts)
        if now >= self._sweep_due_ns:
            self._sweep_due_ns = now + SWEEP_NS
            waiting = list(self._connections.in_flight())
            self._watch.look(now - self._attempts.origin_ns, len(waiting))
            self._sweep(now, waiting)
            self._show(self._progress(now, len(waiting)))

    def _sweep(self, now: int, waiting: Sequence[ClientConnection]) -> None:
        """Give up on what is overdue: everything, or an answer that does not come."""
        out = len(waiting) + (0 if self._polling is None else self._polling.lost)
        reason = self._deadlines.passed(now, all_sent=out == self._attempts.open)
        if reason is not None:
            self._give_up(now, reason)
        overdue = now - self._timeouts.request_ms * _MS
        for connection in waiting:
            attempt = connection.attempt
            if attempt != IDLE and self._sent_ns[attempt] <= overdue:
                connection.abandon()
                self._ended(connection.number, attempt, now, indeterminate("timeout"))

    def _give_up(self, now: int, reason: str) -> None:
        """Whatever is out is indeterminate, whatever is not was never sent."""
        for connection in self._connections.in_flight():
            attempt = connection.attempt
            connection.abandon()
            self._attempts.settle(attempt, now, indeterminate(reason))
        for attempt in () if self._polling is None else self._polling.forget():
            self._attempts.settle(attempt, now, indeterminate(reason))
        is_silent = reason == "deadline" and now - self._attempts.last_answer_ns() > SILENT_NS
        self._settle_unsent(reason, SILENT if is_silent else reason)

    def _settle_unsent(self, reason: str, overdue: str | None = None) -> None:
        """Send nothing more: what has not left never will, for `reason`; what should have left by
        now, or waited for another's answer, for the reason `overdue`. What was planned for a case
        that nobody will know is not missing."""
        now = monotonic_ns()
        self._schedule.close()
        self._cancel_reopening()
        attempts, spared = self._attempts, set(self._spared)
        attempts.origin_ns = attempts.origin_ns or now  # no barrier: there is no before
        for i, answer in enumerate(attempts.answers):
            if answer is not None or self._sent_ns[i] != NEVER or i in spared:
                continue
            if self._plan.is_conditional(i):
                attempts.spare(i)
            else:
                is_to_come = attempts.due_ns[i] > now
                attempts.settle(i, now, unsent(reason if is_to_come else overdue or reason))
        if not attempts.open:
            self._over.set()

    def _cancel_reopening(self) -> None:
        for task in self._reopening:
            task.cancel()

    def _progress(self, now: int, in_flight: int) -> Progress:
        return Progress(
            elapsed_s=(now - self._attempts.origin_ns) / 1e9,
            planned=self._attempts.planned,
            settled=len(self._attempts.arrivals),
            in_flight=in_flight,
            outcomes=self._writer.outcomes,
        )

    def _crash(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A defect in a callback ends the storm at once, instead of leaving it waiting."""
        self._defect = context.get("exception") or RuntimeError(context["message"])
        self._over.set()


@contextmanager
def _without_gc() -> Iterator[None]:
    """No collection in the middle of a storm: nothing there makes cycles, and a pass over its
    records would show as latency of the target. What the caller has frozen stays so."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
