"""The bare answer: the replica's HTTP server with an application that only answers.

`python -m benchmarks.bare PORT` serves it until it is told to stop.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from flashsale.server.request import Receive, Scope, Send

_BODY = b'{"success":true,"data":515385561440059393}'
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"x-outcome", b"sold"),
    (b"x-order-id", b"515385561440059393"),
]


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request as a sold claim is answered."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


async def serve(port: int) -> None:
    """Serve on `port`, with the replica's server and its settings."""
    await Server(
        answer,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,
        log_level=LogLevels.error,
    ).serve()


@dataclass(frozen=True)
class BareServer:
    """The bare answer in a process of its own."""

    pid: int
    url: str


@contextmanager
def bare_server() -> Iterator[BareServer]:
    """Serve the bare answer on a free port for the time of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare", str(port)])
    try:
        _await_port(port)
        yield BareServer(process.pid, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


def _await_port(port: int) -> None:
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port}")


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
