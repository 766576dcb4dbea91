"""Every configuration file of deploy/compose.yaml, loaded by the program that it is for."""

import http.client
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError
from rig.compose import DEPLOY
from rig.containers import Containers
from rig.until import until

from flashsale.doctor.facts import ask_redis
from flashsale.doctor.findings import Grade, judge_redis
from flashsale.stack import binaries
from flashsale.stack.redis import RedisRole
from flashsale.storage.roles import sync_client


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    with Containers(tmp_path) as started:
        yield started


@pytest.mark.parametrize("role", list(RedisRole))
def test_a_redis_does_what_its_role_promises(containers: Containers, role: RedisRole) -> None:
    """By the rules that `flashsale doctor` has; and it lets nobody in without the password."""
    name = f"redis-{role}"
    containers.start_redis(name)
    containers.await_healthy(name)
    port, password = containers.port_of[name, 6379], containers.secret(f"{role}_password")
    findings = judge_redis(role, ask_redis(role, f"redis://:{password}@127.0.0.1:{port}/0"))
    assert [finding for finding in findings if finding.grade is not Grade.OK] == []
    with (
        sync_client(f"redis://127.0.0.1:{port}/0") as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.ping()


def test_a_redis_without_its_file_would_be_found_out(containers: Containers) -> None:
    """The health check of one that takes no password, or another, says so."""
    containers.start_redis("redis-ledger")
    containers.await_healthy("redis-ledger")
    secret = containers.secrets / "ledger_password"
    secret.chmod(0o644)
    secret.write_text("another")
    assert not containers.is_healthy("redis-ledger")


def test_a_redis_has_room_to_rewrite_its_file(containers: Containers) -> None:
    """A fork copies what is written meanwhile: at worst, all of it."""
    for role, share in ((RedisRole.LEDGER, 2), (RedisRole.CACHE, 1)):
        text = (DEPLOY / f"compose/redis-{role}.conf").read_text()
        limit = containers.services[f"redis-{role}"]["deploy"]["resources"]["limits"]["memory"]
        used = re.search(r"^maxmemory (\w+)$", text, re.MULTILINE)
        assert used
        assert _bytes(used[1]) * share <= _bytes(limit)


def _bytes(size: str) -> int:
    number, unit = re.findall(r"(\d+)([a-zA-Z]+)", size)[0]
    return int(number) << {"k": 10, "m": 20, "g": 30}[unit[0].lower()]


def test_nginx_takes_its_file(containers: Containers, tmp_path: Path) -> None:
    """`nginx -t` first, then in earnest: it refuses in the envelope, counts, limits and logs."""
    containers.start_nginx()
    conf = tmp_path / "conf/nginx.conf"
    binary = binaries.find(binaries.NGINX)
    tested = subprocess.run(
        [binary.path, "-t", "-e", "stderr", "-p", tmp_path / "nginx", "-c", conf],
        env=binary.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "test is successful" in tested.stderr, tested.stderr
    assert "[warn]" not in tested.stderr, tested.stderr
    until(lambda: _get(containers, 8090, "/stub_status")[0] == 200)
    assert not containers.is_healthy("nginx"), "no replica is there"
    statuses = [_get(containers, 8080, "/shop/1?phone=1")[0] for _ in range(300)]
    assert set(statuses) == {502, 429}
    assert statuses.index(429) >= 200, "a burst is let through"
    status, body = _get(containers, 8080, "/shop/1")
    assert status == 429
    assert json.loads(body)["success"] is False
    log = tmp_path / "access.log"
    until(lambda: len(log.read_text().splitlines()) > 300)
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert {request["status"] for request in told} >= {502, 429}
    assert "phone" not in log.read_text()


def _get(containers: Containers, port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", containers.port_of["nginx", port], 5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except ConnectionRefusedError:
        return 0, b""
    finally:
        connection.close()


def test_mariadb_understands_every_setting_of_mysqls_file() -> None:
    """A setting that it does not know would end it; `--help` reads the file as a start does."""
    binary = binaries.find(binaries.MARIADB)
    told = subprocess.run(
        [binary.path, f"--defaults-file={DEPLOY / 'compose/mysql.cnf'}", "--verbose", "--help"],
        env=binary.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "unknown" not in told.stderr.replace("unknown variable 'loose", ""), told.stderr
    values = dict(re.findall(r"^([a-z][\w-]+) +(\S.*)$", told.stdout, re.MULTILINE))
    assert values["innodb-flush-log-at-trx-commit"] == "1"
    assert values["innodb-rollback-on-timeout"] == "TRUE"
    assert values["transaction-isolation"] == "READ-COMMITTED"
    assert values["innodb-buffer-pool-size"] == str(6 << 30)
    assert values["max-connections"] == "300"
    assert values["log-bin"] in ("0", "FALSE", "(No default value)")
