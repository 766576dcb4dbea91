"""One child under supervision: what phase it is in, and how long to wait before a restart."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum

from flashsale.stack.service import Service
from flashsale.stack.settings import StackSettings
from flashsale.stack.state import ChildState


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
            port=service.port.number,
            url=service.url,
            log=str(service.log),
            restarts=self.restarts,
            status_url=service.status_url,
        )
