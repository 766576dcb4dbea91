"""500 and 1,000 claims a second, each at its own instant, beside `/healthz` through the same nginx;
with the machine to themselves, and beside a stranger who keeps one core busy.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cpu import Effort, EffortMeter
from benchmarks.system import System, system
from benchmarks.table import Section, median, spread
from flashsale.run.folder import create_run_folder
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.storm import Assignment, storm

RATES = (500, 1_000)
SECONDS = 8
RATIO_LIMIT, CPU_RATIO_LIMIT = 3.0, 4.0
_NEIGHBOUR_S = 120
_CLAIMS = """schema = 1
name = "open"
[sale]
units = {users}
first_voucher = {voucher}
[load]
model = "rate"
stages = ["{seconds}s:{rate}"]
connections = 64
"""
_HEALTH = """schema = 1
name = "health"
[browse]
shops = 1
[load]
model = "rate"
stages = ["{seconds}s:{rate}"]
connections = 64
"""


class HealthTarget(Target):
    """A target whose every read is `GET /healthz`."""

    def reads(self, shops: Iterable[int]) -> list[bytes]:
        """The bytes of each read, whatever shop it asks for."""
        head = f"GET /healthz HTTP/1.1\r\nhost: {self.authority}\r\n\r\n".encode("ascii")
        return [head for _ in shops]


@dataclass(frozen=True)
class Answered:
    """One run: its summary, and what each kind of server took for it."""

    summary: dict[str, Any]
    efforts: dict[str, Effort]

    def ms(self, statistic: str) -> float:
        """A statistic of the response time."""
        return float(self.summary["latency_ms"]["response"][statistic])

    @property
    def sold(self) -> int:
        """Claims acknowledged with an order id."""
        return int(self.summary["load"]["outcomes"].get("sold", 0))

    def effort(self, *kinds: str) -> Effort:
        """What servers of these kinds took a request; all of them where none is named."""
        taken = sum((self.efforts[kind] for kind in kinds or self.efforts), Effort())
        return taken.per(max(1, int(self.summary["load"]["sent"])))


@dataclass(frozen=True)
class Phase:
    """Claims at one rate, and `/healthz` at the same."""

    rate: int
    is_beside: bool  # somebody else keeps a core busy
    claims: list[Answered] = field(default_factory=list)
    health: list[Answered] = field(default_factory=list)


def measure(runs: int) -> Section:
    """`runs` times all phases in turn; in each some seconds of claims, all sold, and of
    `/healthz`."""
    section = Section("open arrivals: claims over 64 connections, through nginx")
    phases = [Phase(rate, is_beside) for is_beside in (False, True) for rate in RATES]
    users, vouchers = max(RATES) * SECONDS, runs * len(phases)
    with system() as stack:
        stack.seed(users=users, vouchers=vouchers, units=vouchers * users)
        for turn in range(runs):
            for place, phase in enumerate(phases):
                with neighbour() if phase.is_beside else nullcontext():
                    voucher = turn * len(phases) + place + 1
                    phase.claims.append(claims_at(stack, voucher, phase.rate))
                    phase.health.append(health_at(stack, phase.rate))
    for phase in phases:
        _report(section, phase)
    return section


@contextmanager
def neighbour() -> Iterator[None]:
    """Somebody else's process that wants one core all the time, in a session of its own."""
    spin = (
        f"import time\nend = time.monotonic() + {_NEIGHBOUR_S}\nwhile time.monotonic() < end: pass"
    )
    process = subprocess.Popen([sys.executable, "-c", spin], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _report(section: Section, phase: Phase) -> None:
    where = f"{phase.rate:,}/s{', a busy neighbour' if phase.is_beside else ''}"
    for what, answered in (("claim", phase.claims), ("/healthz", phase.health)):
        for statistic in ("p50", "mean", "p99"):
            values = [run.ms(statistic) for run in answered]
            section.add(f"{where}: {what}, response {statistic}, ms", spread(values, 2))
    _ratio(section, f"{where}: p50", phase, lambda run: run.ms("p50"), RATIO_LIMIT)
    _ratio(section, f"{where}: CPU of all servers", phase, _cpu_us, CPU_RATIO_LIMIT)
    for what, answered in (("claim", phase.claims), ("/healthz", phase.health)):
        section.add(
            f"{where}: {what}, CPU of all servers, µs", spread(list(map(_cpu_us, answered)))
        )
        woken = [run.effort().wake_ups for run in answered]
        section.add(f"{where}: {what}, wake-ups of all servers", spread(woken, 1))
        waited = [run.effort().waited_s * 1e6 for run in answered]
        section.add(f"{where}: {what}, waits for a core, µs", spread(waited))
    parts = {
        kind: median([run.effort(kind).cpu_s * 1e6 for run in phase.claims])
        for kind in phase.claims[0].efforts
    }
    told = ", ".join(f"{kind} {us:,.0f}" for kind, us in parts.items())
    section.notes.append(f"{where}: CPU of a claim by server, µs: {told}")
    planned = phase.rate * SECONDS
    sold = min(run.sold for run in phase.claims)
    section.add(f"{where}: sold, the fewest of a run", f"{sold:,}", f"{planned:,}", sold == planned)
    verdicts = (run.summary["generator"]["verdict"] for run in (*phase.claims, *phase.health))
    section.notes.append(f"{where}: generator {', '.join(verdicts)}")


def _ratio(
    section: Section, what: str, phase: Phase, figure: Callable[[Answered], float], limit: float
) -> None:
    claim, health = (median(list(map(figure, runs))) for runs in (phase.claims, phase.health))
    ratio = claim / health
    section.add(f"{what}, claim to /healthz", f"{ratio:.2f} ×", f"≤ {limit:g} ×", ratio <= limit)


def _cpu_us(run: Answered) -> float:
    return run.effort().cpu_s * 1e6


def claims_at(stack: System, voucher: int, rate: int) -> Answered:
    users = rate * SECONDS
    text = _CLAIMS.format(users=users, voucher=voucher, seconds=SECONDS, rate=rate)
    scenario = stack.folder / "open.toml"
    scenario.write_text(text)
    out = Path(tempfile.mkdtemp(prefix="open-", dir=stack.folder)) / "run"
    meter = EffortMeter(stack.pids)
    stack.flashsale("storm", str(scenario), "--quiet", "--out", str(out), check=False)
    return Answered(json.loads((out / "summary.json").read_text()), meter.used())


def health_at(stack: System, rate: int) -> Answered:
    scenario = parse_scenario(_HEALTH.format(seconds=SECONDS, rate=rate), "health")
    out = Path(tempfile.mkdtemp(prefix="health-", dir=stack.folder)) / "run"
    folder = create_run_folder("health", out, datetime.now(UTC))
    target = HealthTarget.at(stack.state.base_url)
    meter = EffortMeter(stack.pids)
    finished = storm(Assignment(scenario, target, folder), {}, lambda progress: None)
    return Answered(finished.summary.model_dump(mode="json", by_alias=True), meter.used())
