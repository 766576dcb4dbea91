"""deploy/kubernetes started: a sale, stormed by four shards, each process by its manifest."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig.cluster import Cluster, grace_s
from rig.containers import Containers
from rig.kubernetes import variables
from rig.until import until

from flashsale.run.summary import Summary
from flashsale.store_urls import mysql_answers

pytestmark = pytest.mark.timeout(300)  # a dozen processes, one after the other, beside others

PODS = {
    "replica-5d9f-a": "replica",
    "replica-5d9f-b": "replica",
    "worker-0": "worker",
    "nginx": "nginx",
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Stores, the Jobs schema and seed, and everything that lasts."""
    with Containers(tmp_path_factory.mktemp("kubernetes")) as stores:
        stores.start_mysql()
        for name in ("redis-ledger", "redis-cache"):
            stores.start_redis(name)
            stores.await_healthy(name)
        cluster = Cluster(stores)
        password, port = stores.secret("mysql_password"), stores.port_of["mysql", 3306]
        owner = f"mysql://flashsale:{password}@127.0.0.1:{port}/flashsale"
        until(lambda: mysql_answers(owner, 3), 60)
        assert "every table is there" in cluster.run("schema")
        said = cluster.run("seed")
        assert "seed:" in said
        assert "1 sales loaded" in said
        for pod_name, workload in PODS.items():
            cluster.start(workload, pod_name)
        for pod_name, workload in PODS.items():
            cluster.await_started(workload, pod_name)
        yield cluster


@pytest.mark.slow
@pytest.mark.parametrize("which", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_every_probe_finds_whom_it_asks(up: Cluster, which: str) -> None:
    for pod_name, workload in PODS.items():
        assert up.is_fine(workload, pod_name, which), pod_name


@pytest.mark.slow
def test_a_worker_consumes_under_its_pods_name(up: Cluster) -> None:
    (container,) = up.pod("worker").containers
    assert variables(up.documents, container, "worker-7")["POD_NAME"] == "worker-7"
    process = up.stores.running["worker-0"]
    line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert line.split(b"\0")[-2] == b"worker-0"


@pytest.mark.slow
def test_four_shards_storm_the_sale_and_the_whole_is_verified(up: Cluster) -> None:
    whole, shards = up.storm()
    assert "waits for 4 shards" in whole
    assert all("waits for the others" in said for said in shards)
    run = up.folder / "toolkit/runs/latest"
    summary = Summary.read(run / "summary.json")
    assert summary.merged is not None
    assert [shard.number for shard in summary.merged.shards] == [1, 2, 3, 4]
    assert summary.load.planned == summary.load.sent == 2_000
    assert summary.load.outcomes["sold"] == 100
    said = up.run("verify")
    assert "pass    no_oversell" in said
    assert "pass    accepted_persisted" in said
    assert "fail" not in said


@pytest.mark.slow
def test_no_secret_stands_where_it_can_be_read(up: Cluster) -> None:
    secrets = [path.read_text().strip() for path in up.stores.secrets.glob("*_[pts]*")]
    assert len(secrets) == 9
    for pod_name in PODS:
        place = Path(f"/proc/{up.stores.running[pod_name].pid}")
        seen = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
        assert not [secret for secret in secrets if secret.encode() in seen], pod_name


@pytest.mark.slow
def test_what_is_told_to_stop_does_so_in_the_time_it_is_given(up: Cluster) -> None:
    """By the signal that its image says; the last test, since it takes all down."""
    for pod_name, workload in reversed(PODS.items()):
        process = up.stores.running.pop(pod_name)
        os.kill(process.pid, signal.SIGQUIT if workload == "nginx" else signal.SIGTERM)
        until(lambda process=process: process.exit_code is not None, grace_s(up.pod(workload).spec))  # type: ignore[misc]
        assert process.exit_code == 0, f"{pod_name}:\n{process.log_tail()}"
        process.kill()
