"""The storm as a load generator: CPU per request, beside wrk, hey and Locust on one target."""

import importlib.util
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.null_target import null_target
from benchmarks.table import Section, median, spread

REQUESTS = 200_000
CONNECTIONS = 2_000
LIMIT_US = 25
WRK_RATIO_LIMIT = 2.5
_SCENARIO = f"""schema = 1
name = "null"
[sale]
units = {REQUESTS}
[load]
model = "stampede"
users = {REQUESTS}
connections = {CONNECTIONS}
"""
_LOCUST = """
from locust import FastHttpUser, task
class Buyer(FastHttpUser):
    @task
    def buy(self):
        self.client.post("/voucher-order/seckill/1", headers={"authorization": "t"})
"""


def measure(runs: int) -> Section:
    """`runs` storms of 200,000 requests over 2,000 connections; each peer on the same target."""
    section = Section(f"generator: {CONNECTIONS:,} connections, nginx `return 200` as the target")
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name, null_target() as target:
        folder = Path(name)
        _write_inputs(folder)
        whole, firing = zip(*(_storm(folder, target.url, n) for n in range(runs)), strict=True)
        peers = {
            peer: [cost(target.url, folder) for _ in range(runs)]
            for peer, cost in _PEERS.items()
            if _is_here(peer)
        }
    ours = median(list(firing))
    section.add("storm, CPU µs a request", spread(list(firing), 1), f"≤ {LIMIT_US}", ours <= 25)
    section.add("… the whole process, from its start to its report", spread(list(whole), 1))
    for peer, costs in peers.items():
        section.add(f"peer: {peer}, CPU µs a request", spread(costs, 1))
    if "wrk" in peers:
        ratio = ours / median(peers["wrk"])
        section.add(
            "storm as a multiple of wrk",
            f"{ratio:.2f} ×",
            f"≤ {WRK_RATIO_LIMIT} ×",
            ratio <= WRK_RATIO_LIMIT,
        )
    missing = [peer for peer in _PEERS if peer not in peers]
    if missing:
        section.notes.append(f"not installed, so not beside it: {', '.join(missing)}")
    section.notes.append("the storm's figure includes its attempts on disk and its histograms")
    return section


def _write_inputs(folder: Path) -> None:
    (folder / "null.toml").write_text(_SCENARIO)
    users = "".join(f"{number},token{number}\n" for number in range(1, REQUESTS + 1))
    (folder / "tokens.csv").write_text(f"user_id,token\n{users}")
    (folder / "locustfile.py").write_text(_LOCUST)


def _storm(folder: Path, url: str, number: int) -> tuple[float, float]:
    """CPU µs a request: of the whole process, and of barrier to histograms, its own account."""
    out = folder / f"run-{number}"
    words = ["storm", str(folder / "null.toml"), "--quiet", "--out", str(out)]
    where = ["--base-url", url, "--tokens", str(folder / "tokens.csv")]
    used_s = _cpu_s([sys.executable, "-m", "flashsale", *words, *where], folder)[0]
    summary = json.loads((out / "summary.json").read_text())
    sent = summary["load"]["sent"]
    if sent != REQUESTS:
        sys.exit(f"the storm sent {sent:,} of {REQUESTS:,} requests")
    return used_s / sent * 1e6, summary["generator"]["cpu_us_per_request"]


def _wrk(url: str, folder: Path) -> float:
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d6s", f"{url}/voucher-order/seckill/1"]
    used_s, said = _cpu_s(words, folder)
    return used_s / _number(r"(\d+) requests in", said) * 1e6


def _hey(url: str, folder: Path) -> float:
    count = ["-n", str(REQUESTS), "-c", str(CONNECTIONS), "-m", "POST"]
    used_s, _ = _cpu_s(["hey", *count, f"{url}/voucher-order/seckill/1"], folder)
    return used_s / REQUESTS * 1e6


def _locust(url: str, folder: Path) -> float:
    words = ["--headless", "--only-summary", "-u", "200", "-r", "200", "-t", "10s", "--host", url]
    program = shutil.which("locust")
    command = [program] if program else [sys.executable, "-m", "locust"]
    used_s, said = _cpu_s([*command, *words], folder)
    return used_s / _number(r"Aggregated\s+(\d+)", said) * 1e6


_PEERS: dict[str, Callable[[str, Path], float]] = {
    "wrk": _wrk,
    "hey": _hey,
    "locust": _locust,
}


def _is_here(peer: str) -> bool:
    return shutil.which(peer) is not None or importlib.util.find_spec(peer) is not None


def _cpu_s(words: list[str], folder: Path) -> tuple[float, str]:
    """CPU seconds of a command that ended, and what it said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return used_s, done.stdout + done.stderr


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        sys.exit(f"a peer said nothing like {pattern!r}:\n{text[-2000:]}")
    return int(found[1])
