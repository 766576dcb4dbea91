"""A service of the stack: a port or a socket, a log, readiness, an orderly end; and how it fares
when supervised.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Self

from flashsale.errors import UnreachableError
from flashsale.files import private_folder
from flashsale.stack.port import Port, Socket
from flashsale.stack.process import CommandLine, Process
from flashsale.stack.settings import StackSettings
from flashsale.stack.state import ChildState

_POLL_S = 0.02
_PORT_TRIES = 3


class Account(StrEnum):
    """Who comes to a private store, by the name of the account."""

    OWNER = "owner"  # the commands: everything
    REPLICA = "replica"
    WORKER = "worker"
    EXPORTER = "exporter"  # counters and settings, no data


class Service(ABC):
    """One server at one port or socket of this machine, private to this user and tied to this
    process.

    `with RedisServer(...) as server: server.url` starts it, waits until it answers, and leaves
    nothing running. Start services from the main thread only (see `tether`).
    """

    kind: str
    start_timeout_s: float = 30.0
    stop_timeout_s: float = 15.0

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        place: Port | Socket | None = None,
        log: Path | None = None,
    ) -> None:
        self.name = name
        self.directory = directory.absolute()
        self.place: Port | Socket = place or Port.free()
        self.log = (log or directory / f"{name}.log").absolute()
        self.process: Process | None = None
        self.more_environment: Mapping[str, str] = {}

    def __repr__(self) -> str:
        state = "stopped" if self.process is None else f"pid {self.process.pid}"
        return f"{type(self).__name__}({self.name}, {self.place}, {state})"

    @property
    def port(self) -> Port:
        """The port of a service that has one."""
        assert isinstance(self.place, Port), f"{self.name} has no port"
        return self.place

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients reach it."""

    @property
    def status_url(self) -> str | None:
        """Where it tells its own counters, if that is elsewhere; for an exporter."""
        return None

    @abstractmethod
    def prepare(self) -> CommandLine:
        """Write what it needs into its directory; returns how to run it."""

    @abstractmethod
    def is_ready(self, timeout_s: float) -> bool:
        """Whether it does its work now. Never raises for a server that does not answer."""

    def is_alive(self, timeout_s: float) -> bool:
        """Whether a restart would change nothing; the supervisor's periodic probe asks this."""
        return self.is_ready(timeout_s)

    def launch(self) -> Process:
        """Start it and return at once. Raises UnreachableError where that cannot be."""
        try:
            private_folder(self.directory)
            private_folder(self.log.parent)
            command = self.prepare()
            environment = {**command.environment, **self.more_environment}
            self.process = Process(replace(command, environment=environment), self.log)
        except OSError as error:
            raise UnreachableError(
                f"{self.name} cannot be started in {self.directory}: {error.strerror}"
            ) from None
        return self.process

    def await_ready(self, timeout_s: float | None = None) -> None:
        """Wait for a launched server; raises UnreachableError with the tail of its own log."""
        limit_s = self.start_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        while not self.serves():
            process = self.process
            if process is None or process.exit_code is not None:
                code = None if process is None else process.exit_code
                raise self._failed(f"ended at once (exit status {code})")
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready within {limit_s:g} s")
            time.sleep(_POLL_S)

    def serves(self) -> bool:
        """Whether our own child listens there and is ready: never a stranger's server."""
        process = self.process
        return (
            process is not None
            and process.exit_code is None
            and self.place.is_listened_on_by(process.pid)
            and self.is_ready(timeout_s=1.0)
        )

    def settle(self) -> None:
        """Wait for a launched server; where a stranger took its port meanwhile, move it.

        After a failure nothing of it runs.
        """
        for tries_left in reversed(range(_PORT_TRIES)):
            try:
                self.await_ready()
                break
            except UnreachableError:
                self.sweep()
                place = self.place
                if isinstance(place, Socket) or place.fixed or not tries_left:
                    raise
                if not _is_taken(place):
                    raise
                place.close()
                self.place = Port.free(place.host)
                self.launch()
            except BaseException:
                self.sweep()
                raise

    def start(self) -> Self:
        """Launch and wait until it answers. Raises UnreachableError; then nothing of it runs."""
        self.launch()
        self.settle()
        return self

    def ask_to_stop(self) -> None:
        """Tell it to finish, and return at once."""
        if self.process is not None:
            self.process.ask_to_stop()

    def stop(self) -> None:
        """Stop it, by force where it must be, and give its place back. May be called twice."""
        if self.process is not None:
            self.process.stop(self.stop_timeout_s)
        self.sweep()
        self.place.close()

    def sweep(self) -> None:
        """End whatever is left of it, and forget its process."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _failed(self, what: str) -> UnreachableError:
        tail = self.process.log_tail() if self.process else ""
        return UnreachableError(f"{self.name} {what}; the end of {self.log}:\n{tail}")


def _is_taken(port: Port) -> bool:
    probe = Port.at(port.number, port.host)
    if probe is not None:
        probe.close()
    return probe is None


class Phase(StrEnum):
    """Where a child is in its life."""

    STARTING = "starting"
    UP = "up"
    SILENT = "not answering"
    DOWN = "down"


def restart_delay_s(quick_deaths: int, settings: StackSettings) -> float:
    """How long to wait after the nth death in a row that came soon after a start. Pure."""
    doublings = min(quick_deaths - 1, 32)
    return min(settings.restart_base_ms * (1 << doublings), settings.restart_max_ms) / 1_000


@dataclass
class Member:
    """A service and its history. All times are of the monotonic clock."""

    service: Service
    phase: Phase = Phase.STARTING
    restarts: int = 0
    quick_deaths: int = 0
    silences: int = 0  # failed probes in a row
    started_at: float = 0.0
    due_at: float = 0.0  # next probe, or next start
    question: "Future[bool] | None" = field(default=None, repr=False)

    def launched(self, now: float) -> None:
        """It was started, and has yet to answer."""
        self.phase = Phase.STARTING
        self.started_at = now
        self.silences = 0
        self.question = None

    def answered(self, now: float, settings: StackSettings) -> None:
        """It is ready, or answered its probe."""
        self.phase = Phase.UP
        self.silences = 0
        self.due_at = now + settings.probe_interval_s

    def stayed_silent(self, now: float, settings: StackSettings) -> bool:
        """A probe failed; returns whether that was one too many."""
        self.phase = Phase.SILENT
        self.silences += 1
        self.due_at = now + min(settings.probe_interval_s, settings.probe_timeout_s)
        return self.silences >= settings.probe_failures_max

    def died(self, now: float, settings: StackSettings) -> float:
        """It is gone; returns how long to wait before its next start."""
        stable = now - self.started_at >= settings.restart_reset_s
        self.quick_deaths = 1 if stable else self.quick_deaths + 1
        delay_s = restart_delay_s(self.quick_deaths, settings)
        self.phase = Phase.DOWN
        self.due_at = now + delay_s
        self.question = None
        return delay_s

    @property
    def state(self) -> ChildState:
        """How it appears in `stack.json`."""
        service = self.service
        return ChildState(
            name=service.name,
            kind=service.kind,
            pid=service.process.pid if service.process else 0,
            port=service.place.number,
            url=service.url,
            log=str(service.log),
            restarts=self.restarts,
            status_url=service.status_url,
        )
