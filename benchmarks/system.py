"""A whole system for one benchmark: a private stack, a data set, storms by the command line."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cpu import CpuMeter
from flashsale.stack.state import StackState, read_state, start_detached, stop_stack

_SCENARIO = """schema = 1
name = "{name}"
[sale]
vouchers = {vouchers}
first_voucher = {first_voucher}
units = {units}
[load]
model = "stampede"
users = {users}
connections = {connections}
"""


@dataclass(frozen=True)
class Storm:
    """One storm: who buys what, over how many connections."""

    name: str
    users: int
    units: int
    vouchers: int = 1
    first_voucher: int = 1
    connections: int = 2_000


@dataclass(frozen=True)
class Run:
    """What one storm came to: its summary, and CPU seconds by part of the system."""

    summary: dict[str, Any]
    cpu_s: dict[str, float]

    @property
    def sent(self) -> int:
        """Claims that went out."""
        return int(self.summary["load"]["sent"])

    @property
    def sold(self) -> int:
        """Claims acknowledged with an order id."""
        return int(self.summary["load"]["outcomes"].get("sold", 0))

    @property
    def per_s(self) -> float:
        """Answers a second, from the barrier to the last answer."""
        return self.sent / float(self.summary["load"]["duration_s"])

    def cpu_us(self, part: str) -> float:
        """CPU of one part per claim, µs."""
        return self.cpu_s[part] / self.sent * 1e6

    @property
    def generator_cpu_us(self) -> float:
        """CPU of the storm per claim, µs, by its own account."""
        return float(self.summary["generator"]["cpu_us_per_request"])


@dataclass(frozen=True)
class System:
    """A stack that runs, and the folder it lives in."""

    folder: Path
    state: StackState
    python: str = sys.executable
    """Whose flashsale it is."""

    def flashsale(self, *arguments: str, check: bool = True) -> None:
        """Run one command of ours on this stack; its output is shown only if it fails."""
        flashsale(sys.executable, *arguments, "--state-dir", str(self.folder), check=check)

    def seed(self, *, users: int, vouchers: int, units: int) -> None:
        """Seed and warm, as its own flashsale does."""
        flags = {"--users": users, "--vouchers": vouchers, "--units": units}
        words = (str(word) for flag in flags.items() for word in flag)
        for command in (("seed", *words), ("warm",)):
            flashsale(self.python, *command, "--state-dir", str(self.folder))

    def storm(self, storm: Storm, *, base_url: str | None = None) -> Run:
        """Run `storm`, on this system or on another base URL with its tokens."""
        scenario = self.folder / f"{storm.name}.toml"
        scenario.write_text(_SCENARIO.format(**vars(storm)))
        out = Path(tempfile.mkdtemp(prefix=f"{storm.name}-", dir=self.folder)) / "run"
        meter = CpuMeter(self.pids)
        target = ("--base-url", base_url) if base_url else ()
        self.flashsale("storm", str(scenario), "--out", str(out), *target, check=False)
        return Run(json.loads((out / "summary.json").read_text()), meter.used_s())

    @property
    def pids(self) -> dict[str, list[int]]:
        """Its processes by their kind."""
        pids: dict[str, list[int]] = {}
        for child in self.state.children:
            pids.setdefault(child.kind, []).append(child.pid)
        return pids


def flashsale(python: str, *arguments: str, check: bool = True) -> None:
    """Run one command of the flashsale that `python` has; its output is shown only if it fails."""
    done = subprocess.run(
        [python, "-P", "-m", "flashsale", *arguments], capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        sys.exit(f"flashsale {' '.join(arguments)}: {done.stderr or done.stdout}")


@contextmanager
def system(*arguments: str) -> Iterator[System]:
    """A fresh private stack, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name:
        folder = Path(name)
        state = start_detached(folder, ["--port", "0", *arguments], tied=True)
        try:
            yield System(folder, state)
        finally:
            stop_stack(folder)


@contextmanager
def system_of(python: str, *arguments: str) -> Iterator[System]:
    """The same of another commit's flashsale, which is installed where `python` is."""
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name:
        where = ("--state-dir", name)
        flashsale(python, "serve", "--port", "0", "--detach", *arguments, *where)
        try:
            state = read_state(Path(name))
            assert state is not None
            yield System(Path(name), state, python)
        finally:
            flashsale(python, "stop", *where)
