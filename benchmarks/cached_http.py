"""A cached read through HTTP: CPU of the replica that answers it, beside the bare answer's."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare import bare_server
from benchmarks.cpu import CpuMeter
from benchmarks.system import System, flashsale, system_of
from benchmarks.table import Section, median, spread

READS = 100_000
CONNECTIONS = 256
SHOPS = 1_000
RATIO_LIMIT = 1.35
_SCENARIO = f"""schema = 1
name = "cached"
[browse]
shops = {{shops}}
[load]
model = "stampede"
users = {{reads}}
connections = {CONNECTIONS}
"""


@dataclass(frozen=True)
class Taken:
    """What one storm of reads took, a read."""

    replica_us: float
    storm_us: float
    per_s: float
    hit_share: float


def measure(runs: int) -> Section:
    """`runs` times 100,000 reads of 1,000 shops, of one replica and of the bare answer in turn."""
    section = Section(f"cached read through HTTP: {CONNECTIONS} connections, one replica, no nginx")
    taken: dict[str, list[Taken]] = {"bare": [], "logical": [], "mutex": []}
    with bare_server() as bare, stack_with(hot=SHOPS) as warmed, stack_with(hot=0) as cold:
        targets = {
            "bare": (bare.url, bare.pid),
            "logical": replica_of(warmed),
            "mutex": replica_of(cold),
        }
        for url, pid in targets.values():
            storm_on(url, pid, SHOPS * 10)  # fills what was not warmed
        for _ in range(runs):
            for what, (url, pid) in targets.items():
                taken[what].append(storm_on(url, pid, READS))
    bare_us = median([each.replica_us for each in taken["bare"]])
    section.add("bare answer, CPU µs", spread([each.replica_us for each in taken["bare"]], 1))
    for what in ("logical", "mutex"):
        costs = [each.replica_us for each in taken[what]]
        section.add(f"{what}: replica CPU µs a read", spread(costs, 1))
        section.add_ratio(
            "… as a multiple of the bare answer", median(costs) / bare_us, RATIO_LIMIT
        )
        section.add("… reads/s", spread([each.per_s for each in taken[what]]))
        section.add("… hits", f"{min(each.hit_share for each in taken[what]):.1%}")
    section.add("storm, CPU µs a read", spread([each.storm_us for each in taken["logical"]], 1))
    return section


@contextmanager
def stack_with(hot: int, python: str = sys.executable) -> Iterator[System]:
    """A stack of one replica that keeps so many shops warm, of the flashsale that `python` has."""
    with ExitStack() as stack:
        with _environment("FLASHSALE_CATALOG_HOT_SHOPS", str(hot)):
            made = stack.enter_context(system_of(python, "--replicas", "1"))
            where = ("--state-dir", str(made.folder))
            flashsale(python, "seed", "--shops", str(SHOPS), *where)
            flashsale(python, "warm", *where)
        yield made


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def replica_of(system: System) -> tuple[str, int]:
    """Where nginx asks the one replica, and its process id."""
    child = next(child for child in system.state.children if child.kind == "replica")
    socket = system.folder / "replicas" / f"{child.name}.sock"
    # By its port where the kernel's queue of a socket is too short for all that nginx can ask.
    return (f"unix:{socket}" if socket.exists() else f"http://127.0.0.1:{child.port}"), child.pid


def storm_on(url: str, pid: int, reads: int) -> Taken:
    """Reads of all shops, from the process that is `pid`."""
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name:
        scenario, out = Path(name, "cached.toml"), Path(name, "run")
        scenario.write_text(_SCENARIO.format(shops=SHOPS, reads=reads))
        words = ["storm", str(scenario), "--quiet", "--out", str(out), "--base-url", url]
        meter = CpuMeter({"replica": [pid]})
        subprocess.run(
            [sys.executable, "-m", "flashsale", *words, "--state-dir", name],
            capture_output=True,
            check=False,
        )
        used_s = meter.used_s()["replica"]
        summary = json.loads((out / "summary.json").read_text())
    load = summary["load"]
    return Taken(
        replica_us=used_s / load["sent"] * 1e6,
        storm_us=summary["generator"]["cpu_us_per_request"],
        per_s=load["rate_per_s"],
        hit_share=load["outcomes"].get("hit", 0) / load["sent"],
    )
