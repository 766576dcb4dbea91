"""An older commit and this one, in turn on one machine: its servers and ours under the storm of
now, its storm and ours on a target that costs next to nothing.

    git worktree add ../before COMMIT && make -C ../before .venv/.installed
    python -m benchmarks in_turn --before ../before

Machines change their speed from one minute to the next. So both stacks are up all the time and take
their turns, every other pair in the other order, and what counts is the median of the ratios within
the pairs.
"""

import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cached_http import SHOPS, replica_of, stack_with, storm_on
from benchmarks.generator import Size, storm_cost, write_stampede
from benchmarks.null_target import null_target
from benchmarks.open_claims import RATES, claims_at, health_at, neighbour
from benchmarks.system import Run, Storm, System, system_of
from benchmarks.table import Section, median

BURST = 150_000
_STAMPEDE = Size(requests=50_000)
_STORM_PAIRS = 4
_READS, _READ_PAIRS = 50_000, 2
_LOADS = {
    "a burst": f'model = "stampede"\nusers = {_STAMPEDE.requests}\nconnections = 2000\n',
    "5,000/s": 'model = "rate"\nstages = ["10s:5000"]\nconnections = 64\n',
}
_PARTS = ("replica", "nginx", "redis-ledger", "redis-cache", "worker", "mariadb")

P50_LIMIT, CPU_LIMIT, HEALTH_LIMIT = 0.6, 0.8, 3.0
PART_LIMITS = {"replica": 0.8, "nginx": 0.92, "redis-ledger": 1.05}
STORM_LIMIT, FEWEST_TIMES = 1.05, 1.2
READ_LIMIT = 0.85

Figures = dict[str, float]


@dataclass
class _Pairs:
    """What was measured of one kind of load, before and now, pair by pair."""

    before: list[Figures] = field(default_factory=list)
    now: list[Figures] = field(default_factory=list)

    def ratio(self, name: str) -> float:
        """The median of now ÷ before within the pairs."""
        pairs = zip(self.before, self.now, strict=True)
        return median([now[name] / max(1e-9, before[name]) for before, now in pairs])

    def told(self, name: str, digits: int) -> str:
        """Both medians and the ratio."""
        of = [median([each[name] for each in side]) for side in (self.before, self.now)]
        return f"{of[0]:,.{digits}f} → {of[1]:,.{digits}f}, {self.ratio(name):.2f} ×"


def measure(runs: int, before: Path) -> Section:
    """`runs` pairs of each load of claims, twice as many of reads, and four times of storms."""
    pythons = {"before": str(before.resolve() / ".venv/bin/python"), "now": sys.executable}
    section = Section(f"in turn: {before.name} → now, medians, and of the ratios within pairs")
    _claims(section, runs, pythons)
    for what, hot in (("a hot shop", SHOPS), ("any other shop", 0)):
        _reads(section, what, hot, runs * _READ_PAIRS, pythons)
    _storms(section, runs * _STORM_PAIRS, pythons)
    return section


def _order(number: int) -> tuple[str, str]:
    return ("now", "before") if number % 2 else ("before", "now")


def _add(loads: dict[str, _Pairs], name: str, side: str, figures: Figures) -> None:
    getattr(loads.setdefault(name, _Pairs()), side).append(figures)


def _claims(section: Section, count: int, pythons: Mapping[str, str]) -> None:
    """`count` pairs: open arrivals at each rate, alone and beside a stranger; then of bursts."""
    phases = [(rate, is_beside) for is_beside in (False, True) for rate in RATES]
    vouchers = count * (len(phases) + 1)
    loads: dict[str, _Pairs] = {}
    with ExitStack() as entered:
        stacks = {
            side: entered.enter_context(system_of(python)) for side, python in pythons.items()
        }
        for stack in stacks.values():
            stack.seed(users=BURST, vouchers=vouchers, units=vouchers * BURST)
        for number in range(count):
            for place, (rate, is_beside) in enumerate(phases):
                voucher = 1 + number * len(phases) + place
                name = f"{rate:,}/s{' beside a stranger' if is_beside else ''}"
                with neighbour() if is_beside else nullcontext():
                    for side in _order(number):
                        _add(loads, name, side, _at_rate(stacks[side], voucher, rate))
        for number in range(count):
            storm = Storm(f"burst-{number}", BURST, BURST, first_voucher=vouchers - number)
            for side in _order(number):
                _add(loads, f"{BURST:,} at once", side, _burst(stacks[side].storm(storm)))
    for name, pairs in loads.items():
        _report_servers(section, name, pairs)


def _at_rate(stack: System, voucher: int, rate: int) -> Figures:
    run, health = claims_at(stack, voucher, rate), health_at(stack, rate)
    return {
        "p50": run.ms("p50"),
        "p99": run.ms("p99"),
        "health": health.ms("p50"),
        "servers": run.effort().cpu_s * 1e6,
        **{part: run.effort(part).cpu_s * 1e6 for part in _PARTS},
    }


def _burst(run: Run) -> Figures:
    parts = {part: run.cpu_us(part) for part in _PARTS}
    return {"per_s": run.per_s, "servers": sum(parts.values()), **parts}


def _report_servers(section: Section, name: str, pairs: _Pairs) -> None:
    if "per_s" in pairs.now[0]:
        times = pairs.ratio("per_s")
        holds = times >= FEWEST_TIMES
        section.add(f"{name}: claims/s", pairs.told("per_s", 0), f"≥ {FEWEST_TIMES:g} ×", holds)
        limits: Mapping[str, float] = PART_LIMITS
    else:
        _limited(section, f"{name}: claim, response p50, ms", pairs, "p50", P50_LIMIT, 2)
        section.add("… p99, ms", pairs.told("p99", 1))
        health = [
            now["p50"] / before["health"]
            for before, now in zip(pairs.before, pairs.now, strict=True)
        ]
        section.add_ratio("… p50 to /healthz of before", median(health), HEALTH_LIMIT)
        limits = {"servers": CPU_LIMIT}
    for part in ("servers", *_PARTS):
        what = f"… {part if part != 'servers' else 'all servers'}, CPU a claim, µs"
        if part in limits:
            _limited(section, what, pairs, part, limits[part], 0)
        else:
            section.add(what, pairs.told(part, 0))


def _limited(
    section: Section, what: str, pairs: _Pairs, name: str, most: float, digits: int
) -> None:
    section.add(what, pairs.told(name, digits), f"≤ {most:g} ×", pairs.ratio(name) <= most)


def _reads(section: Section, what: str, hot: int, count: int, pythons: Mapping[str, str]) -> None:
    """`count` pairs of storms of cached reads, on a replica of each, without nginx."""
    pairs = _Pairs()
    with ExitStack() as stacks:
        replicas = {
            side: replica_of(stacks.enter_context(stack_with(hot, python)))
            for side, python in pythons.items()
        }
        for url, pid in replicas.values():
            storm_on(url, pid, SHOPS * 10)  # fills what was not warmed
        for number in range(count):
            for side in _order(number):
                taken = storm_on(*replicas[side], _READS)
                getattr(pairs, side).append({"replica": taken.replica_us, "per_s": taken.per_s})
    _limited(section, f"a cached read of {what}: replica CPU, µs", pairs, "replica", READ_LIMIT, 1)
    section.add("… reads/s", pairs.told("per_s", 0))


def _storms(section: Section, count: int, pythons: Mapping[str, str]) -> None:
    """Both storms on nginx `return 200`, `count` pairs of each load."""
    loads: dict[str, _Pairs] = {}
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name, null_target() as target:
        folder = Path(name)
        write_stampede(folder, _STAMPEDE)
        for load, table in _LOADS.items():
            (folder / "null.toml").write_text(
                f'schema = 1\nname = "null"\n[sale]\nunits = {_STAMPEDE.requests}\n[load]\n{table}'
            )
            for number in range(count):
                for side in _order(number):
                    run = f"{len(loads)}-{number}-{side}"
                    firing, whole = storm_cost(
                        folder, target.url, run, _STAMPEDE, python=pythons[side]
                    )
                    _add(loads, load, side, {"firing": firing, "whole": whole})
    for load, pairs in loads.items():
        what = f"the storm, {load}: CPU a request, µs"
        _limited(section, what, pairs, "firing", STORM_LIMIT, 1)
        section.add("… the whole process", pairs.told("whole", 1))
