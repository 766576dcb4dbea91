"""The private stores keep the policies they were started with, and what they were told."""

import os
import signal
from pathlib import Path

import pymysql
import pytest
import redis
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from flashsale.doctor.facts import ask_mysql, ask_redis
from flashsale.doctor.findings import Grade, examine, insist, judge_mysql, judge_redis
from flashsale.errors import UnreachableError
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.redis import RedisRole, RedisServer


def test_both_roles_pass_their_own_examination(ledger_url: str, cache_url: str) -> None:
    for role, url in ((RedisRole.LEDGER, ledger_url), (RedisRole.CACHE, cache_url)):
        findings = judge_redis(role, ask_redis(role, url))
        assert [f for f in findings if f.grade is not Grade.OK] == []


def test_a_cache_in_the_ledgers_place_is_refused(cache_url: str) -> None:
    with pytest.raises(UnreachableError, match=r"appendonly is no.*CONFIG SET appendonly yes"):
        insist(examine(cache_url, None, None))


def test_one_server_in_both_roles_is_held_to_the_ledgers_policy(ledger_url: str) -> None:
    """Its rows of the cache stay, and ask it for nothing that a ledger must not do."""
    found = examine(ledger_url, ledger_url.replace("/0", "?db=0"), None)
    assert [f for f in found if f.grade is Grade.FAIL] == []
    assert {f.name for f in found if f.subject == "ledger"} >= {"version", "appendfsync"}
    shared = {f.name: f for f in found if f.subject == "cache"}
    assert set(shared) == {"version", "role", "cluster", "server"}
    assert shared["server"].grade is Grade.WARN
    assert "--cache-url" in shared["server"].cure


def test_the_cache_writes_nothing_to_disk(cache_server: RedisServer) -> None:
    with redis.Redis.from_url(cache_server.url, decode_responses=True) as client:
        assert client.config_get("save")["save"] == ""
        assert client.config_get("appendonly")["appendonly"] == "no"


def test_a_ledger_keeps_what_it_acknowledged_through_sigkill(tmp_path: Path) -> None:
    with RedisServer(RedisRole.LEDGER, tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.incrby("units", 41)
            client.incr("units")
        assert server.process
        os.kill(server.process.pid, signal.SIGKILL)
    with (
        RedisServer(RedisRole.LEDGER, tmp_path) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.get("units") == b"42"


def test_mariadb_passes_its_examination(mariadb: MariaDBServer) -> None:
    findings = judge_mysql(ask_mysql(mariadb.url))
    assert [f for f in findings if f.grade is not Grade.OK] == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("tx_isolation", "READ-COMMITTED"),
        ("time_zone", "+00:00"),
        ("innodb_rollback_on_timeout", 1),
        ("skip_name_resolve", 1),
        ("max_connections", 300),
    ],
)
def test_mariadb_settings_of_the_design(
    mariadb: MariaDBServer, variable: str, value: object
) -> None:
    engine = create_engine(mariadb.url)
    with engine.connect() as connection:
        assert connection.execute(text(f"SELECT @@GLOBAL.{variable}")).scalar() == value
    engine.dispose()


def test_mariadbs_user_is_limited_to_its_databases(mariadb: MariaDBServer) -> None:
    engine = create_engine(mariadb.url)
    with engine.connect() as connection:
        for statement in ("CREATE DATABASE other", "SELECT * FROM mysql.global_priv"):
            with pytest.raises(OperationalError, match="denied"):
                connection.execute(text(statement))
    engine.dispose()


@pytest.mark.parametrize("user", ["root", "flashsale", ""])
def test_mariadb_lets_nobody_in_without_the_password(mariadb: MariaDBServer, user: str) -> None:
    with pytest.raises(pymysql.OperationalError, match="denied"):
        pymysql.connect(host="127.0.0.1", port=mariadb.port.number, user=user, password="")


def test_mariadb_keeps_its_data_over_a_restart_and_a_long_path(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)  # far beyond what a socket's path may be
    for expected in (0, 1):
        with MariaDBServer(directory, buffer_pool_mb=32, redo_log_mb=16) as server:
            engine = create_engine(server.url)
            with engine.begin() as connection:
                connection.execute(text("CREATE TABLE IF NOT EXISTS kept (id INT)"))
                assert connection.execute(text("SELECT COUNT(*) FROM kept")).scalar() == expected
                connection.execute(text("INSERT INTO kept VALUES (1)"))
            engine.dispose()


def test_a_server_that_cannot_start_tells_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()  # looks bootstrapped, and holds no system tables
    server = MariaDBServer(tmp_path, buffer_pool_mb=32, redo_log_mb=16)
    with pytest.raises(UnreachableError) as error:
        server.start()
    lines = str(error.value).splitlines()
    assert "mariadb ended at once" in lines[0]
    assert str(tmp_path / "mariadb.log") in lines[0]
    assert "mysql" in "".join(lines[1:])
    assert server.process is None
    server.stop()


@pytest.mark.parametrize(
    ("role", "url", "told"),
    [
        (RedisRole.LEDGER, "redis://127.0.0.1:1/0", "--ledger-url"),
        (RedisRole.CACHE, "redis://127.0.0.1:1/0", "--cache-url"),
    ],
)
def test_a_redis_that_does_not_answer_names_its_option(
    role: RedisRole, url: str, told: str
) -> None:
    with pytest.raises(UnreachableError, match=told):
        ask_redis(role, url)


def test_a_mysql_that_refuses_hides_the_password(mariadb: MariaDBServer) -> None:
    wrong = f"mysql://flashsale:wrongpw@127.0.0.1:{mariadb.port.number}/flashsale"
    with pytest.raises(UnreachableError, match="--mysql-url") as error:
        ask_mysql(wrong)
    assert "wrongpw" not in str(error.value)
    assert "\n" not in str(error.value)


def test_stopping_twice_is_fine(tmp_path: Path) -> None:
    server = RedisServer(RedisRole.CACHE, tmp_path).start()
    assert server.process
    pid = server.process.pid
    server.stop()
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = RedisServer(RedisRole.CACHE, tmp_path / "file")
    with pytest.raises(UnreachableError, match=r"^cache cannot be started in .*file: ") as error:
        server.start()
    assert "\n" not in str(error.value)
    server.stop()
