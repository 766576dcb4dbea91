"""deploy/compose.yaml started in its own order: the whole sale, each process by its lines there."""

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pymysql
import pytest
from rig.compose import seconds
from rig.containers import Containers
from rig.observers import fetched
from rig.until import until

from flashsale.doctor.facts import ask_mysql
from flashsale.doctor.findings import Grade, judge_mysql

STORES = ("redis-ledger", "redis-cache", "mysql")
REPLICAS = ("replica1", "replica2", "replica3")
WORKERS = ("worker1", "worker2")
EXPORTERS = ("redis-ledger-exporter", "redis-cache-exporter", "mysqld-exporter", "nginx-exporter")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Everything that sells, started when what it depends on is what it is to be."""
    with Containers(tmp_path_factory.mktemp("compose")) as containers:
        order = _order(containers.services, (*STORES, "schema", *REPLICAS, *WORKERS, "nginx"))
        for name in order:
            _await_needs(containers, name)
            _start(containers, name)
        containers.await_healthy("nginx", *WORKERS)
        yield containers


def _order(services: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    """Each after what it depends on."""
    done: list[str] = []
    while waiting := [name for name in names if name not in done]:
        ready = [n for n in waiting if set(services[n].get("depends_on", ())) <= set(done)]
        assert ready, f"a circle: {waiting}"
        done += ready
    return done


def _await_needs(containers: Containers, name: str) -> None:
    for needed, how in containers.services[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy" and needed != "mysql":
            containers.await_healthy(needed)
        elif needed == "mysql":
            until(lambda: _mysql_answers(containers), 60)


def _mysql_answers(containers: Containers) -> bool:
    """What its health check asks; the image has a client program for it, this machine has none."""
    (words,) = containers.services["mysql"]["healthcheck"]["test"][1:]
    assert '--user=flashsale --execute="SELECT 1" flashsale' in words
    try:
        _mysql(containers, "flashsale", containers.secret("mysql_password")).close()
    except pymysql.OperationalError:
        return False
    return True


def _mysql(
    containers: Containers, user: str, password: str
) -> "pymysql.connections.Connection[Any]":
    port = containers.port_of["mysql", 3306]
    return pymysql.connect(host="127.0.0.1", port=port, user=user, password=password)


def _start(containers: Containers, name: str) -> None:
    if name == "schema":
        assert "every table is there" in containers.run(name)
    elif name == "mysql":
        containers.start_mysql()
    elif name == "nginx":
        containers.start_nginx(toolkit_at="127.0.0.1")
    elif name in STORES:
        containers.start_redis(name)
    else:
        containers.start_own(name)


def _ask(containers: Containers, method: str, path: str, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", containers.port_of["nginx", 8080], 10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, json.loads(body) if body else None


@pytest.mark.slow
def test_every_replica_and_worker_is_healthy_by_its_own_check(up: Containers) -> None:
    for name in (*REPLICAS, *WORKERS, "nginx"):
        assert up.is_healthy(name), name


@pytest.mark.slow
def test_no_password_stands_where_it_can_be_read(up: Containers) -> None:
    """Neither in an environment nor on a command line of anything that runs."""
    secrets = [path.read_text().strip() for path in up.secrets.glob("*_[pt]*")]
    assert len(secrets) == 8
    for name, process in up.running.items():
        seen = Path(f"/proc/{process.pid}/environ").read_bytes()
        seen += Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert not [secret for secret in secrets if secret.encode() in seen], name


@pytest.mark.slow
def test_mysql_keeps_its_promises_and_the_exporter_sees_no_rows(up: Containers) -> None:
    password, port = up.secret("mysql_password"), up.port_of["mysql", 3306]
    facts = ask_mysql(f"mysql://flashsale:{password}@127.0.0.1:{port}/flashsale")
    assert [found for found in judge_mysql(facts) if found.grade is not Grade.OK] == []
    line = next(li for li in up.secret("mysqld_exporter.cnf").splitlines() if "password" in li)
    with _mysql(up, "exporter", line.partition("=")[2]) as connection, connection.cursor() as ask:
        assert ask.execute("SHOW GLOBAL STATUS") > 100
        for rows in ("flashsale.tb_user", "performance_schema.threads", "mysql.user"):
            with pytest.raises(pymysql.OperationalError, match="denied"):
                ask.execute(f"SELECT * FROM {rows}")


@pytest.mark.slow
def test_a_sale_goes_through_from_the_toolkit(up: Containers) -> None:
    """Seed, warm, storm and verify, as `docker compose run --rm toolkit …`, then doctor."""
    assert "seed:" in up.run("toolkit", "seed", "--users", "300", "--units", "100")
    assert "1 sales loaded" in up.run("toolkit", "warm")
    scenario = up.folder / "work/small.toml"
    scenario.write_text(
        'schema = 1\nname = "small"\n[sale]\nunits = 100\n'
        '[load]\nmodel = "stampede"\nusers = 300\nconnections = 100\n'
    )
    up.run("toolkit", "storm", "small.toml", "--quiet")
    told = up.run("toolkit", "verify", "runs/latest", check=False)
    assert "pass    no_oversell" in told, told
    assert "pass    accepted_persisted" in told, told
    assert "fail" not in told, told
    doctor = up.run("toolkit", "doctor", "--json", check=False)
    findings = json.loads(doctor)
    broken = [found for found in findings if found["grade"] == "fail"]
    assert [found for found in broken if found["subject"] != "machine"] == []
    assert {found["subject"] for found in findings} >= {"ledger", "cache", "mysql"}
    assert not [found for found in findings if found["subject"] == "program"], "none is wanted"


@pytest.mark.slow
def test_the_log_at_the_door_names_every_order_and_nobodys_session(up: Containers) -> None:
    """Of the storm before; a toolkit goes in where everybody does."""
    log = up.folder / "access.log"
    until(lambda: log.read_text().count('"method":"POST"') == 300)
    told = [json.loads(line) for line in log.read_text().splitlines()]
    claims = [one for one in told if one["method"] == "POST"]
    assert {one["path"] for one in claims} == {"/voucher-order/seckill/1"}
    assert len({one["order"] for one in claims if one["outcome"] == "sold"}) == 100
    assert sum(one["outcome"] == "sold_out" for one in claims) == 200
    assert len({one["upstream"] for one in claims}) == 3, "every replica had its share"
    tokens = [line.split(",")[-1] for line in _lines(up.folder / "work/state/tokens.csv")]
    assert not [token for token in tokens if token in log.read_text()]
    assert _ask(up, "GET", "/metrics")[0] == 404


def _lines(path: Path) -> list[str]:
    return path.read_text().split()[1:]


@pytest.mark.slow
def test_prometheus_finds_everybody_and_the_exporters_get_in(up: Containers) -> None:
    """By the commands, the scrape configuration and the passwords of the file."""
    fetched()
    for name in (*EXPORTERS, "prometheus"):
        up.start_watcher(name)
    up.await_healthy("prometheus")
    until(lambda: _sums(up, "sum(up)", "count(up)") == (10, 10), 30)
    assert _sums(up, "sum(redis_up)", "sum(mysql_up)", "sum(nginx_up)") == (2, 1, 1)
    assert _sums(up, "sum(nginx_http_requests_total)")[0] > 300
    assert _sums(up, "max(flashsale_stream_lag)") == (0,)
    until(lambda: not _empty_panels(up), 30)


def _empty_panels(up: Containers) -> list[str]:
    """Of what comes by way of the exporters, which are others than those of `serve --observe`."""
    url = f"http://127.0.0.1:{up.port_of['prometheus', 9090]}"
    told = up.run("toolkit", "panels", "--json", "--prometheus-url", url, check=False)
    shown = [(panel["query"], panel["samples"]) for panel in json.loads(told)]
    of_exporters = [
        (f"{query['dashboard']}: {query['panel']}", samples)
        for query, samples in shown
        if query["dashboard"] in ("redis", "mysql") or "nginx_" in query["expr"]
    ]
    assert len(of_exporters) > 25
    return [name for name, samples in of_exporters if not samples]


def _sums(up: Containers, *queries: str) -> tuple[float, ...]:
    """What Prometheus answers to each; 0 for nothing."""
    base = f"127.0.0.1:{up.port_of['prometheus', 9090]}"
    values = []
    time.sleep(0.1)  # asked again and again until it is so
    for query in queries:
        connection = http.client.HTTPConnection(base, timeout=10)
        connection.request("GET", "/api/v1/query?" + urlencode({"query": query}))
        found = json.loads(connection.getresponse().read())["data"]["result"]
        connection.close()
        values.append(float(found[0]["value"][1]) if found else 0.0)
    return tuple(values)


@pytest.mark.slow
def test_what_is_told_to_stop_does_so_in_the_time_it_is_given(up: Containers) -> None:
    """The signal of the file, and the grace period; the last test, since it takes all down."""
    for name in ("nginx", *REPLICAS, *WORKERS):
        service = up.services[name]
        process = up.running.pop(name)
        number = signal.Signals[service.get("stop_signal", "SIGTERM")]
        os.kill(process.pid, number)
        grace_s = seconds(service["stop_grace_period"])
        until(lambda process=process: process.exit_code is not None, grace_s)  # type: ignore[misc]
        assert process.exit_code == 0, f"{name}:\n{process.log_tail()}"
        process.kill()
