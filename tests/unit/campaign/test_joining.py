"""A shard and what it takes for a rendezvous: an answer that is none ends it with one line."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest
from rig.hostile_server import answering, http
from rig.until import until

from flashsale.campaign.campaign import SILENT
from flashsale.campaign.joining import Presence, RendezvousClient, ShardRequest, storm_as_shard
from flashsale.errors import UnreachableError, UsageError
from flashsale.settings import RendezvousSettings
from flashsale.storm.attack.attack import Progress
from flashsale.storm.crew.shard import Shard

NOTHING_YET = Progress(0.0, 0, 0, 0, {})
SETTINGS = RendezvousSettings(silence_s=1, gather_timeout_s=1)
NO_RENDEZVOUS = [
    b"<html>hello</html>",
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"files":{},"name":1,"plan_hash":null,"base_url":[],"units":{"a":"b"}}',
    b'{"instant_us":1e400,"stop":null,"clock_us":"now"}',
    b"[" * 1_010 + b"]" * 1_010,
    b"[" * 30_000,
]


@pytest.fixture
def join(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    monkeypatch.setenv("FLASHSALE_RENDEZVOUS_GATHER_TIMEOUT_S", "1")
    monkeypatch.setenv("FLASHSALE_RENDEZVOUS_SILENCE_S", "1")
    return lambda url: storm_as_shard(Shard(1, 2), url, ShardRequest(), None, SILENT)


@pytest.mark.parametrize("status", ["200 OK", "409 Conflict", "404 Not Found"])
@pytest.mark.parametrize("body", NO_RENDEZVOUS)
def test_who_is_no_rendezvous_is_told(
    join: Callable[[str], object], status: str, body: bytes
) -> None:
    with answering(http(status, body)) as url, pytest.raises(UsageError, match="rendezvous"):
        join(url)


def test_who_asks_where_nobody_is_says_so_and_for_how_long(
    join: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(SILENT, "say", said.append)
    with pytest.raises(UnreachableError, match="GATHER_TIMEOUT_S is how long it is asked again"):
        join("http://127.0.0.1:1")
    assert said == ["shard 1/2, asks for a rendezvous at http://127.0.0.1:1, 1 s at most"]


def test_an_answer_without_an_end_is_read_no_further(join: Callable[[str], object]) -> None:
    with (
        answering(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1_000_000) as url,
        pytest.raises(UnreachableError, match="without an end"),
    ):
        join(url)


@pytest.mark.parametrize("url", ["http://[x", "http://h:99999", "http://h:x", "ftp://h", "http://"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(UsageError, match="--rendezvous: found"):
        RendezvousClient(url, SETTINGS)


@pytest.mark.parametrize("body", NO_RENDEZVOUS)
def test_a_rendezvous_that_says_something_else_later_is_not_waited_for(body: bytes) -> None:
    """Whoever waits for the instant is told, whatever the thread that reports ends of."""
    with answering(http("200 OK", body)) as url, RendezvousClient(url, SETTINGS) as link:
        presence = Presence(link, "ticket", "shard", "hash")
        presence._thread.start()
        try:
            until(lambda: presence.look(NOTHING_YET))
        finally:
            presence.end()


def test_a_report_is_read() -> None:
    told = {"instant_us": None, "stop": "enough", "clock_us": 5}
    with (
        answering(http("200 OK", orjson.dumps(told))) as url,
        RendezvousClient(url, SETTINGS) as link,
    ):
        presence = Presence(link, "ticket", "shard", "hash")
        presence.start()
        presence.end()
        assert presence.look(NOTHING_YET)


def test_one_connection_serves_every_call_of_a_thread() -> None:
    """Who opens another for each may find none any more where the last answer is on its way."""
    came: list[tuple[str, int]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            came.append(self.client_address)
            self.send_response(200)
            self.send_header("content-length", "4")
            self.end_headers()
            self.wfile.write(b"done")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with RendezvousClient(f"http://127.0.0.1:{server.server_port}", SETTINGS) as link:
            assert [link.call("/state"), link.call("/state")] == [b"done", b"done"]
        server.shutdown()
    assert len(came) == 2
    assert came[0] == came[1]
