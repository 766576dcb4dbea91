import socket

import pytest

from flashsale.errors import UnreachableError, UsageError
from flashsale.scenario.target import Target


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
        "https://127.0.0.1",
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
