"""Stores by URL, as a user names them: what works, and what each command says of what does not."""

import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis
from rig.command_line import run_flashsale
from rig.private_ca import Certified, certify
from rig.store_commands import main_job
from sqlalchemy import text

from flashsale.cli.tree import tree
from flashsale.doctor.findings import examine, insist, survey
from flashsale.errors import UnreachableError, UsageError
from flashsale.seeding.stores import opened
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.process import CommandLine
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage.mysql import engine
from flashsale.storage.tables import create_schema
from flashsale.store_urls import CONNECT_TIMEOUT_S, read_redis_url
from flashsale.verify.stores import connect

SECRET = "s3cret"
_IN_TIME_S = CONNECT_TIMEOUT_S + 1.5  # a command has started within the half second left
LEDGER, CACHE, MYSQL = "FLASHSALE_LEDGER_URL", "FLASHSALE_CACHE_URL", "FLASHSALE_MYSQL_URL"


class SecureRedis(RedisServer):
    """A Redis that speaks nothing but TLS on its port, and plainly on a socket."""

    certified: Certified
    socket: Path

    @property
    def url(self) -> str:
        place = f"{self.port.host}:{self.port.number}/0"
        return f"rediss://:{SECRET}%40%2F@{place}?ssl_ca_certs={self.certified.ca}"

    def prepare(self) -> CommandLine:
        command = super().prepare()
        more = [
            *("--port", "0", "--tls-port", str(self.port.number), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(self.certified.certificate)),
            *("--tls-key-file", str(self.certified.key)),
            *("--requirepass", f"{SECRET}@/", "--unixsocket", str(self.socket)),
        ]
        return replace(command, arguments=[*command.arguments, *more])

    def is_ready(self, timeout_s: float) -> bool:
        read_redis_url(self.url)
        try:
            with redis.Redis.from_url(self.url, socket_timeout=timeout_s) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    is_alive = is_ready


class SecureMariaDB(MariaDBServer):
    """A MariaDB that lets nobody in without TLS."""

    certified: Certified

    def url_of(self, database: str) -> str:
        tls = f"&ssl_ca={self.certified.ca}&ssl_mode=verify_identity"
        return f"{super().url_of(database)}{tls}"

    def prepare(self) -> CommandLine:
        command = super().prepare()
        more = [
            "--require-secure-transport=ON",
            f"--ssl-ca={self.certified.ca}",
            f"--ssl-cert={self.certified.certificate}",
            f"--ssl-key={self.certified.key}",
        ]
        return replace(command, arguments=[*command.arguments, *more])


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Three stores with TLS or a socket, and passwords that want encoding."""
    folder = tmp_path_factory.mktemp("secure")
    certified = certify(folder)
    ledger = SecureRedis(RedisRole.LEDGER, folder / "ledger")
    cache = SecureRedis(RedisRole.CACHE, folder / "cache")
    database = SecureMariaDB(folder / "mysql", buffer_pool_mb=32, redo_log_mb=16)
    # A socket's path has a hundred characters at most.
    with tempfile.TemporaryDirectory(prefix="fs-") as short:
        for number, server in enumerate((ledger, cache)):
            server.certified, server.socket = certified, Path(short) / f"{number}.sock"
        database.certified = certified
        with ledger, cache, database:
            yield {
                LEDGER: ledger.url,
                CACHE: f"unix://:{SECRET}%40%2F@{cache.socket}?db=0",
                MYSQL: database.url,
            }


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_main_job_over_tls_and_a_socket(tmp_path: Path, secure: dict[str, str]) -> None:
    main_job(tmp_path, secure)


@dataclass(frozen=True)
class Urls:
    """Of the three stores, as the commands carry them."""

    ledger_url: str
    cache_url: str
    mysql_url: str


def seed_or_warm(urls: Urls) -> None:
    with opened(urls):
        pass


def verify_or_storm(urls: Urls) -> None:
    with connect(urls.ledger_url, urls.mysql_url):
        pass


def serve(urls: Urls) -> None:
    insist(examine(urls.ledger_url, urls.cache_url, urls.mysql_url))


def doctor(urls: Urls) -> None:
    insist(survey(urls.ledger_url, urls.cache_url, urls.mysql_url))


def schema(urls: Urls) -> None:
    create_schema(urls.mysql_url)


EVERY_DOOR = (doctor, serve, seed_or_warm, verify_or_storm)
"""How each command comes to its stores: the same functions, without a process for each."""


@pytest.fixture
def own(ledger_url: str, cache_url: str, mysql_url: str) -> Urls:
    return Urls(ledger_url, cache_url, mysql_url)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["ledger", "cache", "mysql"])
def test_a_silent_port_is_told_in_time(own: Urls, silent: str, role: str) -> None:
    """It was 61 s of nothing."""
    scheme, path = ("mysql", "flashsale") if role == "mysql" else ("redis", "0")
    urls = replace(own, **{f"{role}_url": f"{scheme}://u:{SECRET}@{silent}/{path}"})
    for door in EVERY_DOOR if role != "cache" else (doctor, serve, seed_or_warm):
        _refuses(door, urls, role)


def test_three_silent_ports_are_told_in_the_time_of_one(silent: str) -> None:
    place = f"redis://{silent}/0"
    urls = Urls(place, place, f"mysql://u@{silent}/flashsale")
    _refuses(doctor, urls, "ledger")
    found = survey(urls.ledger_url, urls.cache_url, urls.mysql_url)
    assert [f.subject for f in found] == ["ledger", "cache", "mysql"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        "redis://:{secret}@127.0.0.1:1/0",
        "redis://:{secret}@{plain}/0",
        "redis://{plain}/99",
        "rediss://:{secret}@{plain}/0",
        "redis://:{secret}@{tls}/0",
        "rediss://:{secret}%40%2F@{tls}/0",
        "unix://:{secret}@/nowhere/redis.sock",
        "redis://:{secret}@{mysql}/0",
    ],
)
def test_a_redis_that_lets_nobody_in(own: Urls, secure: dict[str, str], url: str) -> None:
    asked = url.format(
        secret=SECRET,
        plain=own.ledger_url.split("/")[2],
        tls=secure[LEDGER].split("@")[1].split("/")[0],
        mysql=own.mysql_url.split("@")[1].split("/")[0],
    )
    for door in EVERY_DOOR:
        _refuses(door, replace(own, ledger_url=asked), "ledger")


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:{secret}@127.0.0.1:1/flashsale",
        "mysql://u:{secret}@{plain}/flashsale",
        "mysql://u:{secret}@{redis}/flashsale",
        "mysql://u:{secret}@/flashsale?unix_socket=/nowhere/my.sock",
        "{account}@{plain}/flashsale_of_nobody",
        "{secure}@{tls}/flashsale?ssl_mode=disabled",
        "{secure}@{tls}/flashsale?ssl_mode=verify_ca",
    ],
)
def test_a_mysql_that_lets_nobody_in(own: Urls, secure: dict[str, str], url: str) -> None:
    account, _, plain = own.mysql_url.partition("@")
    secure_account, _, tls = secure[MYSQL].partition("@")
    asked = url.format(
        secret=SECRET,
        account=account,
        secure=secure_account,
        plain=plain.split("/")[0],
        tls=tls.split("/")[0],
        redis=own.ledger_url.split("/")[2],
    )
    for door in (*EVERY_DOOR, schema):
        told = _refuses(door, replace(own, mysql_url=asked), "mysql")
        assert account.rpartition(":")[2] not in told
        assert secure_account.rpartition(":")[2] not in told


def test_required_is_tls_or_nothing(own: Urls) -> None:
    """Whether a private server has it is its release's choice: MariaDB does from 11.4 on."""
    asked = replace(own, mysql_url=f"{own.mysql_url.partition('?')[0]}?ssl_mode=required")
    with engine(own.mysql_url).connect() as connection:
        has_tls = connection.execute(text("SELECT @@have_ssl")).scalar() == "YES"
    if not has_tls:
        _refuses(schema, asked, "mysql")
        return
    with engine(asked.mysql_url).connect() as connection:
        cipher = connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1]
    assert cipher != ""


@pytest.mark.parametrize(
    "command",
    [
        *(("doctor",), ("serve",), ("seed",), ("warm",), ("schema",), ("verify", "run")),
        ("storm", "stampede"),
        ("worker", "--name", "c1"),
        ("replica", "--port", "1"),
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{SECRET}@127.0.0.1:1",
        f"mysql://u:p@{SECRET}@127.0.0.1:1/flashsale",
        f"mysql://u:{SECRET}@127.0.0.1:1/flashsale?nonsense=1",
    ],
)
def test_a_url_that_is_none_ends_every_command_alike(command: tuple[str, ...], url: str) -> None:
    with pytest.raises(UsageError, match=r"^--mysql-url: expected ") as raised:
        tree()([*command, "--mysql-url", url], standalone_mode=False)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("role", ["ledger", "cache"])
def test_so_does_a_redis_url_that_is_none(role: str) -> None:
    for command in ("doctor", "serve", "seed", "warm", "storm"):
        with pytest.raises(UsageError, match=f"^--{role}-url: expected ") as raised:
            tree()([command, f"--{role}-url", f"http://:{SECRET}@h/0"], standalone_mode=False)
        assert SECRET not in str(raised.value)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("words", "code"), [(("seed",), 7), (("storm", "stampede", "--base-url", "http://h"), 7)]
)
def test_a_silent_store_ends_a_command_with_one_line(
    tmp_path: Path, own: Urls, silent: str, words: tuple[str, ...], code: int
) -> None:
    urls = {
        LEDGER: own.ledger_url,
        CACHE: own.cache_url,
        MYSQL: f"mysql://u:{SECRET}@{silent}/flashsale",
    }
    done = run_flashsale(tmp_path, *words, **urls)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert "--mysql-url" in lines[0]
    assert SECRET not in lines[0]


def test_a_query_may_take_longer_than_a_handshake(mariadb: MariaDBServer) -> None:
    """The short limit is of the handshake alone."""
    pool = engine(mariadb.url)
    with pool.connect() as connection:
        assert connection.execute(text(f"SELECT SLEEP({CONNECT_TIMEOUT_S + 0.5})")).scalar() == 0
    pool.dispose()


def _refuses(door: Callable[[Urls], None], urls: Urls, role: str) -> str:
    """What it says, in time: one line that names the option and no password."""
    started = time.monotonic()
    with pytest.raises(UnreachableError) as raised:
        door(urls)
    seconds, told = time.monotonic() - started, str(raised.value)
    assert seconds < _IN_TIME_S, (door.__name__, told)
    assert f"--{role}-url" in told, door.__name__
    assert "\n" not in told
    assert SECRET not in told
    return told
