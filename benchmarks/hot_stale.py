"""Logical expiry under a slow database: the latency of reads with a slow load, and without."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.table import Section, median, spread
from flashsale.files import resource

DELAY = "load_delay_ms = 500"
ADDED_LIMIT_MS = 250
"""Half of the delay: a single read that waited for a load would show at the tail."""


def measure(runs: int) -> Section:
    """`runs` times the scenario `hot-stale` as it is, and with a database that is not slow."""
    section = Section("hot-stale: 1,000 reads/s of 8 expired shops, loads slowed by 500 ms or not")
    slow, quick = [], []
    for _ in range(runs):
        quick.append(_rehearsed("load_delay_ms = 0"))
        slow.append(_rehearsed(DELAY))
    for percentile in ("p50", "p99"):
        slowed, beside = (
            [run["latency_ms"]["response"][percentile] for run in taken] for taken in (slow, quick)
        )
        section.add(f"{percentile} with slow loads, ms", spread(slowed, 2))
        section.add(f"{percentile} without, ms", spread(beside, 2))
        added = median(slowed) - median(beside)
        section.add(
            f"… {percentile} added by them, ms",
            f"{added:.2f}",
            f"< {ADDED_LIMIT_MS}",
            added < ADDED_LIMIT_MS,
        )
    stale = [run["load"]["outcomes"].get("stale", 0) for run in slow]
    section.add("stale answers with slow loads", spread(stale))
    section.add("reads that waited", str(sum(_waited(run) for run in (*slow, *quick))), "0")
    return section


def _waited(run: dict[str, Any]) -> int:
    outcomes = run["load"]["outcomes"]
    return int(outcomes.get("load", 0) + outcomes.get("wait", 0))


def _rehearsed(delay: str) -> dict[str, Any]:
    """The summary of one rehearsal with this delay."""
    text = (resource("scenarios") / "hot-stale.toml").read_text()
    if DELAY not in text:
        sys.exit(f"the scenario hot-stale has no line {DELAY!r} any more")
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name:
        scenario, out = Path(name, "hot-stale.toml"), Path(name, "run")
        scenario.write_text(text.replace(DELAY, delay))
        words = ["rehearse", str(scenario), "--quiet", "--out", str(out)]
        command = [sys.executable, "-m", "flashsale", *words, "--state-dir", f"{name}/state"]
        subprocess.run(command, capture_output=True, check=False)
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary
