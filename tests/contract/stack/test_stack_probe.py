"""Probes are bounded: silence, noise and slow drips are no answer, and cost no more than said."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from flashsale.stack import probe
from flashsale.store_urls import mysql_answers, read_redis_url


@contextmanager
def _server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """One connection is accepted and given to `serve`; yields the port."""

    def accept() -> None:
        connection, _ = listener.accept()
        with connection:
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def _drip(connection: socket.socket) -> None:
    try:
        for byte in b"HTTP/1.1 200 OK":
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
    except OSError:
        return  # the asker has left


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 200),
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\n", 503),
        (b"HTTP/1.1 204\r\n\r\n", 204),
        (b"-ERR unknown command\r\n", None),
        (b"HTTP/1.1 OK\r\n\r\n", None),
        (b"HTTP/1.1 2", None),
        (b"", None),
        (b"\x00" * 20_000, None),
    ],
)
def test_a_status_is_read_or_there_is_none(answer: bytes, status: int | None) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1_024)
        connection.sendall(answer)

    with _server(serve) as port:
        assert probe.http_status("127.0.0.1", port, "/healthz", 2) == status


def test_a_slow_drip_is_no_answer() -> None:
    with _server(_drip) as port:
        started = time.monotonic()
        assert probe.http_status("127.0.0.1", port, "/", 0.3) is None
        assert time.monotonic() - started < 1


def _ask_redis(host: str, port: int, timeout_s: float) -> str:
    return probe.redis_reply(read_redis_url(f"redis://user:secret@{host}:{port}/0"), timeout_s)


@pytest.mark.parametrize("ask", [_ask_redis, lambda *a: probe.http_status(*a[:2], "/", a[2])])
def test_silence_ends_with_the_timeout(ask: Callable[[str, int, float], object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        assert not ask("127.0.0.1", silent.getsockname()[1], 0.2)
        assert time.monotonic() - started < 1


def test_a_silent_mysql_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mysql://u:p@127.0.0.1:{silent.getsockname()[1]}/db"
        started = time.monotonic()
        assert not mysql_answers(url, 0.3)
        assert time.monotonic() - started < 3


def test_a_redis_answers(ledger_url: str) -> None:
    assert probe.redis_reply(read_redis_url(ledger_url), 2) == "+PONG"


def test_a_redis_that_drips_is_no_answer() -> None:
    with _server(_drip) as port:
        started = time.monotonic()
        assert _ask_redis("127.0.0.1", port, 0.3) == ""
        assert time.monotonic() - started < 1


@pytest.mark.parametrize(("answer", "code"), [(b"HTTP/1.1 200 OK", 0), (b"HTTP/1.1 503 No", 1)])
def test_a_containers_health_check_is_an_exit_status(answer: bytes, code: int) -> None:
    def serve(connection: socket.socket) -> None:
        assert connection.recv(1_024).startswith(b"GET /readyz HTTP/1.1")
        connection.sendall(answer + b"\r\n\r\n")

    with _server(serve) as port:
        assert probe.main(f"http://127.0.0.1:{port}/readyz") == code
    command = [sys.executable, "-m", "flashsale.stack.probe", f"http://127.0.0.1:{port}/readyz"]
    assert subprocess.run(command, check=False, timeout=20).returncode == 1, "nobody is there"
