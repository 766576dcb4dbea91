"""The whole system on this machine: nginx, replicas, both Redis, worker, MariaDB, generator."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.bare import bare_server
from benchmarks.cpu import CpuMeter
from benchmarks.null_target import null_target
from benchmarks.system import Run, Storm, System, system
from benchmarks.table import Section, median, spread
from flashsale.stack.nginx import Balancing, NginxServer

USERS = 300_000
CONNECTIONS = 2_000
REPLICAS = 3
SERVERS_RATIO_LIMIT = 3.0
ALONE_RATIO_LIMIT = 2.0
PLACED_RATIO_LIMIT = 1.1
_PARTS = ("nginx", "redis-ledger", "redis-cache", "worker", "mariadb")


class Yardsticks(NamedTuple):
    """CPU µs an answer, under the same storm in the same run: of the bare answer in the replicas'
    place, of one by itself, saturated, and of nginx that answers by itself."""

    placed: float
    alone: float
    nginx: float


def measure(runs: int) -> Section:
    """`runs` storms of 300,000 claims, all sold on one voucher; then rejections, 110 vouchers."""
    section = Section("whole system: 2,000 connections, 3 replicas, everything on this machine")
    with system() as stack:
        stack.seed(users=USERS, vouchers=runs + 1, units=(runs + 1) * USERS)
        sold = [stack.storm(_one_voucher(number)) for number in range(1, runs + 1)]
        yardsticks = _yardsticks(stack)
        _sell_out(stack, runs + 1)
        rejected = stack.storm(_one_voucher(runs + 1))
    with system() as stack:
        stack.seed(users=USERS, vouchers=110, units=USERS)
        many = stack.storm(Storm("many", USERS, USERS, vouchers=110))
    _report(section, sold, yardsticks)
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


def _yardsticks(stack: System) -> Yardsticks:
    """The bare answer behind an nginx like the replicas', and both parts saturated."""
    with ExitStack() as up:
        bare = [up.enter_context(bare_server()) for _ in range(REPLICAS)]
        folder = up.enter_context(tempfile.TemporaryDirectory(prefix="flashsale-bench-"))
        balancing = Balancing(replica_ports=[each.port for each in bare])
        nginx = up.enter_context(NginxServer(Path(folder), balancing))
        null = up.enter_context(null_target())
        pids = [each.pid for each in bare]
        return Yardsticks(
            placed=_storm_bare(stack, nginx.url, pids, CONNECTIONS),
            alone=_storm_bare(stack, bare[0].url, pids[:1], 700),
            nginx=_storm_bare(stack, null.url, [null.pid], 700),
        )


def _storm_bare(stack: System, url: str, pids: list[int], connections: int) -> float:
    meter = CpuMeter({"bare": pids})
    run = stack.storm(Storm("bare", USERS, USERS, connections=connections), base_url=url)
    return meter.used_s()["bare"] / run.sent * 1e6


def _report(section: Section, sold: list[Run], yardsticks: Yardsticks) -> None:
    section.add("claims acknowledged/s, all sold", spread([run.per_s for run in sold]))
    least = min(run.sold / run.sent for run in sold)
    section.add("sold, the smallest share of a run", f"{least:.2%}", "100 %", least == 1)
    servers = median([sum(map(run.cpu_us, ("replica", *_PARTS))) for run in sold])
    section.add("CPU of all servers per claim, µs", f"{servers:.1f}")
    both = yardsticks.alone + yardsticks.nginx
    section.add_ratio(
        f"… of bare answer and nginx `return 200`, saturated ({both:.1f} µs)",
        servers / both,
        SERVERS_RATIO_LIMIT,
    )
    replica = [run.cpu_us("replica") for run in sold]
    section.add("replica CPU per claim, session look-up included, µs", spread(replica, 1))
    section.add_ratio(
        f"… of the bare answer by itself, saturated ({yardsticks.alone:.1f} µs)",
        median(replica) / yardsticks.alone,
        ALONE_RATIO_LIMIT,
    )
    section.add_ratio(
        f"… of the bare answer in their place ({yardsticks.placed:.1f} µs)",
        median(replica) / yardsticks.placed,
        PLACED_RATIO_LIMIT,
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
