"""A crew: several processes that fire one plan from one instant, and one record of it all.

The plan is parted, each process raises its part's connections, and only when all stand does the
barrier open, at an instant of the monotonic clock, which the processes of a machine share. What
processes tell is entered here in one order of events.
"""

import asyncio
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from time import monotonic_ns
from typing import Any, Protocol

from flashsale.errors import UnreachableError
from flashsale.model import Ending
from flashsale.scenario.answer import indeterminate, unsent
from flashsale.storm.attack.attack import Mission, Progress, Records, ShowProgress
from flashsale.storm.attack.instants import INTERRUPT_GRACE_S, LEAD_NS, Barrier, at_once, unix_us_at
from flashsale.storm.crew.messages import (
    Done,
    EventOrder,
    Failed,
    Go,
    NewOutcomes,
    Pipe,
    Ready,
    StopSending,
)
from flashsale.storm.figures.generator import Effort, together

_GOODBYE_S = 2.0


class Listener(Protocol):
    """Who is told what a process tells, and how it ended if it told nothing."""

    def hear(self, process: "CrewProcess", message: object) -> None:
        """The process says so."""

    def lost(self, process: "CrewProcess", fate: str) -> None:
        """The process is gone, without having said how it did."""


class CrewProcess:
    """One process. `over` says that nothing more is to come of it."""

    def __init__(self, listener: Listener, index: int, mission: Mission) -> None:
        self.index, self.plan = index, mission.plan
        self.standing = self.over = self._hung = False
        self.in_flight = 0
        self.done: Done | None = None
        self._listener, self._mission = listener, mission
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Pipe | None = None

    def __repr__(self) -> str:
        return (
            f"<CrewProcess {self.index} of {self.plan!r} standing={self.standing} over={self.over}>"
        )

    @property
    def pid(self) -> int | None:
        """Its process, once there is one."""
        return None if self._process is None else self._process.pid

    async def begin(self) -> None:
        """Start the process and give it its mission."""
        end = self._start()
        _, self._channel = await asyncio.get_running_loop().create_unix_connection(
            lambda: Pipe(self._hear, self._part), sock=end
        )
        self._channel.tell(self._mission)

    def tell(self, message: object) -> None:
        """Send `message`, unless nobody is there to hear it."""
        if self._channel is not None and not self.over:
            self._channel.tell(message)

    def give_up(self) -> None:
        """End a process that does not end in time; its socket tells the listener."""
        self._hung = True
        self.kill()

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def dismiss(self) -> None:
        """Leave nothing behind: who is done goes by itself, who is not is killed."""
        self.over = True
        if self._channel is not None:
            self._channel.close()
        if self.done is None or self._exit_code() is None:
            self.kill()

    def _start(self) -> socket.socket:
        """Start the process; our end of the socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flashsale.storm.crew.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C reaches it as a message, not from the terminal
            )
        return ours

    def _hear(self, message: object) -> None:
        if not self.over:
            self._listener.hear(self, message)

    def _part(self) -> None:
        """The other end of the socket is closed."""
        if not self.over:
            self._listener.lost(self, self._fate())

    def _fate(self) -> str:
        code = self._exit_code()
        if self._hung or code is None:
            return "did not end in time"
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _exit_code(self) -> int | None:
        """Of a process that is about to end; None where it does not."""
        if self._process is None:
            return None
        try:
            return self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            return None


START_TIMEOUT_S = 30.0
"""A process is up and has its part, beside what `barrier_ms` gives it to connect."""

OVERTIME_S = 10.0
"""What a process has, after all that its timeouts give it, before it counts as hung."""

_LOOK_S = 0.1
_MS = 1_000_000


class Crew:
    """One attack by several processes. When `run()` returns, every attempt has an outcome."""

    def __init__(
        self,
        mission: Mission,
        count: int,
        records: Records,
        show: ShowProgress,
        barrier: Barrier = at_once,
    ) -> None:
        self._plan, self._timeouts = mission.plan, mission.scenario.timeouts
        self._attempts, self._writer = records.attempts, records.writer
        self._watch, self._show, self._barrier = records.watch, show, barrier
        self._processes = [
            CrewProcess(self, n, _part_of(mission, n + 1, count)) for n in range(count)
        ]
        self._order = EventOrder(self._attempts, count)
        self._outcomes: Counter[Ending] = Counter()
        self._standing, self._over = asyncio.Event(), asyncio.Event()
        self._error: BaseException | None = None
        self._stopped = self._fired = False
        self._hung_at_ns = 0
        self._losses: list[str] = []

    def __repr__(self) -> str:
        return f"<Crew {len(self._processes)} {self._attempts!r}>"

    def effort(self) -> Effort:
        """What it has taken so far, of the processes that lived to tell, and of this one."""
        efforts = [
            replace(process.done.effort, name=f"worker {process.index + 1}")
            for process in self._processes
            if process.done is not None
        ]
        return together(self._watch.report(), efforts, self._losses)

    async def run(self) -> None:
        """Start the processes, open the barrier when all stand, and enter what they tell.

        Raises UnreachableError where the barrier cannot open; then nothing was sent.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._crash)
        self._assembling = loop.create_task(self._assemble())
        try:
            await self._fire_from(await self._assembling)
        except asyncio.CancelledError:
            if self._error is None and not self._stopped:
                raise
            self._settle_unsent("interrupted" if self._error is None else "barrier")
        finally:
            self._writer.write_results(self._attempts)
            for process in self._processes:
                process.dismiss()
        if self._error is not None:
            raise self._error

    def stop(self, reason: str = "interrupted") -> None:
        """Send nothing more. Answers that are out get a moment; told twice, none."""
        if not self._stopped:
            self._stopped = True
            grace_ns = round((INTERRUPT_GRACE_S + OVERTIME_S) * 1e9)
            self._hung_at_ns = monotonic_ns() + grace_ns
            self._assembling.cancel()
        for process in self._processes:
            process.tell(StopSending(reason))

    # Before the barrier.

    async def _assemble(self) -> int:
        """Every process up and its connections open; the instant at which the barrier opens."""
        limit_s = START_TIMEOUT_S + self._timeouts.barrier_ms / 1000
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*(process.begin() for process in self._processes))
                await self._standing.wait()
        except TimeoutError:
            up = sum(process.standing for process in self._processes)
            raise UnreachableError(
                f"{up} of {len(self._processes)} workers were ready after {limit_s:,.0f} s; "
                "give fewer --workers"
            ) from None
        instant_ns = await self._barrier(self._hold)
        return monotonic_ns() + LEAD_NS if instant_ns is None else instant_ns

    async def _hold(self, for_ns: int) -> None:
        """Wait; the processes keep their own connections open."""
        await asyncio.sleep(for_ns / 1e9)

    def _settle_unsent(self, reason: str) -> None:
        now = self._attempts.origin_ns = monotonic_ns()
        for attempt in range(len(self._plan)):
            self._attempts.settle(attempt, now, unsent(reason))

    # From the barrier on.

    async def _fire_from(self, origin_ns: int) -> None:
        attempts, self._fired = self._attempts, True
        attempts.origin_ns, attempts.barrier_unix_us = origin_ns, unix_us_at(origin_ns)
        self._writer.write_barrier(attempts.barrier_unix_us)
        run_ns = self._timeouts.run_ms * _MS + round(OVERTIME_S * 1e9)
        self._hung_at_ns = origin_ns + run_ns
        for process in self._processes:
            process.tell(Go(origin_ns))
        with self._watch.counting():
            while not self._over.is_set():
                await self._look()

    async def _look(self) -> None:
        """Write what has come, show it, and end whoever is hung."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._over.wait()
        now = monotonic_ns()
        self._writer.write_results(self._attempts)
        self._show(self._progress(now))
        if now >= self._hung_at_ns:
            for process in self._processes:
                if not process.over:
                    process.give_up()

    def _progress(self, now: int) -> Progress:
        return Progress(
            elapsed_s=max(0, now - self._attempts.origin_ns) / 1e9,
            planned=len(self._plan),
            settled=self._outcomes.total(),
            in_flight=sum(process.in_flight for process in self._processes),
            outcomes=self._outcomes,
        )

    # What processes tell.

    def hear(self, process: CrewProcess, message: object) -> None:
        """Take a message of a process."""
        match message:
            case Ready():
                process.standing = True
                if all(each.standing for each in self._processes):
                    self._standing.set()
            case NewOutcomes() if self._fired:
                self._enter(process, message)
            case Done():
                process.done = message
                self._leave(process)
            case Failed():
                self._fail(process, message)

    def lost(self, process: CrewProcess, fate: str) -> None:
        """A process is gone without having told how it did."""
        if self._fired:
            self._do_without(process, fate)
        else:
            self._abort(UnreachableError(f"{self._name(process)} {fate} before the barrier"))

    def _enter(self, process: CrewProcess, told: NewOutcomes) -> None:
        process.in_flight = told.in_flight
        self._outcomes.update(told.outcomes.endings())
        self._order.take(process.index, told.outcomes)

    def _fail(self, process: CrewProcess, trouble: Failed) -> None:
        """By a defect: it is raised. By the target: before the barrier that is the end, after it
        the process is given up, like one that died."""
        if trouble.error is None:
            self._abort(RuntimeError(f"{self._name(process)}:\n{trouble.trace}"))
        elif self._fired:
            self._do_without(process, f"gave up: {trouble.error}")
        elif isinstance(trouble.error, UnreachableError):
            self._abort(UnreachableError(f"{self._name(process)}: {trouble.error}"))
        else:
            self._abort(trouble.error)

    def _abort(self, error: BaseException) -> None:
        self._error = self._error or error
        self._assembling.cancel()
        self._over.set()

    def _crash(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A defect in a callback ends the storm at once, instead of leaving it waiting."""
        self._abort(context.get("exception") or RuntimeError(context["message"]))

    def _do_without(self, process: CrewProcess, fate: str) -> None:
        """Nothing of it is lost: what it did not tell may have happened, unless it was yet to
        come. The others stop, since a run that cannot count is not worth another claim."""
        now, plan = monotonic_ns(), self._plan
        missing = self._order.untold(process.plan.numbers)
        for i in missing:
            # A pause counts from an answer, which came after the barrier: never due before this.
            to_come = self._attempts.origin_ns + plan.at_us[i] * 1000 > now
            answer = unsent("worker") if to_come else indeterminate("worker")
            self._outcomes[answer.outcome] += 1
            self._order.suppose(i, now, answer)
        self._losses.append(
            f"{self._name(process)} {fate}; nobody tells of {len(missing):,} attempts"
        )
        self._leave(process)
        if not self._stopped:
            self.stop("worker")

    def _leave(self, process: CrewProcess) -> None:
        process.over, process.in_flight = True, 0
        self._order.end(process.index)
        if all(each.over for each in self._processes):
            self._over.set()

    def _name(self, process: CrewProcess) -> str:
        return f"worker {process.index + 1} of {len(self._processes)}"


def connections_each(connections: int, count: int) -> int:
    """How many connections the busiest of `count` processes has."""
    return -(-connections // count)


def _part_of(mission: Mission, number: int, of: int) -> Mission:
    """The mission of one process: its part of the plan, and no other users' tokens."""
    plan = mission.plan.part(number, of)
    tokens = {user: mission.tokens[user] for user in set(plan.users) & mission.tokens.keys()}
    return replace(mission, plan=plan, tokens=tokens)
