"""Paths to handlers, by at most three look-ups in dictionaries, however many routes there are."""

from collections.abc import Awaitable, Callable

from flashsale.server.answers import NOT_FOUND, Response, method_not_allowed
from flashsale.server.request import Request

Handler = Callable[[Request, str], Awaitable[Response]]
Methods = dict[str, tuple[str, Handler]]

UNKNOWN = "unknown"
"""The name of the route of every request that has none."""


class Router:
    """Routes without an id, with one at the end, and with one before a last word.

    `GET /healthz`, `POST /voucher-order/seckill/{id}`, `POST /voucher-order/{id}/pay`. What is
    spelled out wins over what is an id.
    """

    def __init__(self) -> None:
        self._exact: dict[str, Methods] = {}
        self._by_head: dict[str, Methods] = {}
        self._by_head_and_word: dict[tuple[str, str], Methods] = {}

    def __repr__(self) -> str:
        ending = (f"{head}/{{id}}" for head in self._by_head)
        inside = (f"{head}/{{id}}/{word}" for head, word in self._by_head_and_word)
        return f"<Router {sorted([*self._exact, *ending, *inside])}>"

    @property
    def names(self) -> list[str]:
        """The names of all routes, `GET /healthz` and so on, and UNKNOWN."""
        tables = (self._exact, self._by_head, self._by_head_and_word)
        methods = (methods for table in tables for methods in table.values())
        return [*(name for found in methods for name, _ in found.values()), UNKNOWN]

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Route `method` on `pattern`, whose last or last but one segment may be a `{name}`."""
        head, _, last = pattern.rpartition("/")
        stem, _, inner = head.rpartition("/")
        if last.startswith("{"):
            methods = self._by_head.setdefault(head, {})
        elif inner.startswith("{"):
            methods = self._by_head_and_word.setdefault((stem, last), {})
        else:
            methods = self._exact.setdefault(pattern, {})
        methods[method] = (f"{method} {pattern}", handler)

    def find(self, method: str, path: str) -> tuple[str, Handler | Response, str]:
        """The route's name, its handler (or the 404 or 405 in its place) and the id's segment."""
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
