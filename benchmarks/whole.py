"""The whole system on this machine: nginx, replicas, both Redis, worker, MariaDB, generator."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bare import BareServer, bare_server
from benchmarks.cpu import CpuMeter
from benchmarks.system import Run, Storm, System, system
from benchmarks.table import Section, median, spread
from flashsale.stack.nginx import Balancing, NginxServer

USERS = 300_000
CONNECTIONS = 2_000
REPLICAS = 3
CLAIMS_PER_S_LIMIT = 10_000
REPLICA_CPU_US_LIMIT = 70
BARE_RATIO_LIMIT = 2.5
_PARTS = ("nginx", "redis-ledger", "redis-cache", "worker", "mariadb")


def measure(runs: int) -> Section:
    """`runs` storms of 300,000 claims, all sold on one voucher; then rejections, 110 vouchers."""
    section = Section("whole system: 2,000 connections, 3 replicas, everything on this machine")
    with system() as stack:
        stack.seed(users=USERS, vouchers=runs + 1, units=(runs + 1) * USERS)
        sold = [stack.storm(_one_voucher(number)) for number in range(1, runs + 1)]
        bare_us = _bare_cpu_us(stack)
        _sell_out(stack, runs + 1)
        rejected = stack.storm(_one_voucher(runs + 1))
    with system() as stack:
        stack.seed(users=USERS, vouchers=110, units=USERS)
        many = stack.storm(Storm("many", USERS, USERS, vouchers=110))
    _report(section, sold, bare_us)
    section.add("rejections only, answers/s", f"{rejected.per_s:,.0f}")
    section.add("110 vouchers, all sold, claims/s", f"{many.per_s:,.0f}")
    section.notes += [_outcomes(run) for run in (*sold, rejected, many)]
    return section


def _one_voucher(number: int) -> Storm:
    return Storm(f"one-{number}", USERS, USERS, first_voucher=number)


def _sell_out(stack: System, voucher_id: int) -> None:
    """A sale without stock, so that a storm on it is nothing but rejections."""
    from flashsale import keys
    from flashsale.storage.roles import sync_client

    sync_client(stack.state.ledger_url).set(keys.seckill_stock(voucher_id), 0)


def _bare_cpu_us(stack: System) -> tuple[float, float]:
    """CPU of the bare answer under the same storm: in the place of the replicas, behind an nginx
    like theirs, and by itself, saturated by 700 connections."""
    with ExitStack() as up:
        bare = [up.enter_context(bare_server()) for _ in range(REPLICAS)]
        folder = up.enter_context(tempfile.TemporaryDirectory(prefix="flashsale-bench-"))
        balancing = Balancing(replica_ports=[each.port for each in bare])
        nginx = up.enter_context(NginxServer(Path(folder), balancing))
        placed = _storm_bare(stack, nginx.url, bare, CONNECTIONS)
        alone = _storm_bare(stack, bare[0].url, bare[:1], 700)
    return placed, alone


def _storm_bare(stack: System, url: str, bare: list[BareServer], connections: int) -> float:
    meter = CpuMeter({"bare": [each.pid for each in bare]})
    run = stack.storm(Storm("bare", USERS, USERS, connections=connections), base_url=url)
    return meter.used_s()["bare"] / run.sent * 1e6


def _report(section: Section, sold: list[Run], bare_us: tuple[float, float]) -> None:
    rates = [run.per_s for run in sold]
    section.add(
        "claims acknowledged/s, all sold",
        spread(rates),
        f"≥ {CLAIMS_PER_S_LIMIT:,}",
        median(rates) >= CLAIMS_PER_S_LIMIT and all(run.sold == run.sent for run in sold),
    )
    replica = [run.cpu_us("replica") for run in sold]
    section.add(
        "replica CPU per claim, session look-up included, µs",
        spread(replica, 1),
        f"≤ {REPLICA_CPU_US_LIMIT}",
        median(replica) <= REPLICA_CPU_US_LIMIT,
    )
    placed, alone = bare_us
    ratio = median(replica) / placed
    section.add(
        f"… as a multiple of the bare answer in their place ({placed:.1f} µs)",
        f"{ratio:.2f} ×",
        f"≤ {BARE_RATIO_LIMIT} ×",
        ratio <= BARE_RATIO_LIMIT,
    )
    section.add(
        f"… of the bare answer by itself, saturated ({alone:.1f} µs)",
        f"{median(replica) / alone:.2f} ×",
    )
    for part in _PARTS:
        section.add(f"{part} CPU per claim, µs", spread([run.cpu_us(part) for run in sold], 1))
    section.add("generator CPU per claim, µs", spread([run.generator_cpu_us for run in sold], 1))


def _outcomes(run: Run) -> str:
    latency = run.summary["latency_ms"]["response"]
    return (
        f"{run.summary['scenario']}: {run.summary['load']['outcomes']}, response p50 "
        f"{latency['p50']} ms, p99 {latency['p99']} ms, generator "
        f"{run.summary['generator']['verdict']}"
    )
