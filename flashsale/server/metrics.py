"""What a replica counts, for Prometheus: plain integers on the hot path, read at the scrape.

No label takes its value from a request: routes are those that were mounted, and all that was
asked for elsewhere is one route, `unknown`. Every series is there from the first scrape on, at
nought, so that a rate sees the first request too.
"""

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from flashsale.model import Outcome
from flashsale.seckill.claims import Claims
from flashsale.server.app import App

_STORMS_OWN = frozenset(
    {Outcome.RATE_LIMITED, Outcome.REFUSED, Outcome.UNSENT, Outcome.INDETERMINATE}
)
"""Outcomes that no replica gives."""
_EXPECTED = (200, 503)
"""Statuses that are there before they were given: the error budget counts the first 503, too."""


class HttpCollector(Collector):
    """Requests by route."""

    def __init__(self, app: App) -> None:
        self._app = app

    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "flashsale_http_requests", "Requests answered.", labels=["method", "route", "status"]
        )
        durations = HistogramMetricFamily(
            "flashsale_http_request_duration_seconds",
            "From the request's head to its answer.",
            labels=["method", "route"],
        )
        at_nought = {(route, status): 0 for route in self._app.routes for status in _EXPECTED}
        counted = at_nought | self._app.answers
        for (route, status), count in counted.items():
            answers.add_metric([*_method_and_path(route), str(status)], count)
        for route in self._app.routes:
            buckets = self._app.durations_s[route]
            durations.add_metric(_method_and_path(route), buckets.cumulative(), buckets.sum)
        yield from (answers, durations)
        yield GaugeMetricFamily(
            "flashsale_http_requests_in_flight", "Requests being served.", self._app.in_flight
        )


def _method_and_path(route: str) -> list[str]:
    method, space, path = route.partition(" ")
    return [method, path] if space else ["any", route]


class ClaimCollector(Collector):
    """Claims by outcome, and those whose answer was lost."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    def collect(self) -> Iterator[Metric]:
        claims = CounterMetricFamily(
            "flashsale_claims", "Claims answered, by outcome.", labels=["outcome"]
        )
        for outcome in Outcome:
            if outcome not in _STORMS_OWN:
                claims.add_metric([outcome.value], self._claims.outcomes[outcome])
        yield claims
        settlement = self._claims.settlement
        yield CounterMetricFamily(
            "flashsale_claim_replays", "Batches sent again to learn the truth.", settlement.replays
        )
        yield GaugeMetricFamily(
            "flashsale_claim_settlements_open", "Batches whose answer was lost.", settlement.open
        )
