"""Faults of processes: killed, stopped, restarted, starved, begun again from older files."""

import os
import resource
import shutil
import signal
import time
from contextlib import suppress

import psutil

from flashsale.faults.fault import Fault, Site, end_of, signal_all
from flashsale.scenario.fault import Fault as Planned
from flashsale.settings import WorkerSettings


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
    _since_s = 0.0

    def prepare(self, site: Site) -> None:
        self._copy = site.state_dir / "ledger-older"
        shutil.copytree(site.state_dir / "ledger" / _AOF, self._copy / _AOF)

    def do(self, site: Site) -> None:
        self._pid = site.child("ledger").pid
        with site.supervisor_held():
            signal_all(self._pid, signal.SIGKILL)
            end_of(self._pid)
            self._since_s = time.monotonic()
            now = site.state_dir / "ledger" / _AOF
            shutil.rmtree(now)
            shutil.copytree(self._copy / _AOF, now)

    def heal(self, site: Site) -> None:
        if self._pid:
            site.await_reborn("ledger", self._pid)
            self.rebuild_ledger(site, self._since_s)
