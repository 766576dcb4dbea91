"""One ASGI application behind each of three servers: the replica's own, granian, uvicorn.

`python -m rig.http_servers ours PORT` serves it until it is told to stop.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from flashsale.server.app import App, Router
from flashsale.server.http.server import Server, listen
from flashsale.server.replica import Replica
from flashsale.server.request import Request
from flashsale.server.response import Response, ok
from flashsale.settings import ReplicaSettings, StoreSettings
from flashsale.stack.port import Port
from flashsale.stack.process import tether
from rig.child import START_TIMEOUT_S, answers
from rig.until import until

SERVERS = ("ours", "granian", "uvicorn")
IMPATIENT = ReplicaSettings(header_timeout_ms=1_000, body_timeout_ms=1_000)


async def _get(request: Request, segment: str) -> Response:
    return ok(request.path)


async def _post(request: Request, segment: str) -> Response:
    return ok(len(await request.body()))


async def _slow(request: Request, segment: str) -> Response:
    await asyncio.sleep(int(segment) / 1000)
    return ok(segment)


async def _big(request: Request, segment: str) -> Response:
    return ok("x" * int(segment))


def application() -> App:
    """Answers to a GET, to a POST that is read or not, late, and at length."""
    router = Router()
    router.add("GET", "/get", _get)
    router.add("HEAD", "/get", _get)
    router.add("GET", "/probe", _get)
    router.add("GET", "/hidden", _get)
    router.add("POST", "/post", _post)
    router.add("POST", "/unread", _get)
    router.add("GET", "/slow/{ms}", _slow)
    router.add("GET", "/big/{bytes}", _big)
    return App(router, IMPATIENT)


async def sale() -> App:
    """A replica's, on the stores that the environment names."""
    replica = Replica("r1", 1, StoreSettings.load(), ReplicaSettings.load())
    await replica._sync_clock()
    replica.start_duties()
    return replica.app


@contextmanager
def http_server(name: str, what: str = "application", **env: str) -> Iterator[int]:
    """The application, or the sale, behind that server, in a process of its own; the port."""
    port = Port.free()
    environment = {**os.environ, **env, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "rig.http_servers", name, str(port.number), what],
        env=environment,
        cwd=Path(__file__).parents[1],
        preexec_fn=tether(),
    )
    try:
        until(lambda: answers(port.number) or process.poll() is not None, START_TIMEOUT_S)
        yield port.number
        assert process.poll() is None, f"{name} has ended"
    finally:
        process.kill()
        process.wait(10)
        port.close()


async def _ours(app: App, port: int) -> None:
    await Server(app, IMPATIENT).start(listen("127.0.0.1", port))
    await asyncio.Event().wait()


async def _granian(app: App, port: int) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.server.embed import Server as Embedded

    await Embedded(
        app,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        http1_settings=HTTP1Settings(
            header_read_timeout=IMPATIENT.header_timeout_ms,
            max_buffer_size=2 * IMPATIENT.header_bytes_max,
        ),
        log_level=LogLevels.critical,
    ).serve()


async def _uvicorn(app: App, port: int) -> None:
    from uvicorn import Config
    from uvicorn import Server as Uvicorn

    await Uvicorn(Config(app, port=port, http="httptools", ws="none", log_level="critical")).serve()


async def _serve(name: str, port: int, what: str) -> None:
    serve = {"ours": _ours, "granian": _granian, "uvicorn": _uvicorn}[name]
    await serve(await sale() if what == "sale" else application(), port)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
