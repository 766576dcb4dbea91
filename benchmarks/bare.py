"""The bare answer: the replica's HTTP server with an application that only answers.

`python -m benchmarks.bare PORT` serves it until it is told to stop.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvloop

from benchmarks.ports import await_port, free_port
from flashsale.server.http.server import Server, listen
from flashsale.server.request import Receive, Scope, Send
from flashsale.settings import ReplicaSettings

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
    await Server(answer, ReplicaSettings()).start(listen("127.0.0.1", port))
    await asyncio.Event().wait()


@dataclass(frozen=True)
class BareServer:
    """The bare answer in a process of its own."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def bare_server() -> Iterator[BareServer]:
    """Serve the bare answer on a free port for the time of the block."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare", str(port)])
    try:
        await_port(port)
        yield BareServer(process.pid, port)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
