"""What this machine can take: cores, memory, descriptors, the kernel's queues and ports."""

import os
import resource
import shutil
from collections.abc import Iterable
from pathlib import Path

import psutil

from flashsale.doctor.findings import Diagnosis, judged
from flashsale.doctor.policies import Grade
from flashsale.errors import UsageError
from flashsale.stack import binaries
from flashsale.stack.trial import complaint

_CORES_LEAST = 2
_MEMORY_LEAST_MB = 2_048
_DISK_LEAST_MB = 2_048
_DESCRIPTORS_LEAST = 8_192  # 2,000 buyers, two sockets each in nginx, and as much again
_DESCRIPTORS_TO_START = 1_024
"""Half of them are nginx's for connections; with fewer it would be none."""

_BACKLOG_LEAST = 2_048
_PORTS_LEAST = 10_000


def examine_machine(state_dir: Path) -> list[Diagnosis]:
    """Whether 2,000 buyers and a stack fit on this machine."""
    cores = len(os.sched_getaffinity(0))
    memory_mb = psutil.virtual_memory().available // 2**20
    disk_mb = shutil.disk_usage(_existing(state_dir)).free // 2**20
    descriptors = _descriptors()
    backlog = _kernel_number("net/core/somaxconn")
    ports = _outgoing_ports()
    return [
        judged(
            "machine", "cores", cores, cores >= _CORES_LEAST,
            "use a machine with two cores: stack and storm share them", Grade.WARN,
        ),
        judged(
            "machine", "free memory", f"{memory_mb} MiB", memory_mb >= _MEMORY_LEAST_MB,
            "free some: the two Redis, MariaDB and the storm want 2 GiB", Grade.WARN,
        ),
        judged(
            "machine", "free disk", f"{disk_mb} MiB", disk_mb >= _DISK_LEAST_MB,
            "free some, or choose another --state-dir", Grade.WARN,
        ),
        judged(
            "machine", "descriptors", descriptors, descriptors >= _DESCRIPTORS_LEAST,
            f"raise the hard limit: ulimit -Hn {_DESCRIPTORS_LEAST * 2}, or limits.conf",
        ),
        judged(
            "machine", "somaxconn", backlog, backlog >= _BACKLOG_LEAST,
            "sudo sysctl net.core.somaxconn=4096", Grade.WARN,
        ),
        judged(
            "machine", "outgoing ports", ports, ports >= _PORTS_LEAST,
            'sudo sysctl net.ipv4.ip_local_port_range="32768 60999"', Grade.WARN,
        ),
    ]  # fmt: skip


def insist_on_descriptors() -> None:
    """Raises UsageError where a stack could not start for want of open files."""
    hard = _descriptors()
    if hard < _DESCRIPTORS_TO_START:
        raise UsageError(
            f"a stack needs {_DESCRIPTORS_TO_START:,} open files and the hard limit is {hard:,}; "
            f"raise it (`ulimit -Hn {_DESCRIPTORS_LEAST * 2}` as root, or LimitNOFILE)"
        )


def examine_binaries(wanted: Iterable[binaries.Program]) -> list[Diagnosis]:
    """Whether each program is found, is new enough, and starts: each is started once."""
    return [_examine_binary(program) for program in wanted]


def _examine_binary(program: binaries.Program) -> Diagnosis:
    binary = binaries.look(program)
    command = binaries.install_command()
    if binary is None:
        cure = f"install it with {command}"
        return Diagnosis("program", program.name, binaries.absence(program), Grade.FAIL, cure)
    why = complaint(program, binary)
    found = f"{binary} does not start: {why}" if why else str(binary)
    if "services install" in command:
        cure = f"{command} fetches it anew and starts it once"
    else:
        cure = f"remove its package, and install anew with {command}"
    return judged("program", program.name, found, why is None, cure)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _descriptors() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 2**31 if hard == resource.RLIM_INFINITY else hard


def _outgoing_ports() -> int:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        low, high = (int(part) for part in text.split())
    except (OSError, ValueError):
        return 0
    return high - low + 1


def _kernel_number(name: str) -> int:
    try:
        return int((Path("/proc/sys") / name).read_text())
    except (OSError, ValueError):
        return 0
