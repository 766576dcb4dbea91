"""A cluster that somebody else runs: it is examined node by node, and a stack sells on it."""

import re
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import redis
from rig.clustered import Clustered
from rig.command_line import run_flashsale
from rig.observers import fetched

from flashsale.doctor.findings import AWAY, compare_books, examine, failures, insist
from flashsale.errors import Indeterminate, Unavailable, UnreachableError
from flashsale.keys import CLUSTER
from flashsale.observe.prometheus import Exporter, ledger_exports
from flashsale.stack.cluster import LedgerCluster
from flashsale.stack.service import Account
from flashsale.stack.state import read_state, stop_stack
from flashsale.storage.mysql import engine
from flashsale.storage.roles import Ledgers, call
from flashsale.storage.tables import create_all
from flashsale.store_urls import of_node
from flashsale.verify.stores import connect


@pytest.mark.slow
def test_on_a_cluster_of_somebody_else_a_stack_sells(
    cluster: Clustered, cache_url: str, mysql_url: str, tmp_path: Path
) -> None:
    stores = {"LEDGER": cluster.url, "CACHE": cache_url, "MYSQL": mysql_url}
    told = {f"FLASHSALE_{name}_URL": url for name, url in stores.items()}
    small = {"FLASHSALE_STACK_PORT": "0", "FLASHSALE_STACK_REPLICAS": "1"}
    goods = ("--users", "4", "--shops", "1", "--vouchers", "2", "--units", "8")
    try:
        for words in (("serve", "--detach"), ("seed", *goods), ("warm",)):
            done = run_flashsale(tmp_path, *words, **told, **small)
            assert done.returncode == 0, done.stdout + done.stderr
        state = read_state(tmp_path / ".flashsale")
        assert state is not None
        assert [child.kind for child in state.children] == ["replica", "worker", "nginx"]
        user = (tmp_path / ".flashsale" / "tokens.csv").read_text().splitlines()[1]
        token = user.split(",")[1]
        for voucher in (1, 2):
            url = f"{state.base_url}/voucher-order/seckill/{voucher}"
            answer = httpx.post(url, headers={"authorization": token}, timeout=20)
            assert answer.headers["x-outcome"] == "sold"
    finally:
        stop_stack(tmp_path / ".flashsale", 60)


@pytest.mark.slow
def test_each_node_of_somebody_elses_cluster_is_observed(
    cluster: Clustered, tmp_path: Path
) -> None:
    fetched()
    exports = ledger_exports(cluster.url, {})
    places = sorted((place.host, place.port) for place in cluster.places)
    assert [export.instance for export in exports] == [f"ledger-{h}:{p}" for h, p in places]
    with Exporter(exports[1], tmp_path, log=tmp_path / "log") as exporter:
        told = httpx.get(f"{exporter.url}/metrics", timeout=20).text.splitlines()
    wanted = ("redis_up 1", "redis_cluster_slots_ok 16384", "redis_cluster_state 1")
    assert set(wanted) <= set(told)
    assert 'role="master"' in next(it for it in told if it.startswith("redis_instance_info{"))


def test_a_lane_that_nobody_can_ask_is_told_though_all_nodes_answer(
    cluster: Clustered, mysql_url: str
) -> None:
    """A slot that was left half moved; then one that no master has."""
    pool = engine(mysql_url)
    create_all(pool)
    pool.dispose()
    lane, client = CLUSTER.lanes[2], Ledgers.at(cluster.url).clients[2]
    names = [lane.epoch, lane.permit, lane.closed]
    call(client.mset, dict.fromkeys(names, "x"))
    to = (cluster.node_of(lane) + 1) % 3
    source = cluster.begin_move(lane, to)
    assert cluster.move_keys(lane, source, to) == 3
    (finding,) = failures(compare_books(cluster.url, mysql_url))
    assert finding.name == AWAY
    place = cluster.places[to]
    assert re.search(
        rf"^{lane.tag}: Redis: slot (\d+) is on its way to {place.host}:{place.port}; move the "
        r"rest of its keys, then CLUSTER SETSLOT \1 NODE$",
        finding.found,
    )
    with (
        pytest.raises(UnreachableError, match=r"slot \d+ is on its way to"),
        connect(cluster.url, mysql_url) as stores,
    ):
        stores.lanes[2].get(lane.epoch)
    cluster.end_move(lane, to)
    assert AWAY not in [found.name for found in compare_books(cluster.url, mysql_url)]
    with cluster.without_slot(lane):
        (finding,) = failures(compare_books(cluster.url, mysql_url))
        assert finding.name == AWAY
        assert finding.found.startswith(f"{lane.tag}: ")
    client.close()


def test_a_node_that_was_reset_is_a_node_of_no_cluster(mysql_url: str, tmp_path: Path) -> None:
    """It knows no master, not even itself: one line, for what judges and for what sells."""
    alone = LedgerCluster(
        tmp_path, lambda name: tmp_path / f"{name}.log", masters=1, replicas=0, memory_mb=64
    )
    (node,) = alone.nodes
    with node:
        url = alone.url_for(Account.OWNER)
        found = Ledgers.at(url)
        with closing(found), pytest.raises((Indeterminate, Unavailable), match="of no cluster: C"):
            call(found.clients[0].get, CLUSTER.lanes[0].epoch)
        with (
            pytest.raises(UnreachableError, match="a node of no cluster: CLUSTER MEET it"),
            connect(url, mysql_url),
        ):
            raise AssertionError("nobody is there")


def test_of_several_nodes_in_a_url_some_may_be_away(cluster: Clustered, mysql_url: str) -> None:
    """Whoever starts, looks or judges while the first is gone finds the cluster by another."""
    pool = engine(mysql_url)
    create_all(pool)
    pool.dispose()
    account, _, place = cluster.url.rpartition("@")
    free_port = 1  # nobody listens on it
    url = f"{account}@127.0.0.1:{free_port},{place}"
    found = Ledgers.at(url)
    with closing(found):
        assert [call(client.ping) for client in found.clients] == [True] * 6
    insist(examine(url, None, None))
    with connect(url, mysql_url) as stores:
        assert all(lane.ping() for lane in stores.lanes)
    gone = f"{account}@127.0.0.1:{free_port},127.0.0.1:{free_port}"
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{free_port}"):
        examine(gone, None, None)


def test_a_cluster_passes_its_examination_and_a_node_that_forgets_does_not(
    cluster: Clustered,
) -> None:
    insist(examine(cluster.url, None, None))
    place = cluster.places[1]
    with redis.Redis.from_url(of_node(cluster.url, (place.host, place.port))) as node:
        node.config_set("appendfsync", "no")
        try:
            with pytest.raises(UnreachableError, match=f":{place.port}: appendfsync is no"):
                insist(examine(cluster.url, None, None))
        finally:
            node.config_set("appendfsync", "always")
