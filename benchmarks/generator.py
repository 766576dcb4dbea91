"""The storm as a load generator: CPU per request, beside wrk, hey and Locust on one target."""

import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.null_target import null_target
from benchmarks.rivals import HEY, K6, OHA, VEGETA, WRK, Missing, binary_of, built, locust_command
from benchmarks.table import Section, median, spread

WRK_RATIO_LIMIT = 1.5
_PATH = "/voucher-order/seckill/1"
_TOKEN = "token1"  # noqa: S105 - the null target asks for none
_WRK_SCRIPT = f'wrk.method = "POST"\nwrk.headers["authorization"] = "{_TOKEN}"\n'
_K6 = f"""
import http from "k6/http";
const request = {{ headers: {{ authorization: "{_TOKEN}" }} }};
export default function () {{ http.post(`${{__ENV.TARGET}}{_PATH}`, null, request); }}
"""
_LOCUST = f"""
import json, resource
from locust import FastHttpUser, HttpUser, constant, events

def cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

def buy(user):
    user.client.post("{_PATH}", headers={{"authorization": "{_TOKEN}"}})

class Plain(HttpUser):
    wait_time, tasks = constant(0), [buy]

class Fast(FastHttpUser):
    wait_time, tasks = constant(0), [buy]

start = {{}}

@events.init.add_listener
def listen(environment, **_):
    # From the last user's start on, so that neither imports nor spawning count against it.
    @environment.events.spawning_complete.add_listener
    def begin(**_):
        start["cpu_s"], start["requests"] = cpu_s(), environment.stats.total.num_requests
    @environment.events.test_stop.add_listener
    def end(**_):
        total = environment.stats.total
        print("FIRED " + json.dumps({{
            "cpu_s": cpu_s() - start["cpu_s"],
            "requests": total.num_requests - start["requests"],
            "failures": total.num_failures,
        }}), flush=True)
"""


@dataclass(frozen=True)
class Size:
    """How much is sent: requests where they are counted, seconds where time is what ends it."""

    requests: int = 200_000
    connections: int = 2_000
    seconds: int = 6
    locust_seconds: int = 20


FULL = Size()
Cost = Callable[[str, Path, Size], float]
"""CPU µs a request, given the target, a folder to work in, and the size. Raises Missing."""


def measure(runs: int, size: Size = FULL) -> Section:
    """`runs` rounds; in each the storm and every rival come on the same target in turn."""
    section = Section(
        f"generator: {size.connections:,} connections, nginx `return 200` as the target"
    )
    firing: list[float] = []
    whole: list[float] = []
    rivals: dict[str, list[float]] = {name: [] for name in _RIVALS}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name, null_target() as target:
        folder = Path(name)
        _write_inputs(folder, size)
        for number in range(runs):
            own, of_all = storm_cost(folder, target.url, f"run-{number}", size)
            firing.append(own)
            whole.append(of_all)
            for rival, cost in _RIVALS.items():
                try:
                    if rival not in missing:
                        rivals[rival].append(cost(target.url, folder, size))
                except Missing as error:
                    missing[rival] = str(error)
        _add_tls(section, runs, folder, size, missing)
    _add_storm(section, firing, whole)
    _add_rivals(section, median(firing), {name: costs for name, costs in rivals.items() if costs})
    section.notes += [f"not beside it: {rival}: {why}" for rival, why in missing.items()]
    section.notes += [
        "every tool sends the same POST; the storm's figure includes attempts on disk and "
        "histograms, and like Locust's is taken from its barrier on, the whole process beside it",
        f"Locust with {size.connections:,} users for {size.locust_seconds} s, one process",
    ]
    return section


def _add_storm(section: Section, firing: list[float], whole: list[float]) -> None:
    section.add("storm, CPU µs a request", spread(firing, 1))
    section.add("… the whole process, from its start to its report", spread(whole, 1))


def _add_tls(
    section: Section, runs: int, folder: Path, size: Size, missing: dict[str, str]
) -> None:
    """The storm and wrk in turn over TLS: neither checks the certificate, both keep connections."""
    ours: list[float] = []
    theirs: list[float] = []
    try:
        with null_target(tls=True) as target:
            for number in range(runs):
                own = storm_cost(folder, target.url, f"tls-{number}", size, more=("--insecure",))
                ours.append(own[0])
                if "wrk" not in missing:
                    theirs.append(_wrk(target.url, folder, size))
    except FileNotFoundError as error:
        section.notes.append(f"not over TLS: {error}")
        return
    section.add("over TLS: storm, CPU µs a request", spread(ours, 1))
    if theirs:
        section.add("over TLS: wrk, CPU µs a request", spread(theirs, 1))
        section.add("… the storm as a multiple of it", f"{median(ours) / median(theirs):.2f} ×")


def _add_rivals(section: Section, ours: float, rivals: dict[str, list[float]]) -> None:
    for rival, costs in rivals.items():
        section.add(f"{rival}, CPU µs a request", spread(costs, 1))
        if rival == "wrk":
            times = ours / median(costs)
            section.add_ratio("… the storm as a multiple of it", times, WRK_RATIO_LIMIT)
        else:
            section.add("… as a multiple of the storm", f"{median(costs) / ours:.1f} ×")


def write_stampede(folder: Path, size: Size) -> None:
    """The scenario null.toml, which is so many claims at once, and its users."""
    (folder / "null.toml").write_text(
        f'schema = 1\nname = "null"\n[sale]\nunits = {size.requests}\n[load]\n'
        f'model = "stampede"\nusers = {size.requests}\nconnections = {size.connections}\n'
    )
    users = "".join(f"{number},token{number}\n" for number in range(1, size.requests + 1))
    (folder / "tokens.csv").write_text(f"user_id,token\n{users}")


def _write_inputs(folder: Path, size: Size) -> None:
    write_stampede(folder, size)
    (folder / "buyers.py").write_text(_LOCUST)
    (folder / "buyers.js").write_text(_K6)
    (folder / "post.lua").write_text(_WRK_SCRIPT)


def storm_cost(
    folder: Path,
    url: str,
    run: str,
    size: Size,
    more: tuple[str, ...] = (),
    python: str = sys.executable,
) -> tuple[float, float]:
    """CPU µs a request: of barrier to histograms by its own account, and of the whole process; of
    the flashsale that `python` has."""
    out = folder / run
    words = ["storm", str(folder / "null.toml"), "--quiet", "--out", str(out), *more]
    where = ["--base-url", url, "--tokens", str(folder / "tokens.csv")]
    used_s, said = _cpu_s([python, "-P", "-m", "flashsale", *words, *where], folder)
    try:
        summary = json.loads((out / "summary.json").read_text())
    except OSError:
        sys.exit(f"the storm left no summary:\n{said[-2000:]}")
    sent = summary["load"]["sent"]
    if sent != size.requests:
        sys.exit(f"the storm sent {sent:,} of {size.requests:,} requests")
    return summary["generator"]["cpu_us_per_request"], used_s / sent * 1e6


def _wrk(url: str, folder: Path, size: Size) -> float:
    words = ["-t1", f"-c{size.connections}", f"-d{size.seconds}s", "-s", "post.lua"]
    wrk = binary_of(WRK)
    used_s, said = _cpu_s([str(wrk.path), *words, f"{url}{_PATH}"], folder, wrk.environment())
    return used_s / _number(r"(\d+) requests in", said) * 1e6


def _hey(url: str, folder: Path, size: Size) -> float:
    count = ["-n", str(size.requests), "-c", str(size.connections)]
    request = ["-m", "POST", "-H", f"authorization: {_TOKEN}", f"{url}{_PATH}"]
    hey = binary_of(HEY)
    used_s, said = _cpu_s([str(hey.path), *count, *request], folder, hey.environment())
    return used_s / _number(r"\[200\]\s+(\d+) responses", said) * 1e6


def _oha(url: str, folder: Path, size: Size) -> float:
    count = ["-n", str(size.requests), "-c", str(size.connections), "--no-tui"]
    request = ["-m", "POST", "-H", f"authorization: {_TOKEN}", f"{url}{_PATH}"]
    used_s, said = _cpu_s([built(OHA), *count, *request], folder)
    return used_s / _number(r"\[200\]\s+(\d+) responses", said) * 1e6


def _vegeta(url: str, folder: Path, size: Size) -> float:
    vegeta = built(VEGETA)
    (folder / "vegeta.txt").write_text(f"POST {url}{_PATH}\nauthorization: {_TOKEN}\n")
    load = ["-rate=0", f"-max-workers={size.connections}", f"-workers={size.connections}"]
    load += [f"-connections={size.connections}", f"-duration={size.seconds}s"]
    used_s, _ = _cpu_s(
        [vegeta, "attack", "-targets=vegeta.txt", "-output=vegeta.bin", *load], folder
    )
    _, said = _cpu_s([vegeta, "report", "-type=json", "vegeta.bin"], folder)
    return used_s / _number(r'"200":\s*(\d+)', said) * 1e6


def _k6(url: str, folder: Path, size: Size) -> float:
    load = ["-u", str(size.connections), "-i", str(size.requests), "-e", f"TARGET={url}"]
    used_s, said = _cpu_s([built(K6), "run", "--no-usage-report", *load, "buyers.js"], folder)
    return used_s / _number(r"http_reqs\.*:\s+(\d+)", said) * 1e6


def _locust(user: str) -> Cost:
    def cost(url: str, folder: Path, size: Size) -> float:
        load = ["-u", str(size.connections), "-r", str(size.connections)]
        ends = ["-t", f"{size.locust_seconds}s", "--stop-timeout", "5"]
        words = ["-f", "buyers.py", "--headless", "--only-summary", "--host", url, *load, *ends]
        _, said = _cpu_s([*locust_command(), *words, user], folder)
        found = re.search(r"FIRED (\{.*\})", said)
        if found is None:
            sys.exit(f"Locust did not say what it fired:\n{said[-2000:]}")
        fired = json.loads(found[1])
        if fired["requests"] < 1 or fired["failures"]:
            sys.exit(f"Locust fared ill: {fired}\n{said[-2000:]}")
        return float(fired["cpu_s"]) / int(fired["requests"]) * 1e6

    return cost


_RIVALS: dict[str, Cost] = {
    "wrk": _wrk,
    "hey": _hey,
    "oha": _oha,
    "vegeta": _vegeta,
    "k6": _k6,
    "Locust's HttpUser": _locust("Plain"),
    "Locust's FastHttpUser": _locust("Fast"),
}


def _cpu_s(
    words: list[str], folder: Path, environment: dict[str, str] | None = None
) -> tuple[float, str]:
    """CPU seconds of a command that ended, and what it said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return used_s, done.stdout + done.stderr


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        sys.exit(f"a rival said nothing like {pattern!r}:\n{text[-2000:]}")
    return int(found[1])
