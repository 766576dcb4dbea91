"""The ASGI application: one request in, one answer out, nothing leaked between."""

from collections import Counter, defaultdict
from collections.abc import MutableMapping
from time import perf_counter
from typing import Any

import structlog

from flashsale.buckets import LATENCY_S, Buckets
from flashsale.errors import Indeterminate, Unavailable
from flashsale.server.answers import BUSY, Header, Response, rejected
from flashsale.server.request import Receive, Refused, Request, Scope, Send
from flashsale.server.router import Router
from flashsale.settings import ReplicaSettings

_CLOSE: Header = (b"connection", b"close")
_INTERNAL = rejected("Internal error", 500)

log = structlog.get_logger(__name__)


class App:
    """A plain ASGI 3 application over a router."""

    def __init__(self, router: Router, settings: ReplicaSettings) -> None:
        self._router = router
        self._settings = settings
        self.in_flight = 0
        self.draining = False
        self.answers: Counter[tuple[str, int]] = Counter()  # by route and status
        self.durations_s: defaultdict[str, Buckets] = defaultdict(lambda: Buckets(LATENCY_S))

    def __repr__(self) -> str:
        return f"<App in_flight={self.in_flight} draining={self.draining}>"

    @property
    def routes(self) -> list[str]:
        """Every name of a route that an answer can be counted under."""
        return self._router.names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope, as ASGI asks."""
        if scope["type"] != "http":
            await _other(scope, receive, send)
            return
        began_s = perf_counter()
        self.in_flight += 1  # until the answer has left: a drain waits for it
        try:
            route, handler, tail = self._router.find(scope["method"], scope["path"])
            response = await self._respond(handler, tail, scope, receive)
            self.answers[route, response.status] += 1
            self.durations_s[route].add(perf_counter() - began_s)
            await self._send(response, send)
        finally:
            self.in_flight -= 1

    async def _send(self, response: Response, send: Send) -> None:
        headers = [*response.headers, _CLOSE] if self.draining else response.headers
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _respond(self, handler: Any, tail: str, scope: Scope, receive: Receive) -> Response:
        try:
            request = Request(scope, receive, self._settings)
            if isinstance(handler, Response):
                return handler
            response: Response = await handler(request, tail)
        except Refused as refused:
            return refused.response
        except (Unavailable, Indeterminate) as trouble:
            log.warning("unavailable", path=scope["path"], trouble=str(trouble))
            return BUSY
        except Exception:
            log.exception("internal error", path=scope["path"])
            return _INTERNAL
        return response


async def _other(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the server's lifespan events; replica.py opens and closes what the app uses."""
    if scope["type"] != "lifespan":
        raise NotImplementedError(f"no {scope['type']} here")
    while True:
        message: MutableMapping[str, Any] = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
