"""The process itself: health, readiness and metrics. nginx passes on the first alone."""

from dataclasses import dataclass

from flashsale.errors import Indeterminate, Unavailable
from flashsale.orders.lookup import OrderLookup
from flashsale.server.app import Router
from flashsale.server.openapi import Document
from flashsale.server.request import Request
from flashsale.server.response import RETRY_SOON, Response, ok, rejected, respond
from flashsale.storage.metrics import Metrics

OWN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})

_HEALTHY = ok()
_UNREADY = rejected("Not ready", 503, RETRY_SOON)


@dataclass(frozen=True)
class ProcessRoutes:
    """What a supervisor and a Prometheus ask."""

    orders: OrderLookup
    metrics: Metrics

    def mount(self, router: Router) -> None:
        """Add the routes, after all others: one describes them."""
        document = Document()
        router.add("GET", "/healthz", self.healthz).gives()
        router.add("GET", "/readyz", self.readyz).gives(None, _UNREADY)
        router.add("GET", "/metrics", self.scrape).sends(self.metrics.content_type.decode())
        router.add("GET", "/openapi.json", document.send).sends("application/json")
        document.make(router.routes)

    async def healthz(self, request: Request, segment: str) -> Response:
        """The process answers."""
        return _HEALTHY

    async def readyz(self, request: Request, segment: str) -> Response:
        """Redis and MySQL can be written to, too."""
        try:
            await self.orders.ready()
        except (Unavailable, Indeterminate):
            return _UNREADY
        return _HEALTHY

    async def scrape(self, request: Request, segment: str) -> Response:
        """Prometheus' text format."""
        body = self.metrics.render()
        return respond(200, body, (b"content-type", self.metrics.content_type))
