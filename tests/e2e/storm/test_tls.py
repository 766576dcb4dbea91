"""Storms through TLS and over a Unix socket: who is believed, who shows what, what is counted."""

import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig.private_ca import Certified, certify
from rig.shop_server import Asked, Reply, ShopServer

from flashsale.campaign.campaign import StormRun, Teller
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.errors import UnreachableError, UsageError
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Target, Tls

SALE = """\
# Is it sold over TLS?
schema = 1
name = "tls"
[sale]
units = 8
[load]
model = "stampede"
users = 8
connections = 8
[target]
health = "/up"
[target.buy]
path = "/buy/{user}"
order = "/id"
outcomes = [{ status = 201, outcome = "sold" }, { outcome = "sold_out" }]
"""


def answer(asked: Asked) -> Reply:
    if asked.method == "GET":
        return Reply(200 if asked.path == "/up" else 404)
    return Reply(201, {"id": asked.path.rpartition("/")[2]})


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certify(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def context(certified: Certified) -> ssl.SSLContext:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certified.certificate, certified.key)
    served.set_alpn_protocols(["http/1.1"])
    return served


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A short one: the path of a socket has few bytes."""
    with tempfile.TemporaryDirectory(prefix="flashsale-") as folder:
        yield Path(folder)


class Lines(Teller):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def stormed(
    shop: ShopServer,
    out: Path,
    tls: Tls | None = None,
    base_url: str = "",
    processes: int = 1,
    text: str = SALE,
) -> tuple[StormRun, list[str]]:
    told = Lines()
    request = StormRequest(
        scenario=parse_scenario(text, "tls.toml"),
        base_url=base_url or shop.base_url,
        out=out,
        calibrate=False,
        tls=tls,
        processes=processes,
    )
    return run_storm(request, told), told.lines


@pytest.mark.parametrize("processes", [1, 2])
def test_a_storm_through_tls_sells_and_counts_the_handshake(
    certified: Certified, context: ssl.SSLContext, tmp_path: Path, processes: int
) -> None:
    with ShopServer(answer, tls=context).open() as shop:
        tls = Tls(ca=str(certified.ca))
        run, lines = stormed(shop, tmp_path / "run", tls, processes=processes)
    assert run.summary.endpoints["buy"].outcomes == {"sold": 8}
    connect = run.summary.generator.connect_ms
    assert connect.count == 8
    assert connect.max is not None
    assert not any("--insecure" in line for line in lines)


@pytest.mark.parametrize("text", [SALE, SALE.replace('health = "/up"\n', "")], ids=["asked", "not"])
def test_a_certificate_of_nobody_known_is_refused_with_the_cure(
    context: ssl.SSLContext, tmp_path: Path, text: str
) -> None:
    with (
        ShopServer(answer, tls=context).open() as shop,
        pytest.raises(UnreachableError, match=r"give the authority of its certificate with --ca"),
    ):
        stormed(shop, tmp_path / "run", text=text)


def test_insecure_is_said_aloud_and_the_name_is_asked_for(
    context: ssl.SSLContext, tmp_path: Path
) -> None:
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)  # type: ignore[assignment]
    with ShopServer(answer, tls=context).open() as shop:
        at = shop.base_url.replace("127.0.0.1", "localhost")
        run, lines = stormed(shop, tmp_path / "run", Tls(insecure=True), at)
    assert run.summary.endpoints["buy"].outcomes == {"sold": 8}
    assert set(names) == {"localhost"}
    assert [line for line in lines if line.startswith("--insecure: who answers at https://local")]


def test_a_name_is_asked_for_and_an_address_is_not(context: ssl.SSLContext, tmp_path: Path) -> None:
    """SNI (RFC 6066) has names alone, by the storm and by what is asked before it."""
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)  # type: ignore[assignment]
    with ShopServer(answer, tls=context).open() as shop:
        for host, asked_for in (("localhost", "localhost"), ("127.0.0.1", None)):
            names.clear()
            at = shop.base_url.replace("127.0.0.1", host)
            stormed(shop, tmp_path / host, Tls(insecure=True), at)
            assert len(names) > 8, "each connection of the storm, and the question after health"
            assert set(names) == {asked_for}


def test_http_1_1_is_agreed_on_with_a_server_that_would_rather_speak_2(
    context: ssl.SSLContext, certified: Certified, tmp_path: Path
) -> None:
    context.set_alpn_protocols(["h2", "http/1.1"])
    with ShopServer(answer, tls=context).open() as shop:
        run, _ = stormed(shop, tmp_path / "run", Tls(ca=str(certified.ca)))
    assert run.summary.endpoints["buy"].outcomes == {"sold": 8}
    assert shop.spoken.count("http/1.1") == len(shop.spoken) > 8


def test_a_slow_handshake_is_time_to_connect_and_none_of_the_response(
    context: ssl.SSLContext, certified: Certified, tmp_path: Path
) -> None:
    def slowly(*_: object) -> None:
        time.sleep(0.25)

    context.sni_callback = slowly
    with ShopServer(answer, tls=context).open() as shop:
        run, _ = stormed(shop, tmp_path / "run", Tls(ca=str(certified.ca)))
    connect = run.summary.generator.connect_ms
    assert connect.mean is not None
    assert connect.mean >= 250
    service = run.summary.endpoints["buy"].service
    assert service.count == 8
    assert service.mean is not None
    assert service.mean < connect.mean, "connections stand before the barrier"


def test_a_client_shows_its_certificate(
    certified: Certified, context: ssl.SSLContext, tmp_path: Path
) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certified.ca)
    shown = Tls(str(certified.ca), str(certified.certificate), str(certified.key))
    with ShopServer(answer, tls=context).open() as shop:
        run, _ = stormed(shop, tmp_path / "run", shown)
        with pytest.raises(UnreachableError):
            stormed(shop, tmp_path / "other", Tls(str(certified.ca)))
    assert run.summary.endpoints["buy"].outcomes == {"sold": 8}


def test_a_unix_socket_is_a_target(socket_folder: Path, tmp_path: Path) -> None:
    with ShopServer(answer, at=socket_folder / "shop.sock").open() as shop:
        assert shop.base_url.startswith("unix:/")
        run, _ = stormed(shop, tmp_path / "run")
        plain, _ = stormed(shop, tmp_path / "plain", text=SALE.replace('health = "/up"\n', ""))
    assert run.summary.endpoints["buy"].outcomes == {"sold": 8}
    assert plain.summary.endpoints["buy"].outcomes == {"sold": 8}
    assert {asked.headers["host"] for asked in shop.asked} == {"localhost"}
    with pytest.raises(UnreachableError, match="nothing answers at unix:"):
        stormed(shop, tmp_path / "gone")


def test_a_file_that_is_no_certificate_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(UsageError, match=r"--ca, --cert, --key: cannot use .*no\.pem"):
        Tls(ca=str(tmp_path / "no.pem")).context()


def test_ports_and_places() -> None:
    assert Target.at("https://127.0.0.1/api").port == 443
    assert Target.at("https://127.0.0.1/api").origin == "https://127.0.0.1:443/api"
    assert Target.at("unix:/run/shop.sock").socket == "/run/shop.sock"
    assert Target.at("http://127.0.0.1").way is None
