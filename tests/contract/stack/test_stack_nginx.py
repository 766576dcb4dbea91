"""nginx as the stack runs it: what it sends on, what it never repeats, what it keeps to itself."""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil
import pytest
from rig.fake_replicas import FakeReplica
from rig.until import until

from flashsale.stack.nginx import AddressLimits, Balancing, NginxServer
from flashsale.stack.port import Port


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def _ask(
    server: NginxServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port.number, timeout=20)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    names = [name for name, _ in response.getheaders()]
    told = {name.lower(): ", ".join(response.headers.get_all(name, ())) for name in names}
    answer = Answer(response.status, told, response.read())
    connection.close()
    return answer


@pytest.fixture
def replica() -> Iterator[FakeReplica]:
    with FakeReplica() as fake:
        yield fake


@pytest.fixture
def nginx(tmp_path: Path, replica: FakeReplica) -> Iterator[NginxServer]:
    with NginxServer(tmp_path, Balancing(replica_ports=(replica.port,))) as server:
        yield server


@pytest.mark.parametrize(
    ("method", "received"), [("POST", 1), ("PUT", 1), ("DELETE", 1), ("PATCH", 1), ("GET", 2)]
)
@pytest.mark.parametrize("workers", [1, 2])
def test_only_a_read_is_sent_again_when_its_replica_breaks_off(
    tmp_path: Path, method: str, received: int, workers: int
) -> None:
    """A claim that a replica may have executed reaches no second one."""
    with FakeReplica("break off") as one, FakeReplica("break off") as two:
        balancing = Balancing(replica_ports=(one.port, two.port), workers=workers)
        with NginxServer(tmp_path, balancing) as server:
            answer = _ask(server, method, "/voucher-order/seckill/1")
        assert answer.status == 502
        assert len(one.requests + two.requests) == received


def test_a_stale_kept_connection_does_not_repeat_a_claim(
    tmp_path: Path, replica: FakeReplica
) -> None:
    with NginxServer(tmp_path, Balancing(replica_ports=(replica.port,))) as server:
        assert _ask(server, "POST", "/claim").status == 200
        replica.mode = "break off"
        assert _ask(server, "POST", "/claim").status == 502
    assert len(replica.requests) == 2


def test_a_dead_replica_costs_a_claim_nothing(tmp_path: Path, replica: FakeReplica) -> None:
    dead = Port.free()  # reserved: certainly nobody listens
    with NginxServer(tmp_path, Balancing(replica_ports=(dead.number, replica.port))) as server:
        statuses = [_ask(server, "POST", "/claim").status for _ in range(8)]
    dead.close()
    assert statuses == [200] * 8
    assert len(replica.requests) == 8


def test_replicas_are_asked_by_socket(tmp_path: Path) -> None:
    """Whatever is in its path; one that is not there, or that nobody listens on, costs nothing."""
    folder = tmp_path / 'a b"c\\d;$e'
    folder.mkdir()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "dead"))
    dead.close()
    places = [folder / name for name in ("dead", "absent", "up")]
    with FakeReplica(path=places[-1]) as up:
        balancing = Balancing(replica_sockets=places, access_log=True)
        with NginxServer(tmp_path / "nginx", balancing) as server:
            assert [_ask(server, "POST", "/claim").status for _ in range(8)] == [200] * 8
        assert len(up.requests) == 8
    told = [json.loads(li) for li in (tmp_path / "nginx/access.log").read_text().splitlines()]
    assert {line["upstream"].split(", ")[-1] for line in told} == {f"unix:{places[-1]}"}


def test_connections_to_replicas_are_kept(nginx: NginxServer, replica: FakeReplica) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port.number, timeout=20)
    for _ in range(1_100):  # beyond nginx's default of 1,000 requests per connection
        connection.request("POST", "/claim")
        connection.getresponse().read()
    connection.close()
    assert len(replica.requests) == 1_100
    assert replica.connections == 1


@pytest.mark.parametrize(
    "path", ["/metrics", "/readyz", "//metrics", "/%6detrics", "/x/../readyz", "/metrics?a=b"]
)
def test_a_replicas_own_affairs_are_not_shown(
    nginx: NginxServer, replica: FakeReplica, path: str
) -> None:
    answer = _ask(nginx, "GET", path)
    assert answer.status == 404
    assert answer.body == b'{"success":false,"errorMsg":"Not found"}'
    assert replica.requests == []


def test_health_is_shown(nginx: NginxServer) -> None:
    assert _ask(nginx, "GET", "/healthz").status == 200


@pytest.mark.parametrize(
    ("status", "path", "body", "headers"),
    [
        (413, "/claim", b"x" * 65_537, {}),
        (431, "/claim", None, {"h": "x" * 9_000}),
        (414, "/" + "x" * 9_000, None, {}),
        (400, "/claim", None, {"Host": "a b"}),
        (501, "/claim", None, {"Transfer-Encoding": "gzip"}),
    ],
)
def test_what_is_too_large_or_malformed_is_refused_in_the_envelope(
    nginx: NginxServer,
    replica: FakeReplica,
    status: int,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
) -> None:
    answer = _ask(nginx, "POST", path, body, **headers)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["server"] == "nginx"
    assert answer.body.startswith(b'{"success":false,"errorMsg":')
    assert replica.requests == []


def test_every_answer_is_nosniff_once_and_names_no_framework(nginx: NginxServer) -> None:
    for method, path in (("GET", "/page"), ("GET", "/personal"), ("POST", "/user/x/personal")):
        answer = _ask(nginx, method, path)
        assert (answer.status, answer.headers["x-content-type-options"]) == (200, "nosniff")
        assert answer.headers["server"] == "nginx"
    refused = _ask(nginx, "TRACE", "/page")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, POST, PUT")
    assert refused.headers["x-content-type-options"] == "nosniff"


def test_a_version_that_does_not_exist_is_refused_in_the_envelope(
    nginx: NginxServer, replica: FakeReplica
) -> None:
    with socket.create_connection(("127.0.0.1", nginx.port.number), 5) as connection:
        connection.sendall(b"POST /claim HTTP/3.0\r\nHost: sale\r\n\r\n")
        with connection.makefile("rb") as answer:
            text = answer.read()
    assert text.startswith(b"HTTP/1.1 505 ")
    assert text.endswith(b'{"success":false,"errorMsg":"HTTP version not supported"}')
    assert replica.requests == []


def test_its_counters_are_on_a_port_of_their_own(nginx: NginxServer) -> None:
    port = urlsplit(nginx.status_url).port
    assert port != nginx.port.number
    before = _counters(nginx)
    assert _ask(nginx, "POST", "/claim").status == 200
    assert _counters(nginx) == before + 2  # that one, and the question itself
    assert _ask(nginx, "GET", "/stub_status").body == b'{"success":true}', "a replica's answer"


def _counters(nginx: NginxServer) -> int:
    """How many requests nginx has had, in its own words."""
    address = urlsplit(nginx.status_url)
    connection = http.client.HTTPConnection(address.netloc, timeout=5)
    connection.request("GET", address.path)
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    assert lines[1].split() == ["server", "accepts", "handled", "requests"]
    return int(lines[2].split()[2])


def test_one_address_gets_its_share_and_no_more(tmp_path: Path, replica: FakeReplica) -> None:
    limits = AddressLimits(requests_per_s=1, requests_burst=4, connections=50)
    balancing = Balancing(replica_ports=(replica.port,), limits=limits)
    with NginxServer(tmp_path, balancing) as server:
        answers = [_ask(server, "POST", "/claim") for _ in range(12)]
    refused = [answer for answer in answers if answer.status == 429]
    assert {answer.status for answer in answers} == {200, 429}
    assert len(replica.requests) == len(answers) - len(refused) <= 7  # five, a second or two
    for answer in refused:
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/json"
        assert answer.body.startswith(b'{"success":false,"errorMsg":"Too many requests')


def test_one_address_opens_so_many_connections(tmp_path: Path, replica: FakeReplica) -> None:
    limits = AddressLimits(requests_per_s=10_000, requests_burst=10_000, connections=1)
    balancing = Balancing(replica_ports=(replica.port,), limits=limits)
    with NginxServer(tmp_path, balancing) as server:
        with socket.create_connection(("127.0.0.1", server.port.number), 5) as busy:
            busy.sendall(b"POST /claim HTTP/1.1\r\nHost: sale\r\nContent-Length: 9\r\n\r\nhalf")
            until(lambda: _ask(server, "GET", "/page").status == 429)
        until(lambda: _ask(server, "GET", "/page").status == 200)


def test_an_exempt_address_may_storm(tmp_path: Path, replica: FakeReplica) -> None:
    limits = AddressLimits(1, 1, 1, exempt=("127.0.0.0/8",))
    balancing = Balancing(replica_ports=(replica.port,), limits=limits)
    with NginxServer(tmp_path, balancing) as server:
        assert {_ask(server, "POST", "/claim").status for _ in range(20)} == {200}


def test_the_access_log_tells_the_order_and_how_long_it_took(
    tmp_path: Path, replica: FakeReplica
) -> None:
    balancing = Balancing(replica_ports=(replica.port,), access_log=True)
    with NginxServer(tmp_path, balancing) as server:
        _ask(server, "POST", "/order?phone=13800000000")
        _ask(server, "POST", "/claim", b"x" * 65_537)
        with socket.create_connection(("127.0.0.1", server.port.number), 5) as connection:
            connection.sendall(b'GET /"\x01 HTTP/1.1\r\n\r\n')
            connection.recv(1_024)
    text = (tmp_path / "access.log").read_text()  # what was buffered is written at the end
    told = [json.loads(line) for line in text.splitlines()]
    claim = next(request for request in told if request["path"] == "/order")
    assert (claim["status"], claim["upstream_status"]) == (200, "200")
    assert (claim["outcome"], claim["order"]) == ("sold", "515385561440059393")
    assert claim["upstream"] == f"127.0.0.1:{replica.port}"
    assert 0 <= float(claim["upstream_s"]) < 20  # each of the two is rounded by itself
    assert 0 <= claim["request_s"] < 20
    assert {request["status"] for request in told} >= {200, 413, 400}
    assert "13800000000" not in text


@pytest.fixture(scope="module", params=[False, True], ids=["no access log", "access log"])
def broken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[NginxServer, Path]]:
    """An nginx one of whose replicas is dead and the other breaks off, and where it tells that."""
    dead, folder = Port.free(), tmp_path_factory.mktemp("broken")
    with FakeReplica("break off") as replica:
        balancing = Balancing(replica_ports=(dead.number, replica.port), access_log=request.param)
        with NginxServer(folder, balancing) as server:
            yield server, folder / ("access.log" if request.param else "nginx.log")
    dead.close()


PHONE_PATHS = [
    *("/claim?", "/claim;", "/imgs/blogs/1/a.png?", "/user/?", "/user?", "/User/code?"),
    *("/user/code?", "//user/code?", "/x/../user/code?", "/user/%63ode?", "/user%2Fcode?"),
    *("/user/code%3F", "/user/code%3f", "/user/code;"),
]
REFERER = {"Referer": "http://127.0.0.1/login.html?phone=13800000000"}


def test_no_log_tells_a_phone(broken: tuple[NginxServer, Path]) -> None:
    """Neither where replicas break off, nor where none is left, nor where the body is too large."""
    server, log = broken
    for method, path in product(("POST", "GET", "PUT", "DELETE"), PHONE_PATHS):
        _ask(server, method, f"{path}phone=13800000000")
        _ask(server, method, f"{path}phone=13800000000", b"x" * 65_537, **REFERER)
        _ask(server, method, "/claim", **REFERER)
    assert _ask(server, "POST", "/last").status == 502
    until(lambda: '"path":"/last","status":502' in log.read_text())
    assert '"upstream_status":"502' in log.read_text(), "what goes wrong is told"
    told = "".join(it.read_text() for it in log.parent.glob("*.log"))
    assert [line for line in told.splitlines() if "13800000000" in line] == []


def test_a_body_of_the_greatest_length_passes(nginx: NginxServer) -> None:
    assert _ask(nginx, "POST", "/claim", b"x" * 65_536).status == 200


def test_pages_are_compressed_and_claims_are_not(nginx: NginxServer) -> None:
    page = _ask(nginx, "GET", "/page", **{"Accept-Encoding": "gzip"})
    claim = _ask(nginx, "POST", "/claim", **{"Accept-Encoding": "gzip"})
    assert page.headers["content-encoding"] == "gzip"
    assert len(page.body) < 500
    assert "content-encoding" not in claim.headers


def test_its_version_is_its_own_affair(nginx: NginxServer) -> None:
    assert _ask(nginx, "GET", "/healthz").headers["server"] == "nginx"


def test_its_workers_end_with_it(tmp_path: Path, replica: FakeReplica) -> None:
    server = NginxServer(tmp_path, Balancing(replica_ports=(replica.port,), workers=2)).start()
    assert server.process
    workers = psutil.Process(server.process.pid).children()
    server.process.kill()  # SIGKILL of the master alone would leave them behind
    gone, alive = psutil.wait_procs(workers, timeout=5)
    server.stop()
    assert len(gone) == 2
    assert alive == []


def test_without_a_healthy_replica_it_is_alive_and_not_ready(
    nginx: NginxServer, replica: FakeReplica
) -> None:
    replica.__exit__(None, None, None)
    assert not nginx.is_ready(timeout_s=5)
    assert nginx.is_alive(timeout_s=5)


CHECK = """\
import sys
from pathlib import Path
from flashsale.stack.nginx import Balancing, NginxServer
server = NginxServer(Path(sys.argv[1]), Balancing(replica_ports=(1,), access_log=True))
server.check()
server.stop()
"""


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("name", ["größe ☃".encode(), b"\xff\xfe"])
def test_its_folder_may_have_any_name_in_any_locale(
    tmp_path: Path, locale: str, name: bytes
) -> None:
    folder = os.fsencode(tmp_path) + b"/" + name
    plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, folder],
        env=os.environ | plain,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert folder in Path(os.fsdecode(folder), "nginx.conf").read_bytes()
