"""Whose request it is: headers count from trusted peers alone."""

from typing import Any

import pytest

from flashsale.errors import UsageError
from flashsale.server.caller import ClientAddresses, parse_networks


def scope(peer: str | None, **headers: str) -> dict[str, Any]:
    pairs = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
    return {"client": None if peer is None else (peer, 1), "headers": pairs}


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("203.0.113.7", {}, "203.0.113.7"),
        ("127.0.0.1", {}, "127.0.0.1"),
        ("127.0.0.1", {"x_real_ip": "203.0.113.7"}, "203.0.113.7"),
        ("::1", {"x_real_ip": "2001:db8::7"}, "2001:db8::7"),
        ("::ffff:127.0.0.1", {"x_real_ip": "::ffff:203.0.113.7"}, "203.0.113.7"),
        # A stranger says what it likes, and is not believed.
        ("198.51.100.9", {"x_real_ip": "203.0.113.7"}, "198.51.100.9"),
        ("198.51.100.9", {"x_forwarded_for": "203.0.113.7"}, "198.51.100.9"),
        # Our nginx overwrites X-Real-IP and passes on what a client claims beside it.
        (
            "127.0.0.1",
            {"x_forwarded_for": "192.0.2.1", "x_real_ip": "203.0.113.7"},
            "203.0.113.7",
        ),
        # Of a chain, the last that is not ours.
        ("127.0.0.1", {"x_forwarded_for": "192.0.2.1, 203.0.113.7"}, "203.0.113.7"),
        ("127.0.0.1", {"x_forwarded_for": "192.0.2.1, 203.0.113.7, 10.1.2.3"}, "203.0.113.7"),
        ("10.1.2.3", {"x_forwarded_for": "203.0.113.7"}, "203.0.113.7"),
        ("10.1.2.3", {"x_forwarded_for": "10.9.9.9"}, "10.1.2.3"),
        ("127.0.0.1", {"x_real_ip": "no address"}, "127.0.0.1"),
        ("127.0.0.1", {"x_forwarded_for": "203.0.113.7, no address"}, "127.0.0.1"),
        (None, {"x_real_ip": "203.0.113.7"}, "unknown"),
        ("a unix socket", {}, "unknown"),
    ],
)
def test_the_address_behind_a_request(
    peer: str | None, headers: dict[str, str], address: str
) -> None:
    addresses = ClientAddresses(parse_networks("10.0.0.0/8"))
    assert addresses.of(scope(peer, **headers)) == address


def test_whoever_comes_by_a_socket_of_ours_is_believed() -> None:
    addresses = ClientAddresses(trusts_socket=True)
    assert addresses.of(scope(None, x_real_ip="203.0.113.7")) == "203.0.113.7"
    assert addresses.of(scope(None)) == "unknown"
    assert addresses.of(scope("198.51.100.9", x_real_ip="203.0.113.7")) == "198.51.100.9"


def test_networks_by_comma() -> None:
    assert [str(n) for n in parse_networks(" 10.0.0.0/8 ,2001:db8::/32,")] == [
        "10.0.0.0/8",
        "2001:db8::/32",
    ]
    assert parse_networks("") == []


@pytest.mark.parametrize("text", ["10.0.0.1/8", "everybody", "10.0.0.0/33"])
def test_no_network_names_the_setting(text: str) -> None:
    with pytest.raises(UsageError, match="FLASHSALE_REPLICA_TRUSTED_PROXIES"):
        parse_networks(text)
