"""Faults made from outside: of processes, which are killed, stopped, restarted, starved or begun
again from older files; and of the links between them, with this side of the relay that makes those.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Self

import orjson
import psutil

from flashsale.errors import UnreachableError
from flashsale.faults.fault import Fault, Site, data_of, end_of, signal_all
from flashsale.faults.relay import Trouble, message
from flashsale.keys import WHOLE
from flashsale.scenario.fault import PlannedFault, Processes, role_of
from flashsale.settings import WorkerSettings
from flashsale.stack.process import start_tethered
from flashsale.stack.sentinel import LINK, WATCH


class Kill(Fault):
    """Ended without a word; its supervisor starts it again."""

    def __init__(self, planned: PlannedFault) -> None:
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


class FailOver(Kill):
    """Killed, and kept away until another node has its lanes."""

    def do(self, site: Site) -> None:
        (name,) = site.names(self.planned.whom)
        if name not in self.masters.values():
            raise UnreachableError(f"{name} has no lane now, so nothing takes over from it")
        with site.held(name):
            super().do(site)
            site.until(
                lambda: name not in site.masters().values(), f"nothing took over from {name}"
            )


class CutReplica(Fault):
    """Its replicas are not let in again, so that they hear no more of it; it sells on."""

    def __init__(self, planned: PlannedFault) -> None:
        super().__init__(planned)
        self._cut: dict[str, str] = {}

    def do(self, site: Site) -> None:
        (name,) = site.names(self.planned.whom)
        port = site.child(name).port
        for node in site.nodes:
            with site.redis(node) as client:
                if client.info("replication").get("master_port") == port:
                    self._cut[node] = str(client.config_get("masterauth")["masterauth"])
                    client.config_set("masterauth", f"{self._cut[node]}-no-more")
        if not self._cut:
            raise UnreachableError(f"{name} has no replica now")
        self.tell(f"{' and '.join(self._cut)} heard no more of {name}")
        with site.redis(name) as client:
            client.client_kill_filter(_type="replica")

    def heal(self, site: Site) -> None:
        for node, word in self._cut.items():
            site.await_well(node)
            with site.redis(node) as client:
                client.config_set("masterauth", word)

    def settle(self, site: Site) -> None:
        """No master moves by this."""
        site.await_whole()


class Isolate(Fault):
    """Its replica and its Sentinels are not let in again, until they have made another the primary;
    who sells by it still can, so that for a while there are two."""

    _OTHERS = (LINK, WATCH)
    _REFUSED = "default"  # who has not been let in
    _name = ""

    def do(self, site: Site) -> None:
        self._name = site.one(self.planned.whom)
        if site.masters() != {WHOLE: self._name}:
            raise UnreachableError(f"{self._name} is not the primary now, so it has no Sentinels")
        with site.redis(self._name) as client:
            for account in self._OTHERS:
                client.acl_setuser(account, enabled=False, reset=False)
            for account in self._OTHERS:
                client.execute_command("CLIENT", "KILL", "USER", account)
        site.until(
            lambda: site.masters() != {WHOLE: self._name}, f"nothing took over from {self._name}"
        )

    def heal(self, site: Site) -> None:
        if self._name:
            site.await_well(self._name)
            with site.redis(self._name) as client:
                for account in self._OTHERS:
                    client.acl_setuser(account, enabled=True, reset=False)
                # Sentinels keep a connection over which they were refused for 15 s
                client.execute_command("CLIENT", "KILL", "USER", self._REFUSED)


class Restart(Kill):
    """Told to end, in the way of its kind."""

    def end(self, pid: int, name: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT if name == "nginx" else signal.SIGTERM)


class Stop(Fault):
    """Stopped, and continued."""

    def __init__(self, planned: PlannedFault) -> None:
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

    def __init__(self, planned: PlannedFault) -> None:
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
    """The ledger begun again from files that are as old as the storm, on a cluster each node.

    A copy of an append-only file that is being written is one that was cut somewhere: Redis loads
    it up to the last whole command.
    """

    def __init__(self, planned: PlannedFault) -> None:
        super().__init__(planned)
        self._pids: dict[str, int] = {}
        self._since_s = 0.0

    def prepare(self, site: Site) -> None:
        self._older = {
            name: site.state_dir / "older" / name for name in site.nodes or (self.planned.whom,)
        }
        for name, copy in self._older.items():
            shutil.copytree(_files_of(site, name), copy)

    def do(self, site: Site) -> None:
        self._pids = {name: site.child(name).pid for name in self._older}
        with site.held(*self._older):
            for pid in self._pids.values():
                signal_all(pid, signal.SIGKILL)
            for pid in self._pids.values():
                end_of(pid)
            self._since_s = time.monotonic()
            for name, copy in self._older.items():
                shutil.rmtree(_files_of(site, name))
                shutil.copytree(copy, _files_of(site, name))

    def heal(self, site: Site) -> None:
        for name, pid in self._pids.items():
            site.await_reborn(name, pid)
        if self._pids:
            self.rebuild_ledger(site, self._since_s)


def _files_of(site: Site, name: str) -> Path:
    return site.state_dir / data_of(name, site.form) / _AOF


# Links -------------------------------------------------------------------------------------------

_NUMBERS = count(1)
_END_S = 5.0


def links_of(faults: Sequence[PlannedFault], processes: Processes) -> list[str]:
    """The links that these faults are on, each as `r1->ledger`, for a stack of these processes.
    Pure."""
    found: dict[str, None] = {}
    for fault in faults:
        place = fault.place
        if place.server is not None:
            for client in processes.of(place.client):
                for server in processes.of(place.server):
                    found[f"{client}->{server}"] = None
    return list(found)


class Relay:
    """The process that relays the links of one stack: `with Relay(folder, links) as relay`.

    `ports` says where each link begins. Start it from the main thread, before the stack.
    """

    def __init__(self, state_dir: Path, links: Sequence[str]) -> None:
        self._arguments = [str(state_dir), *links]
        self._lock = threading.Lock()
        self.ports: Mapping[str, int] = {}

    def __repr__(self) -> str:
        return f"<Relay {dict(self.ports)}>"

    def __enter__(self) -> Self:
        self._process = start_tethered(
            [sys.executable, "-P", "-m", "flashsale.faults.relay", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.ports = self._heard()
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            assert process.stdin
            try:
                process.stdin.close()
                process.wait(_END_S)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()

    def disturb(self, link: str, number: int, planned: PlannedFault | None) -> None:
        """Begin with a fault on every link that `link` stands for, or end the one of this number.

        Raises UnreachableError where the relay is gone.
        """
        trouble = None if planned is None else _trouble(planned)
        assert self._process.stdin
        with self._lock:
            for name in self.ports:
                if _is_one_of(name, link):
                    try:
                        self._process.stdin.write(message(name, number, trouble))
                        self._process.stdin.flush()
                    except OSError as gone:
                        raise UnreachableError(f"the relay of {name} is gone") from gone
                    self._heard()

    def _heard(self) -> dict[str, int]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise UnreachableError("the relay of the links with faults has ended")
        heard: dict[str, int] = orjson.loads(line)
        return heard


def _trouble(planned: PlannedFault) -> Trouble:
    return Trouble(
        planned.what,
        latency_ms=planned.latency_ms,
        jitter_ms=planned.jitter_ms,
        kb_per_s=planned.kb_per_s,
        slice_bytes=planned.slice_bytes,
    )


def _is_one_of(link: str, asked: str) -> bool:
    """Whether `r1->ledger` is meant by `r1->ledger` or `replica->ledger`."""
    ends, wanted = link.split("->"), asked.split("->")
    return all(want in (end, role_of(end)) for end, want in zip(ends, wanted, strict=True))


class OnLink(Fault):
    """What the relay does to a link for a while, or in an instant."""

    _number = 0

    def do(self, site: Site) -> None:
        assert site.disturb is not None, "a link with a fault has a relay"
        self._number = next(_NUMBERS)
        site.disturb(str(self.planned.place), self._number, self.planned)

    def heal(self, site: Site) -> None:
        assert site.disturb is not None
        if self._number:
            site.disturb(str(self.planned.place), self._number, None)
