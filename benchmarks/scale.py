"""How it grows: claims/s by replicas and by cores, what connections cost, a million attempts, a
sale of a thousand vouchers. Curves, for information: no line has a limit.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.generator import Size, write_stampede
from benchmarks.null_target import null_target
from benchmarks.system import Storm, system
from benchmarks.table import Section, spread

REPLICAS = (1, 2, 3, 4, 6)
CONNECTIONS = (1_000, 5_000, 10_000, 50_000)
ATTEMPTS = (100_000, 300_000, 1_000_000)
VOUCHERS = 1_000
USERS = 60_000
_SPARE_DESCRIPTORS = 512
_EVERY_S = 0.02
_MB = 1_000_000


def measure(runs: int) -> Section:
    """`runs` bursts at each point of each curve."""
    section = Section(
        f"how it grows, on {os.cpu_count()} cores; bursts of {USERS:,} claims, all sold"
    )
    for replicas in REPLICAS:
        rates, cpu = _bursts(runs, replicas)
        section.add(f"claims/s of {replicas} replicas", spread(rates))
        section.add("… CPU of the replicas a claim, µs", spread(cpu, 1))
    for cores in range(1, (os.cpu_count() or 1) + 1):
        with _on_cores(cores):
            rates, _ = _bursts(runs, 3)
        section.add(f"claims/s on {cores} cores, the storm's share included", spread(rates))
    _vouchers(section)
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name, null_target() as target:
        for connections in CONNECTIONS:
            _connections(section, Path(name), target.url, connections)
        for attempts in ATTEMPTS:
            _attempts(section, Path(name), target.url, attempts)
    return section


def _bursts(runs: int, replicas: int) -> tuple[list[float], list[float]]:
    """Claims/s, and CPU µs of the replicas a claim, of each burst."""
    with system("--replicas", str(replicas)) as stack:
        stack.seed(users=USERS, vouchers=runs, units=runs * USERS)
        done = [
            stack.storm(Storm(f"burst-{number}", USERS, USERS, first_voucher=number))
            for number in range(1, runs + 1)
        ]
    return [run.per_s for run in done], [run.cpu_us("replica") for run in done]


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Whatever is started in the block has the first `count` cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _vouchers(section: Section) -> None:
    """One burst over all vouchers of one sale."""
    with system() as stack:
        stack.seed(users=USERS, vouchers=VOUCHERS, units=VOUCHERS * USERS)
        run = stack.storm(Storm("many", USERS, VOUCHERS * USERS, vouchers=VOUCHERS))
    section.add(f"claims/s of a sale of {VOUCHERS:,} vouchers", f"{run.per_s:,.0f}")
    section.add("… CPU of the ledger a claim, µs", f"{run.cpu_us('redis-ledger'):.1f}")


@dataclass(frozen=True)
class _Took:
    """What a command took: seconds, and the most memory that it and its processes had, bytes."""

    s: float
    memory: int


def _watched(*words: str) -> _Took:
    """Run a command of ours and watch its memory."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "flashsale", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    most = 0
    while process.poll() is None:
        most = max(most, _memory(process.pid))
        time.sleep(_EVERY_S)
    return _Took(time.monotonic() - began, most)


def _memory(pid: int) -> int:
    try:
        root = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (root, *root.children(recursive=True)))
    except psutil.Error:
        return 0


def _connections(section: Section, folder: Path, url: str, connections: int) -> None:
    """As many claims as connections, on a target that costs next to nothing."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    room = min(most - _SPARE_DESCRIPTORS, last - first - _SPARE_DESCRIPTORS)
    if connections > room:
        section.notes.append(
            f"not with {connections:,} connections: descriptors ({most:,}) and ports "
            f"({last - first + 1:,}) of this machine leave room for {room:,}"
        )
        return
    size = Size(requests=connections, connections=connections)
    few, _, _ = _storm(folder, url, Size(requests=connections, connections=10))
    took, summary, _ = _storm(folder, url, size)
    each = (took.memory - few.memory) / connections
    ms = summary["generator"]["connect_ms"]
    section.add(
        f"{connections:,} connections: memory of the storm for each, kB", f"{each / 1e3:.1f}"
    )
    section.add("… handshake p50, p99, ms", f"{ms['p50']:.2f}, {ms['p99']:.2f}")


def _attempts(section: Section, folder: Path, url: str, attempts: int) -> None:
    took, summary, out = _storm(folder, url, Size(requests=attempts, connections=1_000))
    section.add(f"{attempts:,} attempts: memory of the storm, MB", f"{took.memory / _MB:,.0f}")
    disk = sum(file.stat().st_size for file in out.iterdir())
    section.add("… of its run on disk, MB", f"{disk / _MB:,.0f}")
    fired_s = summary["load"]["duration_s"]
    section.add("… from its start to its report, of that firing, s", f"{took.s:.1f}, {fired_s:.1f}")
    again = _watched("report", "render", str(out))
    section.add("… `report` of it: s, MB", f"{again.s:.1f}, {again.memory / _MB:,.0f}")


def _storm(folder: Path, url: str, size: Size) -> tuple[_Took, dict[str, Any], Path]:
    write_stampede(folder, size)
    out = Path(tempfile.mkdtemp(dir=folder)) / "run"
    words = ["storm", str(folder / "null.toml"), "--quiet", "--out", str(out), "--base-url", url]
    took = _watched(*words, "--tokens", str(folder / "tokens.csv"))
    return took, json.loads((out / "summary.json").read_text()), out
