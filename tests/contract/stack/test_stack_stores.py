"""The private stores keep the policies they were started with, what they were told, and out who has
no business in them.
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pymysql
import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from flashsale.doctor.facts import ask_mysql, ask_redis
from flashsale.doctor.findings import Grade, examine, insist, judge_mysql, judge_redis
from flashsale.errors import UnreachableError
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.port import Socket
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.stack.service import Account
from flashsale.storage.mysql import engine
from flashsale.storage.roles import sync_client
from flashsale.storage.tables import create_all


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


def test_a_unique_key_that_was_lost_is_found_and_named_with_what_makes_it_again(
    blank_mysql_url: str,
) -> None:
    def unique_keys() -> list[tuple[Grade, str]]:
        findings = judge_mysql(ask_mysql(blank_mysql_url))
        return [(f.grade, f.found) for f in findings if f.name == "unique keys"]

    assert unique_keys() == [], "there are no tables yet"
    pool = engine(blank_mysql_url)
    try:
        create_all(pool)
        assert unique_keys() == [(Grade.OK, "as they were created")]
        with pool.begin() as connection:
            connection.execute(text("ALTER TABLE tb_voucher_order DROP INDEX uk_live_order"))
        ((grade, found),) = unique_keys()
        cure = (
            "ALTER TABLE tb_voucher_order ADD UNIQUE KEY uk_live_order (user_id, voucher_id, live)"
        )
        assert (grade, found) == (Grade.FAIL, f"missing: {cure}")
        with pool.begin() as connection:
            connection.execute(text(cure))
        assert unique_keys() == [(Grade.OK, "as they were created")]
        with pool.begin() as connection:
            connection.execute(text("ALTER TABLE tb_sign DROP INDEX uk_sign"))
        ((grade, found),) = unique_keys()
        assert grade is Grade.WARN, "no order is sold twice by that"
        assert found == "missing: ALTER TABLE tb_sign ADD UNIQUE KEY uk_sign (user_id, date)"
    finally:
        pool.dispose()


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


class Private(NamedTuple):
    """Stores by socket, as a stack has them, started under a umask that forbids nothing."""

    ledger: RedisServer
    cache: RedisServer
    mariadb: MariaDBServer
    folder: Path


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    folder = tmp_path_factory.mktemp("private") / "state"
    ledger, cache, mariadb = (folder / name for name in ("ledger", "cache", "mariadb"))
    before = os.umask(0)
    try:
        stores = Private(
            RedisServer(RedisRole.LEDGER, ledger, socket=Socket.within(ledger, "redis.sock")),
            RedisServer(RedisRole.CACHE, cache, socket=Socket.within(cache, "redis.sock")),
            MariaDBServer(
                mariadb,
                socket=Socket.within(mariadb, "mysqld.sock"),
                buffer_pool_mb=32,
                redo_log_mb=16,
            ),
            folder,
        )
        with stores.ledger, stores.cache, stores.mariadb:
            create_all(engine(stores.mariadb.url))
            yield stores
    finally:
        os.umask(before)


def test_a_private_stores_files_are_this_users_alone(private: Private) -> None:
    """MariaDB has modes of its own for its data, in a folder that lets nobody in."""
    data = private.folder / "mariadb/data"
    assert data.stat().st_mode & 0o777 == 0o700
    places = [private.folder, *private.folder.rglob("*")]
    modes = {p: p.lstat().st_mode & 0o777 for p in places if data not in (p, *p.parents)}
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}
    assert (private.folder / "mariadb/my.cnf") in modes
    sockets = [path for path in modes if path.is_socket()]
    assert len(sockets) == 3
    assert {modes[path] for path in sockets} == {0o600}


@pytest.mark.parametrize("role", RedisRole)
def test_a_private_redis_lets_nobody_in_without_a_password(
    private: Private, role: RedisRole
) -> None:
    server = private.ledger if role is RedisRole.LEDGER else private.cache
    path = server.url.partition("@")[2]
    for url in (f"unix://{path}", f"unix://owner:wrong@{path}", f"unix://:x@{path}"):
        with sync_client(url) as stranger, pytest.raises(AuthenticationError):
            stranger.get("login:token:x")


@pytest.mark.parametrize("account", [Account.REPLICA, Account.WORKER, Account.EXPORTER])
@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG SET maxmemory 1",
        "CONFIG REWRITE",
        "SHUTDOWN NOSAVE",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
        "CLIENT KILL TYPE normal",
        "REPLICAOF NO ONE",
        "ACL LIST",
        "SET other 1",
        "GET other",
    ],
)
def test_who_sells_or_counts_may_not(private: Private, account: Account, command: str) -> None:
    for server in (private.ledger, private.cache):
        with sync_client(server.url_for(account)) as client, pytest.raises(NoPermissionError):
            client.execute_command(*command.split())


@pytest.mark.parametrize(
    ("account", "command"),
    [
        (Account.REPLICA, "CONFIG GET maxmemory"),
        (Account.WORKER, "GET login:token:x"),
        (Account.WORKER, "SET sign:1:202601 x"),
        (Account.EXPORTER, "GET seckill:stock:1"),
        (Account.EXPORTER, "XLEN stream.orders"),
    ],
)
def test_each_may_do_what_is_its_own_alone(
    private: Private, account: Account, command: str
) -> None:
    with (
        sync_client(private.ledger.url_for(account)) as client,
        pytest.raises(NoPermissionError),
    ):
        client.execute_command(*command.split())


@pytest.mark.parametrize("account", [Account.REPLICA, Account.WORKER])
def test_who_sells_may_ask_which_server_it_speaks_to(private: Private, account: Account) -> None:
    """A ledger that came back older is known by its run id, its epoch and its counters."""
    with sync_client(private.ledger.url_for(account)) as client:
        assert client.info("server")["run_id"]
        assert client.get("icr:order:2030:01:01") is None
        assert client.get("seckill:epoch") is None


def test_who_sells_changes_rows_and_no_table(private: Private) -> None:
    for account in (Account.REPLICA, Account.WORKER):
        pool = engine(private.mariadb.url_for(account))
        with pool.begin() as connection:
            connection.execute(text("INSERT INTO tb_shop_type (name) VALUES ('a')"))
            connection.execute(text("UPDATE tb_shop_type SET name = 'b'"))
            connection.execute(text("DELETE FROM tb_shop_type"))
        for statement in (
            "DROP TABLE tb_shop",
            "TRUNCATE TABLE tb_shop",
            "ALTER TABLE tb_shop ADD COLUMN z INT",
            "CREATE TABLE z (id INT)",
            "SET GLOBAL read_only = 1",
            "SELECT * FROM mysql.global_priv",
            "CREATE DATABASE flashsale_z",
        ):
            with pool.connect() as connection, pytest.raises(OperationalError, match="denied"):
                connection.execute(text(statement))
        pool.dispose()


def test_who_counts_reads_no_row(private: Private) -> None:
    pool = engine(private.mariadb.url_for(Account.EXPORTER).replace("/flashsale?", "/mysql?"))
    with pytest.raises(OperationalError, match="denied"), pool.connect():
        raise AssertionError("it was let into a database")
    pool.dispose()
    url = private.mariadb.url_for(Account.EXPORTER).replace("/flashsale?", "/information_schema?")
    pool = engine(url)
    with pool.connect() as connection:
        assert len(connection.execute(text("SHOW GLOBAL STATUS")).all()) > 100
        with pytest.raises(OperationalError, match="denied"):
            connection.execute(text("SELECT * FROM flashsale.tb_user"))
    pool.dispose()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose sockets have paths that the system takes, wherever the tests run."""
    with tempfile.TemporaryDirectory(prefix="fs-") as path:
        yield Path(path)


def test_a_long_path_has_its_socket_elsewhere(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the run-time directory, in a folder of its own that is gone afterwards."""
    run_time = short / "run"
    run_time.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_time))
    directory = tmp_path / ("long" * 30)
    with RedisServer(
        RedisRole.CACHE, directory, socket=Socket.within(directory, "redis.sock")
    ) as server:
        (folder,) = run_time.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert str(folder / "redis.sock") in server.url
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    assert list(run_time.iterdir()) == []


def test_a_folder_that_somebody_else_has_prepared_is_not_used(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "run"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(short / "tmp"))
    directory = tmp_path / ("long" * 30)
    (short / "run").mkdir()
    place = Socket.within(directory, "redis.sock").path.parent
    place.rmdir()
    place.mkdir(0o755)
    place.chmod(0o777)
    elsewhere = Socket.within(directory, "redis.sock")
    assert elsewhere.path.parent != place
    elsewhere.close()


def test_what_a_script_has_written_outlives_a_kill(tmp_path: Path) -> None:
    """Redis loads its file as the default user, who has to be allowed all that is in it."""
    script = "redis.call('SET', KEYS[1], 'sold') redis.call('SADD', KEYS[2], 'user') return 1"
    server = RedisServer(
        RedisRole.LEDGER, tmp_path / "ledger", socket=Socket.within(tmp_path, "redis.sock")
    )
    with server:
        for _ in range(2):
            with redis.Redis.from_url(server.url) as client:
                client.eval(script, 2, "a", "b")
            assert server.process
            server.process.kill()
            server.sweep()
            server.start()
            with redis.Redis.from_url(server.url) as client:
                assert client.get("a") == b"sold"
                assert client.smembers("b") == {b"user"}


def test_the_default_user_lets_nobody_in(private: Private) -> None:
    path = str(private.ledger.place.path) if isinstance(private.ledger.place, Socket) else ""
    for login in ({}, {"username": "default", "password": "x"}, {"password": ""}):
        with (
            redis.Redis(unix_socket_path=path, retry=Retry(NoBackoff(), 0), **login) as client,
            pytest.raises((redis.AuthenticationError, redis.ResponseError)),
        ):
            client.get("a")
