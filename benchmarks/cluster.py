"""A ledger on three masters of a Redis Cluster against one on one server: CPU a claim, in turn.

One server is measured twice: as a stack has it, asked by a Unix socket and without a replica; and
as `--ha` has it, asked by TCP and with one. Only the second does what each master does. Then one
master of a cluster, two and three, each with a replica: what a core of masters carries.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.cpu import CpuMeter
from benchmarks.system import Run, Storm, System, system
from benchmarks.table import Section, median, spread
from flashsale.stack.cluster import MASTERS, LedgerCluster
from flashsale.stack.service import Account

USERS, VOUCHERS = 60_000, 110
CONNECTIONS = 1_000
LEDGER_RATIO_LIMIT = 1.25
KINDS = {
    "one server": ((), ("ledger",)),
    "one server, TCP, a replica": (("--ha",), ("ledger",)),
    "three masters, together": (("--cluster",), ("ledger-1", "ledger-2", "ledger-3")),
}
"""How each stack is started, and the processes of its ledger that are asked."""
_PLAIN, _ALIKE, _MASTERS = KINDS


def measure(runs: int) -> Section:
    """`runs` times 60,000 claims on 110 vouchers and as many on one, all sold, on each ledger."""
    section = Section("a sharded ledger: three masters, three replicas, against one server")
    with ExitStack() as stacks:
        systems = {kind: stacks.enter_context(system(*words)) for kind, (words, _) in KINDS.items()}
        for each in systems.values():
            count = runs * (VOUCHERS + 1)
            each.seed(users=USERS, vouchers=count, units=count * USERS)
        for vouchers in (VOUCHERS, 1):
            _compare(section, systems, vouchers, runs)
    for masters in range(1, MASTERS + 1):
        _on_masters(section, masters, runs)
    section.notes += [
        "the ledger of the cluster: its masters, which lead; replicas apart",
        "each master is asked by TCP and feeds a replica, as the second server does: beside that "
        "one three masters show what lanes cost, beside the first what all of it costs",
    ]
    return section


def _compare(section: Section, systems: dict[str, System], vouchers: int, runs: int) -> None:
    told = f"{vouchers} vouchers" if vouchers > 1 else "one voucher"
    ledgers: dict[str, list[float]] = {kind: [] for kind in KINDS}
    others: dict[str, list[float]] = {kind: [] for kind in KINDS}
    sellers: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(runs):
        first = 1 + number * VOUCHERS if vouchers > 1 else 1 + runs * VOUCHERS + number
        storm = Storm(f"{vouchers}-{number}", USERS, vouchers * USERS, vouchers, first, CONNECTIONS)
        for kind in list(KINDS) if number % 2 == 0 else reversed(KINDS):
            run, used_us = _storm_on(systems[kind], storm, KINDS[kind][1])
            ledgers[kind].append(used_us)
            others[kind].append(run.cpu_us("redis-ledger") - used_us)
            sellers[kind].append(run.cpu_us("replica"))
    for kind, values in ledgers.items():
        section.add(f"{told}: ledger CPU a claim, {kind}, µs", spread(values, 1))
    alike, plain = (
        [ours / theirs for ours, theirs in zip(ledgers[_MASTERS], ledgers[kind], strict=True)]
        for kind in (_ALIKE, _PLAIN)
    )
    section.add_ratio(f"{told}: … of {_ALIKE}", median(alike), LEDGER_RATIO_LIMIT)
    section.add(f"{told}: … of it, each storm", ", ".join(f"{ratio:.2f} ×" for ratio in alike))
    section.add(f"{told}: … of {_PLAIN}", f"{median(plain):.2f} ×")
    section.add(f"{told}: … their replicas, together, µs", spread(others[_MASTERS], 1))
    for kind, values in sellers.items():
        section.add(f"{told}: replica CPU a claim, {kind}, µs", spread(values, 1))


def _storm_on(system: System, storm: Storm, asked: Sequence[str]) -> tuple[Run, float]:
    """A storm, and the CPU a claim, µs, of the ledger's processes that are asked."""
    meter = CpuMeter({child.name: [child.pid] for child in system.state.children})
    run = system.storm(storm)
    used = meter.used_s()
    return run, sum(used[name] for name in asked) / run.sent * 1e6


def _on_masters(section: Section, count: int, runs: int) -> None:
    """`runs` storms on 110 vouchers, with the ledger on so many masters and each with a replica."""
    used: list[float] = []
    rates: list[float] = []
    with _cluster(count) as cluster, system("--ledger-url", cluster.url_for(Account.OWNER)) as sale:
        sale.seed(users=USERS, vouchers=runs * VOUCHERS, units=runs * VOUCHERS * USERS)
        pids = [node.process.pid for node in cluster.nodes[:count] if node.process]
        for number in range(runs):
            first = 1 + number * VOUCHERS
            meter = CpuMeter({"masters": pids})
            run = sale.storm(
                Storm(f"{number}", USERS, VOUCHERS * USERS, VOUCHERS, first, CONNECTIONS)
            )
            used.append(meter.used_s()["masters"] / run.sent * 1e6)
            rates.append(run.per_s)
    told = f"{count} master{'s' if count > 1 else ''}"
    section.add(f"{told}: CPU a claim of masters, together, µs", spread(used, 1))
    section.add("… so many claims/s a core of masters", spread([1e6 / each for each in used]))
    section.add("… claims/s here, where all parts share the cores", spread(rates))


@contextmanager
def _cluster(masters: int) -> Iterator[LedgerCluster]:
    """A cluster of its own, with a replica to each master."""
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name, ExitStack() as nodes:
        folder = Path(name)
        cluster = LedgerCluster(
            folder, lambda node: folder / f"{node}.log", masters=masters, replicas=masters
        )
        for node in cluster.nodes:
            nodes.callback(node.stop)
            node.launch()
        for node in cluster.nodes:
            node.settle()
        cluster.form()
        yield cluster
