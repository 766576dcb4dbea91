"""CPU seconds of processes and all that they started, from the kernel's own counts."""

import psutil


def cpu_s(pid: int) -> float:
    """User and system seconds of the process and its live descendants."""
    root = psutil.Process(pid)
    return sum(_own(process) for process in (root, *root.children(recursive=True)))


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
