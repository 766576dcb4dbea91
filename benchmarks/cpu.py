"""What processes and all that they started took, from the kernel's own counts: CPU, and how often
and how long they waited for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


def cpu_s(pid: int) -> float:
    """User and system seconds of the process and its live descendants."""
    return sum(_own(process) for process in _family(pid))


def _family(pid: int) -> Iterator[psutil.Process]:
    root = psutil.Process(pid)
    yield from (root, *root.children(recursive=True))


def _own(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


class CpuMeter:
    """What each of several named processes has used since the meter was made."""

    def __init__(self, pids: dict[str, list[int]]) -> None:
        self._pids = pids
        self._before = self._read()

    def used_s(self) -> dict[str, float]:
        """Seconds by name."""
        now = self._read()
        return {name: now[name] - before for name, before in self._before.items()}

    def _read(self) -> dict[str, float]:
        return {name: sum(cpu_s(pid) for pid in pids) for name, pids in self._pids.items()}


@dataclass(frozen=True)
class Effort:
    """CPU seconds, wake-ups from sleep, and seconds spent ready to run while others ran."""

    cpu_s: float = 0.0
    wake_ups: float = 0.0
    waited_s: float = 0.0

    def __add__(self, other: "Effort") -> "Effort":
        return Effort(
            self.cpu_s + other.cpu_s,
            self.wake_ups + other.wake_ups,
            self.waited_s + other.waited_s,
        )

    def per(self, count: float) -> "Effort":
        """The share of one of `count`."""
        return Effort(self.cpu_s / count, self.wake_ups / count, self.waited_s / count)


class EffortMeter:
    """The effort of each of several named processes since the meter was made; threads that have
    ended by then are left out."""

    def __init__(self, pids: dict[str, list[int]]) -> None:
        self._pids = pids
        self._before = self._read()

    def used(self) -> dict[str, Effort]:
        """Effort by name."""
        now = self._read()
        return {name: now[name] + before.per(-1) for name, before in self._before.items()}

    def _read(self) -> dict[str, Effort]:
        return {name: sum(map(_effort, pids), Effort()) for name, pids in self._pids.items()}


def _effort(pid: int) -> Effort:
    found = Effort(cpu_s(pid))
    for process in _family(pid):
        for task in Path(f"/proc/{process.pid}/task").glob("*"):
            found += _waits(task)
    return found


def _waits(task: Path) -> Effort:
    try:
        status = (task / "status").read_text()
        schedule = (task / "schedstat").read_text().split()
    except OSError:  # it has ended, or the kernel does not count
        return Effort()
    _, _, voluntary = status.partition("\nvoluntary_ctxt_switches:")
    return Effort(wake_ups=int(voluntary.split()[0]), waited_s=int(schedule[1]) / 1e9)
