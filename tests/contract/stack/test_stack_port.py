"""Ports: of two stacks only one has a port, and a lost one is replaced."""

import socket
from pathlib import Path

import pytest
import redis

from flashsale.errors import UnreachableError
from flashsale.stack.port import Port
from flashsale.stack.redis import RedisRole, RedisServer


def _listener(number: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", number))
    listener.listen()
    return listener


def test_a_reserved_port_is_nobody_elses() -> None:
    port = Port.free()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port.number))
    port.close()


def test_many_reservations_are_all_different() -> None:
    ports = [Port.free() for _ in range(200)]
    assert len({port.number for port in ports}) == 200
    for port in ports:
        port.close()


def test_our_own_server_can_listen_on_it() -> None:
    port = Port.free()
    with _listener(port.number), socket.create_connection(("127.0.0.1", port.number), 1):
        pass
    port.close()


def test_a_port_that_somebody_listens_on_is_taken() -> None:
    port = Port.free()
    number = port.number
    port.close()
    with _listener(number):
        assert Port.at(number) is None


def test_a_port_with_old_connections_is_free_again() -> None:
    port = Port.free()
    number = port.number
    port.close()
    with _listener(number) as listener:
        caller = socket.create_connection(("127.0.0.1", number), 1)
        served, _ = listener.accept()
        served.close()  # closes first: this end stays in TIME_WAIT
        caller.close()
    again = Port.at(number)
    assert again is not None
    again.close()


def test_a_free_port_is_no_outgoing_one() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = Port.free()
    port.close()
    assert port.number < lowest or lowest < 10_500


def test_an_address_that_is_not_ours_names_the_option() -> None:
    with pytest.raises(UnreachableError, match="--host"):
        Port.free("192.0.2.1")


def test_a_server_moves_when_a_stranger_took_its_port(tmp_path: Path) -> None:
    server = RedisServer(RedisRole.CACHE, tmp_path)
    taken = server.port.number
    with _listener(taken), server:
        assert server.port.number != taken
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


def test_a_server_never_takes_a_stranger_for_itself(tmp_path: Path) -> None:
    """Another Redis answers PONG on the very port: ours, which cannot listen, is not ready."""
    with RedisServer(RedisRole.CACHE, tmp_path / "stranger") as stranger:
        ours = RedisServer(RedisRole.CACHE, tmp_path / "ours", port=stranger.port)
        process = ours.launch()
        while process.exit_code is None:
            assert ours.is_ready(timeout_s=1)  # the stranger answers
            assert not ours.serves()
        assert not ours.serves()


def test_a_port_that_was_asked_for_is_not_exchanged(tmp_path: Path) -> None:
    number = Port.free()
    number.close()
    fixed = Port.at(number.number)
    assert fixed is not None
    server = RedisServer(RedisRole.CACHE, tmp_path, port=fixed)
    with _listener(fixed.number), pytest.raises(UnreachableError, match="ended at once"):
        server.start()
    assert server.process is None
    server.stop()
