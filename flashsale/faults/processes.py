"""Faults of processes: killed, stopped, restarted, starved, cut from the power."""

import os
import resource
import shutil
import signal
import threading
import time
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import psutil

from flashsale.errors import UnreachableError
from flashsale.faults.fault import Fault, Site, end_of
from flashsale.scenario.fault import Fault as Planned
from flashsale.settings import WorkerSettings


def signal_all(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process of a stack and whatever it started: each leads its own group."""
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


class Kill(Fault):
    """Ended without a word; its supervisor starts it again."""

    def __init__(self, planned: Planned) -> None:
        super().__init__(planned)
        self.ended: dict[str, int] = {}

    def do(self, site: Site) -> None:
        for name in site.names(self.planned.whom):
            pid = site.child(name).pid
            if pid > 0:
                self.ended[name] = pid
                self.end(pid, name)

    def end(self, pid: int, name: str) -> None:
        """End the process."""
        signal_all(pid, signal.SIGKILL)

    def heal(self, site: Site) -> None:
        for name, pid in self.ended.items():
            site.await_reborn(name, pid)


class Restart(Kill):
    """Told to end, in the way of its kind."""

    def end(self, pid: int, name: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT if name == "nginx" else signal.SIGTERM)


class Stop(Fault):
    """Stopped, and continued."""

    def __init__(self, planned: Planned) -> None:
        super().__init__(planned)
        self.stopped: dict[str, int] = {}

    def do(self, site: Site) -> None:
        for name in site.names(self.planned.whom):
            pid = site.child(name).pid
            if pid > 0:
                self.stopped[name] = pid
                signal_all(pid, signal.SIGSTOP)

    def heal(self, site: Site) -> None:
        for pid in self.stopped.values():
            signal_all(pid, signal.SIGCONT)
        for name in self.stopped:
            site.await_well(name)


class PausePastLease(Stop):
    """Stopped for longer than its locks and its entries are its own: others take them over."""

    def heal(self, site: Site) -> None:
        settings = WorkerSettings.load(**SHORT_LEASES)
        time.sleep((settings.lock_lease_ms + settings.claim_idle_ms) / 1000)
        super().heal(site)


SHORT_LEASES = {"lock_lease_ms": 1_000, "lock_renew_ms": 300, "claim_idle_ms": 1_500}
"""What workers of a stack get that is to be paused for longer: their own take minutes."""


class MemoryLimit(Fault):
    """Gets no more memory than it has: what it asks for in addition is refused."""

    _SPARE_BYTES = 1 << 20

    def __init__(self, planned: Planned) -> None:
        super().__init__(planned)
        self.limited: dict[str, int] = {}

    def do(self, site: Site) -> None:
        for name in site.names(self.planned.whom):
            pid = site.child(name).pid
            most = psutil.Process(pid).memory_info().vms + self._SPARE_BYTES
            resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
            self.limited[name] = pid

    def heal(self, site: Site) -> None:
        for name, pid in self.limited.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
            site.await_well(name)


# The ledger's files ------------------------------------------------------------------------------

_AOF = "appendonlydir"


class OlderCopy(Fault):
    """The ledger begun again from files that are as old as the storm.

    A copy of an append-only file that is being written is one that was cut somewhere: Redis loads
    it up to the last whole command.
    """

    _pid = 0

    def prepare(self, site: Site) -> None:
        self._copy = site.state_dir / "ledger-older"
        shutil.copytree(site.state_dir / "ledger" / _AOF, self._copy / _AOF)

    def do(self, site: Site) -> None:
        self._pid = site.child("ledger").pid
        with site.supervisor_held():
            signal_all(self._pid, signal.SIGKILL)
            end_of(self._pid)
            now = site.state_dir / "ledger" / _AOF
            shutil.rmtree(now)
            shutil.copytree(self._copy / _AOF, now)

    def heal(self, site: Site) -> None:
        if self._pid:
            site.await_reborn("ledger", self._pid)


class PowerCut(Fault):
    """The ledger's machine loses its power: what its policy of fsync lets it lose is gone.

    Which bytes a disk has is not asked of the disk, but follows from the policy that the server
    itself reports when the power goes:

    1. `always`: it writes and fsyncs before it answers, so of what was answered nothing is lost;
       what was written stays, also the last write, which nobody was told of yet.
    2. `everysec`: what was written in the last second is cut off: as much as that policy may lose.
    3. `no`: all that was written since the storm began is cut off.

    Not covered: a disk that lies about fsync, blocks that are torn or in another order, and the
    database, whose log knows blocks of its own.
    """

    _SAMPLE_S = 0.02
    _EVERYSEC_S = 1.0
    _pid = 0

    def __init__(self, planned: Planned) -> None:
        super().__init__(planned)
        self._sizes: list[tuple[float, Path, int]] = []
        self._over = threading.Event()

    def prepare(self, site: Site) -> None:
        folder = site.state_dir / "ledger" / _AOF
        self._sample(folder)
        threading.Thread(target=self._watch, args=(folder,), daemon=True).start()

    def do(self, site: Site) -> None:
        with site.redis("ledger") as ledger:
            policy = str(ledger.config_get("appendfsync")["appendfsync"])
        self._pid = site.child("ledger").pid
        with site.supervisor_held():
            signal_all(self._pid, signal.SIGKILL)
            cut_at = time.monotonic()
            self._over.set()
            end_of(self._pid)
            durable = self._durable(policy, cut_at)
            if durable is not None:
                path, size = durable
                os.truncate(path, min(size, path.stat().st_size))

    def heal(self, site: Site) -> None:
        self._over.set()
        if self._pid:
            site.await_reborn("ledger", self._pid)

    def _durable(self, policy: str, cut_at: float) -> tuple[Path, int] | None:
        """The log and as much of it as is on disk; None where that is all of it."""
        if policy == "always":
            return None
        age_s = self._EVERYSEC_S if policy == "everysec" else float("inf")
        old = list(takewhile(lambda it: it[0] <= cut_at - age_s, self._sizes)) or self._sizes[:1]
        _, path, size = old[-1]
        return path, size

    def _watch(self, folder: Path) -> None:
        while not self._over.wait(self._SAMPLE_S):
            self._sample(folder)

    def _sample(self, folder: Path) -> None:
        """The size of the log that is being written: the last of its parts."""
        parts = sorted(folder.glob("*.incr.aof"), key=_part)
        if not parts:
            raise UnreachableError(f"the ledger has no append-only file in {folder}")
        self._sizes.append((time.monotonic(), parts[-1], parts[-1].stat().st_size))


def _part(path: Path) -> int:
    """The number in `appendonly.aof.3.incr.aof`."""
    number = path.name.split(".")[-3]
    return int(number) if number.isdigit() else 0
