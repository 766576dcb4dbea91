"""A cluster that somebody else runs: it is examined node by node, and a stack sells on it."""

from pathlib import Path

import httpx
import pytest
import redis
from rig.clustered import Clustered
from rig.command_line import run_flashsale
from rig.observers import fetched

from flashsale.doctor.findings import examine, insist
from flashsale.errors import UnreachableError
from flashsale.observe.prometheus import Exporter, ledger_exports
from flashsale.stack.state import read_state, stop_stack
from flashsale.store_urls import of_node


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
