"""Keeps a stack up: watches its processes, asks them how they are, restarts what died."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn, Protocol

from flashsale.errors import ExitCode, UnreachableError
from flashsale.stack.process import Process, raise_descriptor_limit, roll
from flashsale.stack.service import Member, Phase
from flashsale.stack.stack import Stack
from flashsale.stack.state import is_held, remove_state, served

_TICK_S = 0.25
_ROLL_INTERVAL_S = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Watcher(Protocol):
    """Who is told what happens: a terminal, a log, a test."""

    def say(self, line: str) -> None:
        """One event, in one line (an error's log tail may follow it)."""

    def show(self, stack: Stack) -> None:
        """How things are now; called when something changed, and now and then."""


@dataclass
class Tally:
    """What one round of supervision did."""

    deaths: int = 0
    restarts: int = 0
    silences: int = 0

    @property
    def changed(self) -> bool:
        """Whether anybody wants to hear of it."""
        return bool(self.deaths or self.restarts or self.silences)


class _Stopped(BaseException):
    """A signal asks us to stop; raised wherever the main thread is, as KeyboardInterrupt is."""

    def __init__(self, signum: int) -> None:
        self.exit_code = ExitCode.INTERRUPTED if signum == signal.SIGINT else ExitCode.TERMINATED
        super().__init__(signum)


class Supervisor:
    """Runs one stack from start to stop. Must run in the main thread, as its children die with it.

    One thread does everything but the probes, which wait for answers in threads of their own.
    """

    def __init__(self, stack: Stack, watcher: Watcher) -> None:
        self._stack = stack
        self._settings = stack.settings
        self._watcher = watcher
        self._roll_at = 0.0
        self._stopped: _Stopped | None = None

    def __repr__(self) -> str:
        return f"Supervisor({self._stack!r})"

    def run(self) -> ExitCode:
        """Start, supervise until a signal comes, stop; returns the exit code of that signal.

        Raises UsageError where another supervisor holds the state folder, UnreachableError where
        something does not start. Either way nothing is left running.
        """
        raise_descriptor_limit()
        with served(self._stack.state_dir), _handling(self._on_signal):
            remove_state(self._stack.state_dir)
            try:
                self._stack.start(self._watcher.say)
                self._supervise()
            except _Stopped as stopped:
                return stopped.exit_code
            finally:
                self._shut_down()

    def run_once(self, now: float, asking: Executor) -> Tally:
        """One round: who died, who is due for a restart or a question, whose answer came."""
        tally = Tally()
        for member in self._stack.members:
            process = member.service.process
            if process is None:
                if now >= member.due_at and not self._is_held(member):
                    tally.restarts += self._restart(member, now)
            elif process.exit_code is not None:
                tally.deaths += 1
                self._bury(member, process, now)
            else:
                tally.silences += self._ask(member, process, now, asking)
        return tally

    def _supervise(self) -> NoReturn:
        self._watcher.say(f"ready at {self._stack.base_url}")
        self._watcher.show(self._stack)
        with ThreadPoolExecutor(len(self._stack.members), "probe") as asking:
            while self._stopped is None:
                before = [member.phase for member in self._stack.members]
                now = time.monotonic()
                changed = self.run_once(now, asking).changed
                self._keep_files(now, changed)
                if before != [member.phase for member in self._stack.members]:
                    self._watcher.show(self._stack)
                time.sleep(_TICK_S)
        raise self._stopped

    def _bury(self, member: Member, process: Process, now: float) -> None:
        """Sweep up after a dead child, and set the time of its next start."""
        ending = _ending(process.exit_code)
        member.service.sweep()
        delay_s = member.died(now, self._settings)
        self._watcher.say(f"{member.service.name} {ending}; starting it again in {delay_s:g} s")
        if member.quick_deaths == self._settings.restart_warn_after:
            self._watcher.say(
                f"{member.service.name} died {member.quick_deaths} times in a row soon after its "
                f"start and is tried ever more rarely; the end of {member.service.log}:\n"
                f"{process.log_tail()}"
            )

    def _is_held(self, member: Member) -> bool:
        return is_held(self._stack.state_dir, member.service.name)

    def _restart(self, member: Member, now: float) -> bool:
        try:
            member.service.launch()
        except UnreachableError as error:
            member.died(now, self._settings)
            self._watcher.say(f"{member.service.name} cannot be started: {error}")
            return False
        member.launched(now)
        member.restarts += 1
        return True

    def _ask(self, member: Member, process: Process, now: float, asking: Executor) -> bool:
        """Ask a living child when it is time, and act on its answer; True for a silence."""
        starting = member.phase is Phase.STARTING
        if member.question is None:
            if starting:
                member.question = asking.submit(member.service.serves)
            elif now >= member.due_at:
                timeout_s = self._settings.probe_timeout_s
                member.question = asking.submit(member.service.is_alive, timeout_s)
            return False
        if not member.question.done():
            return False
        well = member.question.result()
        member.question = None
        if well:
            if member.phase is not Phase.UP:
                self._watcher.say(f"{member.service.name} answers again")
            member.answered(now, self._settings)
            return False
        return (
            self._on_starting(member, process, now)
            if starting
            else self._on_silence(member, process, now)
        )

    def _on_starting(self, member: Member, process: Process, now: float) -> bool:
        if now - member.started_at > self._settings.start_timeout_s:
            self._watcher.say(f"{member.service.name} did not become ready; killing it")
            process.kill()
        return False

    def _on_silence(self, member: Member, process: Process, now: float) -> bool:
        too_many = member.stayed_silent(now, self._settings)
        count = f"{member.silences} of {self._settings.probe_failures_max}"
        self._watcher.say(f"{member.service.name} did not answer its probe ({count})")
        if too_many:
            process.kill()  # the next round finds it dead
        return True

    def _keep_files(self, now: float, changed: bool) -> None:
        """Tell `stack.json` what changed, and roll long logs; a full disk is no reason to end."""
        try:
            if changed:
                self._stack.write_state()
            if now >= self._roll_at:
                self._roll_at = now + _ROLL_INTERVAL_S
                for log in self._stack.logs.glob("*.log"):
                    roll(log, self._settings.log_bytes_max, self._settings.log_files_max)
        except OSError as error:
            self._watcher.say(f"cannot write {self._stack.state_dir}: {error.strerror}")

    def _shut_down(self) -> None:
        with _handling(lambda signum, frame: self._stack.kill()):  # a second signal: no patience
            self._watcher.say("stopping")
            self._stack.stop()
            remove_state(self._stack.state_dir)
            self._watcher.say("stopped")

    def _on_signal(self, signum: int, frame: FrameType | None) -> NoReturn:
        self._stopped = _Stopped(signum)
        raise self._stopped


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    previous = {signum: signal.signal(signum, handler) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, old in previous.items():
            signal.signal(signum, old)


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit status {exit_code}"
