"""What metrics cost: the statements that a claim runs for them, and a scrape every five seconds."""

import timeit
import urllib.request
from collections.abc import Callable
from time import perf_counter, process_time

from benchmarks.cpu import cpu_s
from benchmarks.system import Storm, System, system
from benchmarks.table import Section, median, spread
from flashsale.model import Outcome
from flashsale.seckill.claims import Claims
from flashsale.server.app import App, Router
from flashsale.settings import ClaimSettings, ReplicaSettings, SessionSettings
from flashsale.telemetry import SIZES, Buckets

CLAIM_LIMIT_US = 3.0
SCRAPE_LIMIT = 0.01
_SCRAPE_EVERY_S = 5
_SCRAPES = 200
_CLAIMS = 200_000
_BATCH = 20  # claims that leave together in a storm, as `benchmarks whole` finds them
_ROUTE = "POST /voucher-order/seckill/{voucherId}"


def measure(runs: int) -> Section:
    """Both costs, beside their limits."""
    section = Section(f"Metrics: what counting and a scrape cost, {runs} runs")
    alone, together = _per_claim(runs)
    section.add(
        "statements for metrics a claim, each claim its own call, µs",
        spread(alone, 2),
        f"< {CLAIM_LIMIT_US:g}",
        median(alone) < CLAIM_LIMIT_US,
    )
    section.add(
        f"… {_BATCH} claims a call, µs",
        spread(together, 2),
        f"< {CLAIM_LIMIT_US:g}",
        median(together) < CLAIM_LIMIT_US,
    )
    with system("--replicas", "1") as running:
        running.seed(users=2_000, vouchers=110, units=1_000)
        running.storm(Storm("metrics", users=2_000, units=1_000, vouchers=110))
        for kind in ("replica", "worker"):
            _scrapes(section, running, kind, runs)
    section.notes += [
        "the statements of App, Claims, Gate and Channel, by process CPU, the loop's taken off",
        f"a scrape: process CPU of {_SCRAPES} GETs of /metrics, HTTP included, after a storm",
    ]
    return section


def _per_claim(runs: int) -> tuple[list[float], list[float]]:
    """µs a claim where every call carries one claim, and where it carries many."""
    claim = [_us(_claim_statements(), _bare()) for _ in range(runs)]
    call = [_us(_call_statements(), _bare()) for _ in range(runs)]
    alone = [mine + theirs for mine, theirs in zip(claim, call, strict=True)]
    shared = [mine + theirs / _BATCH for mine, theirs in zip(claim, call, strict=True)]
    return alone, shared


def _us(counting: Callable[[], None], bare: Callable[[], None]) -> float:
    with_, without = (
        timeit.timeit(each, timer=process_time, number=_CLAIMS) for each in (counting, bare)
    )
    return (with_ - without) / _CLAIMS * 1e6


def _bare() -> Callable[[], None]:
    def nothing() -> None:
        pass

    return nothing


def _claim_statements() -> Callable[[], None]:
    """What one claim runs in App and Claims; `in_flight` is the drain's, metrics or not."""
    app = App(Router(), ReplicaSettings())
    claims = Claims("redis://127.0.0.1:1/0", ClaimSettings(), SessionSettings())
    sold = Outcome.SOLD

    def count() -> None:
        began_s = perf_counter()
        app.answers[_ROUTE, 200] += 1
        app.durations_s[_ROUTE].add(perf_counter() - began_s)
        claims.outcomes[sold] += 1

    return count


def _call_statements() -> Callable[[], None]:
    """What one call runs in Gate and Channel."""
    sizes, durations_s = Buckets(SIZES), Buckets(SIZES)
    in_use = [0]

    def count() -> None:
        sizes.add(_BATCH)
        began_s = perf_counter()
        in_use[0] += 1
        in_use[0] -= 1
        durations_s.add(perf_counter() - began_s)

    return count


def _scrapes(section: Section, running: System, kind: str, runs: int) -> None:
    child = next(child for child in running.state.children if child.kind == kind)
    size = _scrape(child.url)
    costs_ms = []
    for _ in range(runs):
        before = cpu_s(child.pid)
        for _ in range(_SCRAPES):
            _scrape(child.url)
        costs_ms.append((cpu_s(child.pid) - before) / _SCRAPES * 1e3)
    section.add(f"CPU of a scrape of a {kind} ({size / 1024:.0f} KiB), ms", spread(costs_ms, 2))
    share = median(costs_ms) / 1e3 / _SCRAPE_EVERY_S
    holds = share < SCRAPE_LIMIT
    section.add(f"… every {_SCRAPE_EVERY_S} s, of a core", f"{share:.3%}", "< 1 %", holds)


def _scrape(url: str | None) -> int:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 - our own
        return len(answer.read())
