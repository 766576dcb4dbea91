"""A worker as a process: it writes, tells how it does, and leaves nothing undone when it ends."""

import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rig.child import answers, child, free_port, speak
from rig.rows import add_sale, orders, units
from rig.sale import claim, open_sale
from rig.until import until
from sqlalchemy import Engine, text

from flashsale import keys
from flashsale.errors import FlashsaleError
from flashsale.orders import process
from flashsale.orders.sweeper import Sweeper
from flashsale.settings import StoreSettings, WorkerSettings


@pytest.fixture
def env(ledger_url: str, cache_url: str, mysql_url: str) -> dict[str, str]:
    return {
        "FLASHSALE_LEDGER_URL": ledger_url,
        "FLASHSALE_CACHE_URL": cache_url,
        "FLASHSALE_MYSQL_URL": mysql_url,
    }


@pytest.fixture
def port() -> Iterator[int]:
    with free_port() as number:
        yield number


def accept(ledger: Redis, users: range) -> None:
    answers = claim(ledger, *((user, 10_000 + user) for user in users))
    assert {code for code, _ in answers} == {0}


def test_writes_tells_and_ends(
    env: dict[str, str], port: int, tmp_path: Path, ledger: Redis, pool: Engine
) -> None:
    add_sale(pool, stock=1000)
    open_sale(ledger, units=1000)
    accept(ledger, range(1, 31))
    with child(tmp_path / "log", "worker", "--name", "c1", "--port", str(port), **env) as worker:
        until(lambda: len(orders(pool)) == 30, 30)
        assert b'{"success":true}' in speak(port, b"GET /healthz HTTP/1.0\r\n\r\n")
        assert speak(port, b"GET /nowhere HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 404")

        def figure(name: str) -> float:
            told = speak(port, b"GET /metrics HTTP/1.0\r\n\r\n").decode()
            return float(re.findall(rf"^{re.escape(name)} ([\d.]+)$", told, re.MULTILINE)[0])

        until(lambda: figure('flashsale_worker_orders_total{result="written"}') == 30)
        assert figure("flashsale_stream_lag_entries") == 0
        assert figure("flashsale_stream_pending_entries") == 0
        accept(ledger, range(31, 41))
        until(lambda: len(orders(pool)) == 40)
        worker.tell(signal.SIGTERM)
        assert worker.ended() == 0
        assert "Traceback" not in worker.output
    assert units(pool) == 960
    assert ledger.xpending(keys.STREAM_ORDERS, keys.GROUP)["pending"] == 0


def test_killed_in_its_work_and_started_again(
    env: dict[str, str], port: int, tmp_path: Path, ledger: Redis, pool: Engine
) -> None:
    """SIGKILL with a batch in its hands: MySQL keeps it waiting for a lock, so it has one."""
    add_sale(pool, stock=1000)
    open_sale(ledger, units=1000)
    arguments = ("worker", "--name", "c1", "--port", str(port))
    with pool.connect() as holding:
        holding.execute(text("SELECT stock FROM tb_seckill_voucher FOR UPDATE"))
        with child(tmp_path / "log", *arguments, **env) as first:
            accept(ledger, range(1, 101))
            until(lambda: "UPDATE tb_seckill" in _running(pool), 30)
            first.tell(signal.SIGKILL)
            assert first.ended() == -signal.SIGKILL
        holding.rollback()
    assert ledger.xpending(keys.STREAM_ORDERS, keys.GROUP)["pending"] > 0
    with child(tmp_path / "log2", *arguments, **env) as second:
        until(lambda: len(orders(pool)) == 100, 30)
        second.tell(signal.SIGINT)
        assert second.ended() == 0
    assert units(pool) == 900


def _running(pool: Engine) -> str:
    with pool.connect() as connection:
        return "\n".join(str(row.Info) for row in connection.execute(text("SHOW PROCESSLIST")))


def test_a_port_that_is_taken_is_one_line_and_exit_7(env: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = str(stranger.getsockname()[1])
        with child(tmp_path / "log", "worker", "--name", "c1", "--port", port, **env) as worker:
            assert worker.ended() == 7
        assert answers(int(port))
    (line,) = worker.output.splitlines()
    assert line.startswith(f"flashsale: port {port} ")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("--name", "c1 2"), "name"), (("--name", ""), "name"), ((), "name")],
    ids=["two words", "no word", "none given"],
)
def test_a_name_is_one_word(
    env: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    with child(tmp_path / "log", "worker", *arguments, **env) as worker:
        assert worker.ended() == 2
    assert word in worker.output
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("thread", ["Sweeper.run", "ThreadingHTTPServer.serve_forever"])
def test_a_thread_that_ends_by_itself_ends_the_process(
    env: dict[str, str], port: int, monkeypatch: pytest.MonkeyPatch, pool: Engine, thread: str
) -> None:
    """Not even quietly: a sweeper that returns is as gone as one that raised."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    owner = {"Sweeper": Sweeper, "ThreadingHTTPServer": process.ThreadingHTTPServer}
    kind, _, method = thread.partition(".")
    monkeypatch.setattr(owner[kind], method, lambda *_: None)
    if kind == "ThreadingHTTPServer":  # which waits for what never ran
        monkeypatch.setattr(process.ThreadingHTTPServer, "shutdown", lambda _: None)
    settings = WorkerSettings.load(block_ms=50)
    with pytest.raises(FlashsaleError, match=r"thread (sweeper|worker-http) ended by itself"):
        process.run_worker("c1", port, StoreSettings.load(), settings)


def test_a_thread_that_fails_is_counted_and_stops_the_process() -> None:
    stop = threading.Event()
    ended = process.Lasting(stop)

    def breaks() -> None:
        raise OverflowError("date value out of range")

    ended.start("sweeper", breaks).join(5)
    assert stop.is_set()
    assert ended.early == ["sweeper"]
