"""A ledger on three masters of a Redis Cluster against one on one server: CPU a claim, in turn."""

from benchmarks.cpu import CpuMeter
from benchmarks.system import Run, Storm, System, system
from benchmarks.table import Section, median, spread

USERS, VOUCHERS = 60_000, 110
CONNECTIONS = 1_000
LEDGER_RATIO_LIMIT = 1.25
_MASTERS = ("ledger-1", "ledger-2", "ledger-3")


def measure(runs: int) -> Section:
    """`runs` times 60,000 claims on 110 vouchers and as many on one, all sold, on either ledger."""
    section = Section("a sharded ledger: three masters, three replicas, against one server")
    with system() as single, system("--cluster") as cluster:
        for each in (single, cluster):
            count = runs * (VOUCHERS + 1)
            each.seed(users=USERS, vouchers=count, units=count * USERS)
        for vouchers in (VOUCHERS, 1):
            _compare(section, single, cluster, vouchers, runs)
    section.notes.append("the ledger of the cluster: its masters, which lead; replicas apart")
    return section


def _compare(section: Section, single: System, cluster: System, vouchers: int, runs: int) -> None:
    told = f"{vouchers} vouchers" if vouchers > 1 else "one voucher"
    whole, masters, replicas = [], [], []
    ours: dict[str, list[float]] = {"single": [], "cluster": []}
    for number in range(runs):
        first = 1 + number * VOUCHERS if vouchers > 1 else 1 + runs * VOUCHERS + number
        storm = Storm(f"{vouchers}-{number}", USERS, vouchers * USERS, vouchers, first, CONNECTIONS)
        one = single.storm(storm)
        whole.append(one.cpu_us("redis-ledger"))
        ours["single"].append(one.cpu_us("replica"))
        run, used = _storm_on(cluster, storm)
        masters.append(sum(used[name] for name in _MASTERS) / run.sent * 1e6)
        replicas.append(run.cpu_us("redis-ledger") - masters[-1])
        ours["cluster"].append(run.cpu_us("replica"))
    section.add(f"{told}: ledger CPU a claim, one server, µs", spread(whole, 1))
    section.add(f"{told}: … three masters, together, µs", spread(masters, 1))
    section.add_ratio(
        f"{told}: … of one server's", median(masters) / median(whole), LEDGER_RATIO_LIMIT
    )
    section.add(f"{told}: … their replicas, together, µs", spread(replicas, 1))
    for name, values in ours.items():
        section.add(f"{told}: replica CPU a claim, {name}, µs", spread(values, 1))


def _storm_on(cluster: System, storm: Storm) -> tuple[Run, dict[str, float]]:
    """A storm, and what each node of the ledger used in it."""
    meter = CpuMeter({child.name: [child.pid] for child in cluster.state.children})
    run = cluster.storm(storm)
    return run, meter.used_s()
