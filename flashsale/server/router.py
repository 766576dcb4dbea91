"""Paths to handlers: exact ones and those that end in one id, each found in one look-up."""

from collections.abc import Awaitable, Callable

from flashsale.server.answers import NOT_FOUND, Response, method_not_allowed
from flashsale.server.request import Request

Handler = Callable[[Request, str], Awaitable[Response]]


class Router:
    """Routes such as `GET /healthz` and `POST /voucher-order/seckill/{id}`."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, tuple[str, Handler]]] = {}
        self._prefix: dict[str, dict[str, tuple[str, Handler]]] = {}

    def __repr__(self) -> str:
        return f"<Router {sorted([*self._exact, *(p + '/{id}' for p in self._prefix)])}>"

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Route `method` on `pattern`, which may end in `/{name}`."""
        head, _, tail = pattern.rpartition("/")
        table, key = (self._prefix, head) if tail.startswith("{") else (self._exact, pattern)
        table.setdefault(key, {})[method] = (f"{method} {pattern}", handler)

    def find(self, method: str, path: str) -> tuple[str, Handler | Response, str]:
        """The route's name, its handler (or the 404 or 405 in its place) and the last segment."""
        methods = self._exact.get(path)
        tail = ""
        if methods is None:
            head, _, tail = path.rpartition("/")
            methods = self._prefix.get(head)
        if methods is None:
            return "unknown", NOT_FOUND, tail
        route = methods.get(method)
        if route is None:
            return "unknown", method_not_allowed(*methods), tail
        return (*route, tail)
