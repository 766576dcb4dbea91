"""The ASGI application: one request in, one answer out, nothing leaked between.

The router finds a handler by at most three look-ups in dictionaries, however many routes there are.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, MutableMapping
from functools import lru_cache
from time import perf_counter
from typing import Any

import structlog

from flashsale.errors import Indeterminate, Unavailable
from flashsale.server.http.exchange import ANSWER
from flashsale.server.openapi import Guarded, Handler, Route
from flashsale.server.request import Receive, Refused, Request, Scope, Send
from flashsale.server.response import (
    BUSY,
    NOT_FOUND,
    Header,
    Response,
    as_family,
    method_not_allowed,
    rejected,
)
from flashsale.settings import ReplicaSettings
from flashsale.telemetry import LATENCY_S, Buckets

log = structlog.get_logger(__name__)

Methods = dict[str, tuple[str, Handler]]

UNKNOWN = "unknown"
"""The name of the route of every request that has none."""

_PATHS_MAX = 1_024  # that are remembered: a sale has few, asked often
_CLOSE: Header = (b"connection", b"close")
_INTERNAL = rejected("Internal error", 500)


class Router:
    """Routes without an id, with one at the end, and with one before a last word.

    `GET /healthz`, `POST /voucher-order/seckill/{id}`, `POST /voucher-order/{id}/pay`. What is
    spelled out wins over what is an id.
    """

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self._exact: dict[str, Methods] = {}
        self._by_head: dict[str, Methods] = {}
        self._by_head_and_word: dict[tuple[str, str], Methods] = {}
        self.find = lru_cache(maxsize=_PATHS_MAX)(self._find)
        """The route's name, its handler (or the 404 or 405 in its place) and the id's segment."""

    def __repr__(self) -> str:
        return f"<Router {sorted({route.pattern for route in self.routes})}>"

    @property
    def names(self) -> list[str]:
        """The names of all routes, `GET /healthz` and so on, and UNKNOWN."""
        return [*dict.fromkeys(route.name for route in self.routes), UNKNOWN]

    def add(self, method: str, pattern: str, handler: Handler | Guarded) -> Route:
        """Route `method`, and HEAD where that is GET, on `pattern`, whose last or last but one
        segment may be a `{name}`. What else is to be said of the route is said to the answer."""
        route = Route(method, pattern, handler)
        self.routes.append(route)
        self.find.cache_clear()
        head, _, last = pattern.rpartition("/")
        stem, _, inner = head.rpartition("/")
        if last.startswith("{"):
            methods = self._by_head.setdefault(head, {})
        elif inner.startswith("{"):
            methods = self._by_head_and_word.setdefault((stem, last), {})
        else:
            methods = self._exact.setdefault(pattern, {})
        methods[method] = (route.name, route.handler)
        if method == "GET":
            methods["HEAD"] = methods[method]
        return route

    def only(self, patterns: Collection[str]) -> "Router":
        """These routes alone."""
        part = Router()
        for route in self.routes:
            if route.pattern in patterns:
                part.add(route.method, route.pattern, route.handler)
        return part

    def _find(self, method: str, path: str) -> tuple[str, Handler | Response, str]:
        methods = self._exact.get(path)
        segment = ""
        if methods is None:
            head, _, segment = path.rpartition("/")
            methods = self._by_head.get(head)
            if methods is None:
                word = segment
                stem, _, segment = head.rpartition("/")
                methods = self._by_head_and_word.get((stem, word))
        if methods is None:
            return UNKNOWN, NOT_FOUND, segment
        route = methods.get(method)
        if route is None:
            return UNKNOWN, method_not_allowed(*methods), segment
        return (*route, segment)


class App:
    """A plain ASGI 3 application over a router. Who comes by an address finds `by_address` alone,
    where that is given: it knows nobody's name, and a Unix socket is open to one user."""

    def __init__(self, router: Router, settings: ReplicaSettings) -> None:
        self._router = router
        self.by_address: Router | None = None
        self._settings = settings
        self._answers_as_family = settings.family_answers
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
            router = self._router
            if self.by_address is not None and scope["client"] is not None:
                router = self.by_address
            route, handler, tail = router.find(scope["method"], scope["path"])
            try:
                request = Request(scope, receive, self._settings)
                response = handler
                if not isinstance(response, Response):
                    response = await response(request, tail)
            except Exception as trouble:  # noqa: BLE001 - nobody waits for an answer in vain
                response = _in_its_place(trouble, scope["path"])
            if self._answers_as_family and response is not handler:
                response = as_family(response)
            self.answers[route, response.status] += 1
            self.durations_s[route].add(perf_counter() - began_s)
            if ANSWER in scope:  # of our own server, which says by itself when it drains
                scope[ANSWER].answer(response)
                return
            headers = [*response.headers, _CLOSE] if self.draining else response.headers
            body = b"" if scope["method"] == "HEAD" else response.body
            start = {"type": "http.response.start", "status": response.status}
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        finally:
            self.in_flight -= 1


def _in_its_place(trouble: Exception, path: str) -> Response:
    """The answer in the place of the one that was not made."""
    if isinstance(trouble, Refused):
        return trouble.response
    if isinstance(trouble, (Unavailable, Indeterminate)):
        log.warning("unavailable", path=path, trouble=str(trouble))
        return BUSY
    log.error("internal error", path=path, exc_info=trouble)
    return _INTERNAL


async def _other(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the server's lifespan events; replica.py opens and closes what the app uses."""
    if scope["type"] != "lifespan":
        raise NotImplementedError(f"no {scope['type']} here")
    while True:
        message: MutableMapping[str, Any] = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
