"""A replica as a process: what the wire does to it, how it ends, and what it leaves behind."""

import re
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from redis import Redis
from rig.child import START_TIMEOUT_S, Child, answers, child, free_port, speak
from rig.sale import open_sale, permit, sold
from rig.until import until

from flashsale import keys
from flashsale.stack.redis import RedisServer
from flashsale.storage.roles import sync_client

NOWHERE = "mysql+pymysql://u:p@127.0.0.1:1/flashsale"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replica")


@pytest.fixture
def port() -> Iterator[int]:
    with free_port() as number:
        yield number


class Running:
    def __init__(self, process: Child, port: int, ledger: Redis) -> None:
        self.process, self.port, self.ledger = process, port, ledger

    def figure(self, name: str) -> float:
        told = speak(self.port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").decode()
        found = re.search(rf"^{name} ([\d.]+)$", told, re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.fixture
def replica(own_ledger: RedisServer, port: int, tmp_path: Path) -> Iterator[Running]:
    """A replica on a ledger of its own; users 1 … 9 are signed in, sale 1 is open."""
    with running(own_ledger, port, tmp_path) as replica:
        yield replica


@contextmanager
def running(
    own_ledger: RedisServer, port: int, tmp_path: Path, *arguments: str
) -> Iterator[Running]:
    stores = {
        "FLASHSALE_LEDGER_URL": own_ledger.url,
        "FLASHSALE_CACHE_URL": own_ledger.url,
        "FLASHSALE_MYSQL_URL": NOWHERE,
    }
    with sync_client(own_ledger.url) as ledger:
        open_sale(ledger)
        permit(ledger)
        for user in range(1, 10):
            ledger.hset(keys.login_token(f"t{user}"), "id", user)
        command = ("replica", "--port", str(port), "--name", "r1", *arguments)
        with child(tmp_path / "replica.log", *command, **stores) as process:
            until(lambda: answers(port) or process.process.poll() is not None, START_TIMEOUT_S)
            assert process.process.poll() is None, process.output
            yield Running(process, port, ledger)


def claim(user: int, *extra: str, method: str = "POST") -> bytes:
    lines = [
        f"{method} /voucher-order/seckill/1 HTTP/1.1",
        "Host: x",
        f"Authorization: t{user}",
        *extra,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def status(heard: bytes) -> int:
    assert heard.startswith(b"HTTP/1.1 "), heard
    return int(heard[9:12])


def test_beside_a_socket_a_port_is_the_processs_alone(
    own_ledger: RedisServer, port: int, tmp_path: Path
) -> None:
    """Any user of the machine can open a port of loopback, past nginx and its limits."""
    place = tmp_path / "r1.sock"
    with running(own_ledger, port, tmp_path, "--socket", str(place)) as replica:
        assert place.stat().st_mode & 0o777 == 0o600
        for path, expected in (("/healthz", 200), ("/metrics", 200), ("/openapi.json", 200)):
            heard = speak(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert status(heard) == expected
        for request in (
            *(
                claim(1),
                claim(1, method="GET"),
                claim(1).replace(b"/voucher-order/seckill", b"/shop"),
            ),
            b"POST /user/code?phone=13800000000 HTTP/1.1\r\nHost: x\r\nX-Real-IP: 9.9.9.9\r\n\r\n",
            b"PUT /shop HTTP/1.1\r\nHost: x\r\nAuthorization: operator\r\n\r\n",
        ):
            assert status(speak(port, request)) == 404
        assert sold(replica.ledger) == {}
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(10)
            wire.connect(str(place))
            wire.sendall(claim(1, "Content-Length: 0"))
            assert b"x-outcome: sold" in wire.recv(4_096).lower()


def test_over_the_wire(replica: Running) -> None:
    """One replica, one process start: everything that a client may send it."""
    port, process = replica.port, replica.process
    heard = speak(port, claim(1, "Content-Length: 0"))
    order_id = sold(replica.ledger)["1"]
    assert status(heard) == 200
    assert heard.endswith(b'{"success":true,"data":' + order_id.encode() + b"}")
    assert b"x-outcome: sold" in heard.lower()

    # Smuggling, limits and noise: refused, and nothing sold.
    assert_not_smuggled(replica)
    differ = claim(2, "Content-Length: 4", "Content-Length: 5") + b"abcde"
    assert status(speak(port, differ)) == 400
    assert status(speak(port, claim(2, "Content-Length: x"))) == 400
    large = claim(2, "Content-Length: 70000") + b"x" * 70_000
    assert status(speak(port, large)) == 413
    assert status(speak(port, claim(2, "X: " + "y" * 20_000))) == 431
    assert status(speak(port, claim(2, "X: " + "y" * 200_000))) == 431
    assert status(speak(port, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")) == 414
    for noise in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"\xff" * 100, b"\r\n\r\n"):
        speak(port, noise, timeout_s=0.3)
    assert status(speak(port, claim(2, method="DELETE"))) == 405
    assert status(speak(port, b"GET /%2e%2e/etc HTTP/1.1\r\nHost: x\r\n\r\n")) == 404
    assert set(sold(replica.ledger)) == {"1"}

    # A client that hangs up in the middle, and one that never ends its head.
    with socket.create_connection(("127.0.0.1", port)) as gone:
        gone.sendall(claim(3, "Content-Length: 10") + b"abc")
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /voucher")
        assert status(speak(port, claim(4, "Content-Length: 0"))) == 200

    # Two requests on one connection, the second sent before the first is answered.
    with socket.create_connection(("127.0.0.1", port), 10) as wire:
        wire.sendall(claim(5, "Content-Length: 0") + claim(6, "Content-Length: 0"))
        heard = b""
        while heard.count(b"x-outcome") < 2:
            part = wire.recv(65_536)
            assert part
            heard += part
    receipts = sold(replica.ledger)
    assert heard.index(receipts["5"].encode()) < heard.index(receipts["6"].encode())

    until(lambda: replica.figure("flashsale_http_requests_in_flight") == 1)
    assert process.process.poll() is None
    assert "Traceback" not in process.output
    assert process.output.count("internal error") == 0

    # Health is the process; readiness needs MySQL, which is not there.
    assert status(speak(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == 200
    assert status(speak(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")) == 503

    children = psutil.Process(process.pid).children(recursive=True)
    process.tell(signal.SIGKILL)
    assert process.ended() == -signal.SIGKILL
    until(lambda: not any(one.is_running() for one in children))
    assert not answers(port)


def assert_not_smuggled(replica: Running) -> None:
    """Length beside Transfer-Encoding: refused, and what follows is no request."""
    hidden = claim(9, "Content-Length: 0")
    both = claim(2, "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + hidden
    with socket.create_connection(("127.0.0.1", replica.port), 10) as wire:
        wire.sendall(both)
        heard = b""
        while part := wire.recv(65_536):
            heard += part
    assert heard.count(b"HTTP/1.1") == 1
    assert status(heard) == 400
    assert b"connection: close" in heard.lower()
    assert not {"2", "9"} & set(sold(replica.ledger))


def test_sigterm_answers_what_is_in_flight(replica: Running) -> None:
    replica.ledger.client_pause(1200)
    idle = socket.create_connection(("127.0.0.1", replica.port), 10)  # as nginx keeps hundreds
    idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert idle.recv(12) == b"HTTP/1.1 200"
    with idle, ThreadPoolExecutor(3) as buyers:
        asked = [
            buyers.submit(speak, replica.port, claim(user, "Content-Length: 0"))
            for user in (1, 2, 3)
        ]
        until(lambda: replica.figure("flashsale_http_requests_in_flight") == 4)
        replica.process.tell(signal.SIGTERM)
        heard = [one.result() for one in asked]
    assert replica.process.ended(15) == 0
    receipts = sold(replica.ledger)
    assert len(receipts) == 3
    for user, one in zip((1, 2, 3), heard, strict=True):
        assert status(one) == 200
        assert receipts[str(user)].encode() in one
        assert b"connection: close" in one.lower()
    for word in ("Traceback", "ResourceWarning", "cut off"):
        assert word not in replica.process.output
    assert not answers(replica.port)


def test_sigterm_does_not_wait_for_ever_for_a_client_that_says_no_more(
    own_ledger: RedisServer, port: int, tmp_path: Path
) -> None:
    """A body that was announced and never comes, held open by its sender."""
    stores = ("--ledger-url", own_ledger.url, "--cache-url", own_ledger.url)
    arguments = ("replica", "--port", str(port), *stores, "--mysql-url", NOWHERE)
    with child(tmp_path / "log", *arguments, FLASHSALE_REPLICA_DRAIN_TIMEOUT_S="0.5") as process:
        until(lambda: answers(port), START_TIMEOUT_S)
        with socket.create_connection(("127.0.0.1", port), 10) as silent:
            silent.sendall(claim(1, "Content-Length: 10") + b"abc")
            running = Running(process, port, None)  # type: ignore[arg-type]
            until(lambda: running.figure("flashsale_http_requests_in_flight") == 2)
            process.tell(signal.SIGTERM)
            assert process.ended(8) == 0


def test_sigterm_during_a_rush_loses_no_request(replica: Running) -> None:
    """Whoever could still connect gets a whole answer."""
    stop = threading.Event()
    torn: list[bytes] = []
    asked = [0]

    def rush(user: int) -> None:
        while not stop.is_set():
            try:
                heard = speak(replica.port, claim(user, "Content-Length: 0"))
            except ConnectionRefusedError:
                return
            asked[0] += 1
            head, split, body = heard.partition(b"\r\n\r\n")
            if not split or f"content-length: {len(body)}".encode() not in head.lower():
                torn.append(heard)

    threads = [threading.Thread(target=rush, args=(user,)) for user in range(1, 5)]
    for thread in threads:
        thread.start()
    until(lambda: asked[0] > 40)
    replica.process.tell(signal.SIGTERM)
    code = replica.process.ended(15)
    stop.set()
    for thread in threads:
        thread.join(15)
    assert code == 0
    assert torn == []
    assert "Traceback" not in replica.process.output


def test_a_port_that_is_taken_is_one_line_and_exit_7(
    own_ledger: RedisServer, tmp_path: Path
) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = str(stranger.getsockname()[1])
        urls = ("--ledger-url", own_ledger.url, "--cache-url", own_ledger.url)
        arguments = ("replica", "--port", port, *urls, "--mysql-url", NOWHERE)
        with child(tmp_path / "log", *arguments) as process:
            assert process.ended() == 7
        (line,) = process.output.splitlines()
        assert line.startswith("flashsale: ")
        assert port in line


@pytest.mark.parametrize(
    ("arguments", "env", "word"),
    [
        ((), {}, "LEDGER_URL"),
        (("--ledger-url", "http://x", "--cache-url", "redis://h:1/0"), {}, "redis://"),
        ((), {"FLASHSALE_CLAIM_BATCH_MAX": "0"}, "FLASHSALE_CLAIM_BATCH_MAX"),
        ((), {"FLASHSALE_REPLICA_BACKLOG": "many"}, "FLASHSALE_REPLICA_BACKLOG"),
        (("--mysql-url", "postgresql://u:secret@h/db"), {}, "mysql://"),
    ],
    ids=["no ledger", "bad ledger", "bad setting", "no number", "bad mysql"],
)
def test_wrong_settings_are_one_line_and_exit_2(
    tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str], word: str
) -> None:
    if env or "--mysql-url" in arguments:
        env = {
            "FLASHSALE_LEDGER_URL": "redis://127.0.0.1:1/0",
            "FLASHSALE_CACHE_URL": "redis://127.0.0.1:1/0",
            **({} if "--mysql-url" in arguments else {"FLASHSALE_MYSQL_URL": NOWHERE}),
            **env,
        }
    elif arguments:
        env = {"FLASHSALE_MYSQL_URL": NOWHERE}
    with (
        free_port() as port,
        child(tmp_path / "log", "replica", "--port", str(port), *arguments, **env) as process,
    ):
        assert process.ended() == 2
    (line,) = process.output.splitlines()
    assert line.startswith("flashsale: ")
    assert word in line
    assert "secret" not in line
