"""Faults below a process, in what it asks the kernel for: a power cut, a slow or failing fsync, a
full disk, a shifted clock. A small library stands in between (shim.c), compiled at first use and
loaded into those processes of a private stack alone that are to have such a fault.
"""

import errno
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import orjson

from flashsale.errors import UsageError
from flashsale.faults.fault import Fault, Site, data_of, end_of, signal_all
from flashsale.files import private_folder
from flashsale.scenario.fault import PlannedFault, Processes, role_of

_SOURCE = Path(__file__).with_name("shim.c")
_COMPILERS = ("cc", "gcc", "clang")
_COMPILED_WITHIN_S = 60
_FOLDER = "shim"  # in the state folder of a stack
_WATCHED = ("ledger", "mysql")
"""Whose files are watched."""


def needs_shim(faults: Sequence[PlannedFault]) -> bool:
    """Whether a stack has to be started with the library for these faults. Pure."""
    return any(fault.kind.needs_compiler for fault in faults)


@cache
def compiler() -> str | None:
    """The C compiler of this machine."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


def ensure_compiler(faults: Sequence[PlannedFault]) -> None:
    """Raises UsageError for a fault that needs a C compiler, where there is none."""
    for fault in faults:
        if fault.kind.needs_compiler and compiler() is None:
            raise UsageError(
                f"fault.what: {fault.what!r} needs a C compiler, and there is no "
                f"{', '.join(_COMPILERS)}; install one (apt install gcc libc6-dev), or leave it out"
            )


def install(
    state_dir: Path, faults: Sequence[PlannedFault], processes: Processes
) -> dict[str, str]:
    """Compile the library into the state folder of a stack to be, with a control file for every
    process that `faults` need it in; what the stack's environment has to say of that.

    Raises UsageError where it cannot be made.
    """
    folder = state_dir.absolute() / _FOLDER
    if set(" :;$") & set(str(folder)):
        raise UsageError(
            f"--state-dir: {state_dir} has a space, ':', ';' or '$' in its path, which LD_PRELOAD "
            "does not take; name another folder"
        )
    private_folder(folder)
    library = folder / "shim.so"
    _compile(library)
    shims = {}
    for name, some in _befallen(faults, processes).items():
        cuts = any(fault.what == "power_cut" for fault in some)
        is_watched = role_of(name) in _WATCHED
        watched = state_dir.resolve() / data_of(name, processes.form) if is_watched else None
        shims[_process(name)] = str(
            ShimControl.made(state_dir, name, watched, keeps_undo=cuts).path
        )
    return {
        "FLASHSALE_STACK_SHIM": str(library),
        "FLASHSALE_STACK_SHIMS": orjson.dumps(shims).decode(),
    }


def _befallen(
    faults: Sequence[PlannedFault], processes: Processes
) -> dict[str, list[PlannedFault]]:
    """Every process that may need it, with its faults."""
    found: dict[str, list[PlannedFault]] = {}
    for fault in faults:
        if fault.kind.needs_compiler:
            for name in processes.of(fault.whom.strip()):
                found.setdefault(name, []).append(fault)
    return found


def _process(name: str) -> str:
    return "mariadb" if name == "mysql" else name


def _compile(library: Path) -> None:
    words = ("-shared", "-fPIC", "-O2", "-U_FORTIFY_SOURCE", "-o", library, _SOURCE)
    try:
        done = subprocess.run(
            [compiler() or _COMPILERS[0], *words, "-ldl", "-lpthread"],
            capture_output=True,
            text=True,
            timeout=_COMPILED_WITHIN_S,
            check=False,
        )
        said = "" if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        raise UsageError(
            "the library for faults below a process could not be compiled: "
            f"{said.splitlines()[-1]}; install a C compiler with its headers (apt install gcc "
            "libc6-dev), or leave these faults out"
        )


# The control file --------------------------------------------------------------------------------

_LAYOUT = {
    "clock_ns": "0 q",
    "fsync_delay_ms": "8 I",
    "fsync_error": "12 I",
    "write_error": "16 I",
    "keeps_undo": "20 I",
}
"""Where each setting stands, and of which type: as `struct control` in shim.c."""
_FOLDER_AT, _BYTES = 24, 8192
_HEAD, _RECORD = struct.Struct("=Q"), struct.Struct("=QQQ")


@dataclass(frozen=True)
class ShimControl:
    """What the library in one process is told, from one moment to the next."""

    path: Path

    @classmethod
    def of(cls, site: Site, name: str) -> "ShimControl":
        """That of a process of a stack, by its name."""
        return cls(site.state_dir.absolute() / _FOLDER / name)

    @classmethod
    def made(
        cls, state_dir: Path, name: str, watched: Path | None, *, keeps_undo: bool
    ) -> "ShimControl":
        """A new one, for a process whose files below `watched` are to be watched."""
        control = cls(state_dir.absolute() / _FOLDER / name)
        private_folder(control.undo)
        folder = os.fsencode(watched or "")
        page = bytearray(_BYTES)
        page[_FOLDER_AT : _FOLDER_AT + len(folder)] = folder
        control.path.write_bytes(page)
        control.set("keeps_undo", int(keeps_undo))
        return control

    @property
    def undo(self) -> Path:
        """The folder of the undo files."""
        return self.path.with_name(f"{self.path.name}.undo")

    def set(self, name: str, value: int) -> None:
        """Tell it something, at once."""
        at, kind = _LAYOUT[name].split()
        with self.path.open("r+b", buffering=0) as file:
            file.seek(int(at))
            file.write(struct.pack(f"={kind}", value))

    def cut_back(self) -> tuple[int, int]:
        """Bring the watched files of a process that has ended back to their last fsync; how many
        writes that took away, and from how many files."""
        folder = self.path.read_bytes()[_FOLDER_AT:].partition(b"\0")[0]
        by_inode = {path.stat().st_ino: path for path in _files(Path(os.fsdecode(folder)))}
        writes = files = 0
        for undo in sorted(self.undo.iterdir()):
            records = list(_records(undo.read_bytes()))
            path = by_inode.get(int(undo.name))
            if records and path is not None:
                with path.open("r+b", buffering=0) as file:
                    for offset, size, old in reversed(records):
                        file.truncate(size)
                        file.seek(offset)
                        file.write(old)
                writes, files = writes + len(records), files + 1
            undo.unlink()
        return writes, files


def _files(folder: Path) -> Iterator[Path]:
    for here, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(here, name)).is_file())


def _records(undo: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Offset, length of the file and old bytes of each write, oldest first; half a record at the
    end is of a write that never was."""
    if len(undo) < _HEAD.size:
        return
    (at,) = _HEAD.unpack_from(undo)
    while at + _RECORD.size <= len(undo):
        offset, length, size = _RECORD.unpack_from(undo, at)
        at += _RECORD.size
        if at + length > len(undo):
            return
        yield offset, size, undo[at : at + length]
        at += length


# The faults --------------------------------------------------------------------------------------


class PowerCut(Fault):
    """The process is killed, and its files are brought back to what it had fsynced.

    What it told anybody before rests on an fsync, or it is lost. A ledger whose policy of fsync
    lets it lose something is rebuilt. Not covered: a disk that lies about fsync, and one that kept
    some of what was not fsynced, torn or in another order.
    """

    _name = ""
    _pid = 0
    _may_lose = False

    def do(self, site: Site) -> None:
        self._name = site.one(self.planned.whom.strip())
        site.await_well(self._name)  # an earlier one may just be over
        if self.planned.is_of_ledger:
            with site.redis(self._name) as ledger:
                self._may_lose = ledger.config_get("appendfsync")["appendfsync"] != "always"
        pid = self._pid = site.child(self._name).pid
        with site.held(self._name):
            signal_all(pid, signal.SIGKILL)
            end_of(pid)
            writes, files = ShimControl.of(site, self._name).cut_back()
        self.tell(f"{writes:,} writes to {files:,} files had not been fsynced")

    def heal(self, site: Site) -> None:
        if not self._pid:
            return
        site.await_reborn(self._name, self._pid)
        if self._may_lose:
            self.rebuild_ledger(site, None)  # MySQL may not have known of what is lost


class _Told(Fault):
    """Something that the library does from the moment that it is told to."""

    setting = ""
    _names: Sequence[str] = ()

    def do(self, site: Site) -> None:
        self._names = site.names(self.planned.whom.strip())
        self._tell(site, self.value())

    def heal(self, site: Site) -> None:
        self._tell(site, 0)
        for name in self._names:
            site.await_well(name)

    def value(self) -> int:
        """What it is told."""
        raise NotImplementedError

    def _tell(self, site: Site, value: int) -> None:
        for name in self._names:
            ShimControl.of(site, name).set(self.setting, value)


class SlowFsync(_Told):
    """Each fsync comes later."""

    setting = "fsync_delay_ms"

    def value(self) -> int:
        return self.planned.latency_ms


class FailingFsync(_Told):
    """Each fsync fails: what was written may be on disk or not, and nobody can know any more."""

    setting = "fsync_error"

    def value(self) -> int:
        return errno.EIO


class DiskFull(_Told):
    """No file of it gets longer."""

    setting = "write_error"

    def value(self) -> int:
        return errno.ENOSPC


class ShiftedClock(_Told):
    """Its time of day is another; the clocks that only count seconds are as ever."""

    setting = "clock_ns"

    def value(self) -> int:
        return self.planned.shift_ms * 1_000_000
