"""The faults of a scenario, made under its storm: each at its instant, healed, and recorded."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flashsale.errors import UsageError
from flashsale.faults.fault import TROUBLES, Fault, Site
from flashsale.faults.outside import (
    SHORT_LEASES,
    CutReplica,
    FailOver,
    Isolate,
    Kill,
    MemoryLimit,
    OlderCopy,
    OnLink,
    PausePastLease,
    Restart,
    Stop,
)
from flashsale.faults.shim import (
    DiskFull,
    FailingFsync,
    PowerCut,
    ShiftedClock,
    SlowFsync,
    ensure_compiler,
)
from flashsale.faults.stores import (
    Delete,
    DropGroup,
    Flush,
    KillConnections,
    LockRows,
    OutOfMemory,
    PauseClients,
    Poison,
    ReadOnly,
    Trim,
    WrongType,
)
from flashsale.run.parts import FaultRecord
from flashsale.scenario.fault import KINDS, PlannedFault, Processes, role_of, trouble_with

_OF_PROCESSES_AND_STORES: dict[str, type[Fault]] = {
    "kill": Kill,
    "stop": Stop,
    "restart": Restart,
    "pause_past_lease": PausePastLease,
    "memory_limit": MemoryLimit,
    "power_cut": PowerCut,
    "slow_fsync": SlowFsync,
    "failing_fsync": FailingFsync,
    "disk_full": DiskFull,
    "clock": ShiftedClock,
    "older_copy": OlderCopy,
    "fail_over": FailOver,
    "cut_replica": CutReplica,
    "isolate": Isolate,
    "kill_connections": KillConnections,
    "pause_clients": PauseClients,
    "out_of_memory": OutOfMemory,
    "read_only": ReadOnly,
    "lock_rows": LockRows,
    "drop_group": DropGroup,
    "wrong_type": WrongType,
    "flush": Flush,
    "trim": Trim,
    "delete": Delete,
    "poison": Poison,
}
MAKERS: dict[str, type[Fault]] = {
    **{what: OnLink for what, kind in KINDS.items() if kind.is_of_links},
    **_OF_PROCESSES_AND_STORES,
}
"""Every `what` of a scenario, and who makes it."""


def ensure_possible(faults: Sequence[PlannedFault], processes: Processes) -> None:
    """See that a stack of these processes has whom these faults befall, and this machine what they
    need. Raises UsageError."""
    ensure_compiler(faults)
    for fault in faults:
        for name in filter(None, (fault.place.client, fault.place.server)):
            _ensure_there(fault, name, processes)
        if fault.what == "pause_past_lease" and processes.workers < 2 and fault.whom != "worker":
            raise UsageError(
                "fault.what: 'pause_past_lease' needs another worker to take over; set "
                "FLASHSALE_STACK_WORKERS=2"
            )
        if trouble := trouble_with(fault.what, str(fault.place), processes.form):
            raise UsageError(f"fault.what: {trouble}")


def _ensure_there(fault: PlannedFault, name: str, processes: Processes) -> None:
    role = role_of(name)
    known = processes.of(role)
    if name == role or name in known:
        return
    found = f"fault.whom: found {fault.whom!r}, but the stack"
    if role == "ledger":
        flags = "--ha or --cluster" if name == "ledger-2" else "--cluster"
        cure = f"name one of {', '.join(known)}" if processes.nodes else f"add {flags}"
        raise UsageError(f"{found}'s ledger has no such node; {cure}, or name 'ledger'")
    most = len(known)
    variable = f"FLASHSALE_STACK_{role.upper()}S"
    raise UsageError(
        f"{found} has {most} {role}{'s' * (most != 1)}; set {variable}={name[1:]}, or name another"
    )


class Making:
    """Makes faults in threads of their own, beside a storm.

    `begin()` when the barrier opens, `finish()` when the storm is over: it waits until everything
    is healed and returns the records. What had not begun by then is not begun any more.
    """

    def __init__(
        self,
        faults: Sequence[PlannedFault],
        site: Site,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._faults = [MAKERS[planned.what](planned) for planned in faults]
        self._records = [
            FaultRecord(
                what=fault.planned.what,
                whom=str(fault.planned.place),
                told=fault.describe(),
                planned_ms=fault.planned.at_s * 1000,
            )
            for fault in self._faults
        ]
        self._site, self._say = site, say
        self._over, self._cut_short = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._began_s: float | None = None

    def __repr__(self) -> str:
        return f"<Making {self._faults}>"

    def begin(self, elapsed_s: float = 0.0, run: Path | None = None) -> None:
        """The storm has been under way for `elapsed_s`, and its files are in `run`. Only the first
        call counts."""
        if self._began_s is not None:
            return
        self._began_s = time.monotonic() - elapsed_s
        self._site = replace(self._site, run=run)
        for number, fault in enumerate(self._faults):
            thread = threading.Thread(
                target=self._make, args=(number, fault), name=fault.planned.what, daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def finish(self, *, at_once: bool = False) -> list[FaultRecord]:
        """Wait until all is healed, at once or when it is time; what became of each."""
        self._over.set()
        if at_once:
            self._cut_short.set()
        for thread in self._threads:
            thread.join()
        return self._records

    def _make(self, number: int, fault: Fault) -> None:
        """Make one fault; its record is this thread's alone."""
        planned = fault.planned
        try:
            fault.prepare(self._site)
            if self._over.wait(max(0.0, planned.at_s - self._elapsed_s())):
                self._note(number, trouble="the storm was over before it")
                return
            self._note(number, done_ms=self._elapsed_ms())
            self._say(f"fault: {fault.describe()}")
            fault.look(self._site)
            try:
                fault.do(self._site)
                self._cut_short.wait(planned.for_s)
            finally:
                fault.heal(self._site)
            fault.settle(self._site)
            self._note(
                number,
                healed_ms=self._elapsed_ms(),
                found=fault.found,
                gone=tuple(map(str, fault.gone)),
                behind_ms=self._instants(fault.behind_s),
            )
            self._say(f"healed: {planned}" + (f"; {fault.found}" if fault.found else ""))
        except TROUBLES as error:
            self._note(number, trouble=str(error) or type(error).__name__)
            self._say(f"{planned} could not be made: {error}")

    def _note(self, number: int, **found: object) -> None:
        self._records[number] = self._records[number].model_copy(update=found)

    def _elapsed_s(self) -> float:
        assert self._began_s is not None
        return time.monotonic() - self._began_s

    def _instants(self, span_s: tuple[float, float] | None) -> tuple[float, float] | None:
        assert self._began_s is not None
        if span_s is None:
            return None
        first, last = (round((at_s - self._began_s) * 1000, 1) for at_s in span_s)
        return first, last

    def _elapsed_ms(self) -> float:
        return round(self._elapsed_s() * 1000, 1)


def settings_for(faults: Sequence[PlannedFault]) -> dict[str, str]:
    """What a stack's environment has to say for these faults to be of use. Pure."""
    if not any(fault.what == "pause_past_lease" for fault in faults):
        return {}
    leases = {f"FLASHSALE_WORKER_{name.upper()}": str(ms) for name, ms in SHORT_LEASES.items()}
    return {"FLASHSALE_STACK_WORKERS": "2", **leases}
