import socket
from typing import Any

import pytest

from flashsale.errors import UnreachableError, UsageError
from flashsale.scenario.target import Routes, Target


def test_a_claim_is_one_request_with_nothing_to_spare() -> None:
    target = Target.at("http://127.0.0.1:8080/")
    assert target.claims([(7, "abc"), (8, "def")])[0] == (
        b"POST /voucher-order/seckill/7 HTTP/1.1\r\n"
        b"host: 127.0.0.1:8080\r\nauthorization: abc\r\ncontent-length: 0\r\n\r\n"
    )
    assert (target.address, target.port, target.base_url) == (
        "127.0.0.1",
        8080,
        "http://127.0.0.1:8080",
    )


def test_a_base_url_may_have_a_path_and_no_port() -> None:
    target = Target.at("http://127.0.0.1/api/")
    (claim,) = target.claims([(7, "abc")])
    assert claim.startswith(b"POST /api/voucher-order/seckill/7 HTTP/1.1\r\n")
    assert target.port == 80


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080",
        "https://",
        "unix:",
        "unix:relative",
        "ftp://x",
        "http://",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "http://127.0.0.1/?a=b",
        "http://127.0.0.1/#a",
        "http://user:secret@127.0.0.1",
        "http://[::1",
        "http://bücher.example",
        "http://127.0.0.1/a b",
        "",
    ],
)
def test_what_is_no_http_url_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(UsageError, match=r"--base-url: found .*, expected http://host:port"):
        Target.at(url)


def test_an_unknown_host_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UnreachableError, match="no such host"):
        Target.at("http://no-such-host.invalid:8080")


def test_localhost_is_loopback_without_a_hosts_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def knows_nothing(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", knows_nothing)
    assert Target.at("https://localhost:8443").addresses == ("127.0.0.1", "::1")
    with pytest.raises(UnreachableError, match="no such host"):
        Target.at("https://localhost.example:8443")


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[Any, ...]) -> None:
    """The resolver says that every name has these socket addresses."""
    found = [(0, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)


def test_a_name_has_all_its_addresses_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ("fd00::7", 80, 0, 0), ("10.0.0.7", 80), ("10.0.0.7", 80))
    target = Target.at("http://shop.test/api")
    assert target.addresses == ("fd00::7", "10.0.0.7")
    assert (target.address, target.origin) == ("fd00::7", "http://[fd00::7]:80/api")
    other = target.at_address("10.0.0.7")
    assert (other.origin, other.base_url) == ("http://10.0.0.7:80/api", "http://shop.test/api")
    assert other.shown == "http://shop.test/api (10.0.0.7)"
    assert b"host: shop.test\r\n" in other.claim(1, "abc")


@pytest.mark.parametrize("zone", ["%eth0", "%25eth0"])
def test_a_link_local_address_keeps_its_scope_and_names_none_to_the_server(
    monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    asked: list[object] = []

    def resolve(host: str, port: int, **_kwargs: object) -> list[Any]:
        asked.append(host)
        return [(0, 0, 0, "", ("fe80::1", port, 0, 2))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    target = Target.at(f"http://[fe80::1{zone}]:8080")
    assert asked == ["fe80::1%eth0"]
    assert (target.address, target.origin) == ("fe80::1%2", "http://[fe80::1%2]:8080")
    assert target.authority == "[fe80::1]:8080"
    assert target.shown == target.base_url


@pytest.mark.parametrize("path", ["health", "/a b", "/a\r\nx: y", "http://x/", "/#a", "/\u00fc"])
def test_what_is_no_route_is_refused_in_one_line(path: str) -> None:
    with pytest.raises(ValueError, match=r"target: found .*, expected a path such as '/health'"):
        Routes(health=path)


def test_routes_can_be_set_and_switched_off() -> None:
    assert Routes().status == "/voucher-order/seckill/{voucher}"
    routes = Routes(health="", session="/me?full=1", status="/orders/of/{voucher}")
    assert (routes.health, routes.session) == ("", "/me?full=1")
    assert routes.status == "/orders/of/{voucher}"
