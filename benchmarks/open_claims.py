"""1,000 claims a second, each at its own instant, beside `/healthz` through the same nginx."""

import json
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.system import System, system
from benchmarks.table import Section, median, spread
from flashsale.run.folder import create_run_folder
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target
from flashsale.storm.storm import Assignment, storm

RATE = 1_000
SECONDS = 10
RATIO_LIMIT = 3.0
_SEED_MEAN_MS, _SEED_P99_MS = 0.82, 4.0
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


def measure(runs: int) -> Section:
    """`runs` times 10 s of claims, all sold, and 10 s of `/healthz`, in turn."""
    section = Section(f"open arrivals: {RATE:,} claims/s over 64 connections, through nginx")
    users = RATE * SECONDS
    claims, health = [], []
    with system() as stack:
        stack.seed(users=users, vouchers=runs, units=runs * users)
        for number in range(1, runs + 1):
            claims.append(_claims(stack, number, users))
            health.append(_health(stack))
    for what, taken in (("claim", claims), ("/healthz", health)):
        for statistic in ("p50", "mean", "p99"):
            values = [run["latency_ms"]["response"][statistic] for run in taken]
            beside = {"mean": _SEED_MEAN_MS, "p99": _SEED_P99_MS}.get(statistic)
            peer = f"the seed: {beside:g}" if what == "claim" and beside else ""
            section.add(f"{what}: response {statistic}, ms", spread(values, 2), peer)
    ratio = median(_p50(claims)) / median(_p50(health))
    section.add(
        "claim p50 as a multiple of /healthz",
        f"{ratio:.2f} ×",
        f"≤ {RATIO_LIMIT:g} ×",
        ratio <= RATIO_LIMIT,
    )
    sold = min(run["load"]["outcomes"].get("sold", 0) for run in claims)
    section.add("sold, the fewest of a run", f"{sold:,}", f"{users:,}", sold == users)
    section.notes.append(f"generator: {', '.join(_verdicts((*claims, *health)))}")
    return section


def _p50(runs: list[dict[str, Any]]) -> list[float]:
    return [run["latency_ms"]["response"]["p50"] for run in runs]


def _verdicts(runs: Iterable[dict[str, Any]]) -> list[str]:
    return [run["generator"]["verdict"] for run in runs]


def _claims(stack: System, voucher: int, users: int) -> dict[str, Any]:
    text = _CLAIMS.format(users=users, voucher=voucher, seconds=SECONDS, rate=RATE)
    scenario = stack.folder / "open.toml"
    scenario.write_text(text)
    out = Path(tempfile.mkdtemp(prefix="open-", dir=stack.folder)) / "run"
    stack.flashsale("storm", str(scenario), "--quiet", "--out", str(out), check=False)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def _health(stack: System) -> dict[str, Any]:
    scenario = parse_scenario(_HEALTH.format(seconds=SECONDS, rate=RATE), "health")
    out = Path(tempfile.mkdtemp(prefix="health-", dir=stack.folder)) / "run"
    folder = create_run_folder("health", out, datetime.now(UTC))
    target = HealthTarget.at(stack.state.base_url)
    finished = storm(Assignment(scenario, target, folder), {}, lambda progress: None)
    return finished.summary.model_dump(mode="json", by_alias=True)
