"""What a replica counts, for Prometheus: plain integers on the hot path, read at the scrape."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from flashsale.accounts.sessions import Sessions
from flashsale.model import Outcome
from flashsale.seckill.claims import Claims
from flashsale.server.app import App
from flashsale.storage.gate import Gate


class Metrics:
    """The registry of one replica."""

    def __init__(self, app: App, claims: Claims, sessions: Sessions, *others: Collector) -> None:
        self._registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR, *others):
            self._registry.register(collector)
        self._registry.register(_ReplicaCollector(app, claims, sessions))

    content_type = CONTENT_TYPE_LATEST.encode()

    def render(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self._registry)


class _ReplicaCollector(Collector):
    def __init__(self, app: App, claims: Claims, sessions: Sessions) -> None:
        self._app = app
        self._claims = claims
        self._gates: dict[str, Gate[Any, Any]] = {
            "claim": claims.gate,
            "session": sessions.gate,
        }

    def collect(self) -> Iterator[Metric]:
        yield from self._http()
        yield from self._claim_outcomes()
        yield from self._gate_figures()

    def _http(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "flashsale_http_requests", "Requests answered.", labels=["route", "status"]
        )
        for (route, status), count in self._app.answers.items():
            answers.add_metric([route, str(status)], count)
        yield answers
        yield GaugeMetricFamily(
            "flashsale_http_requests_in_flight", "Requests being served.", self._app.in_flight
        )

    def _claim_outcomes(self) -> Iterator[Metric]:
        claims = CounterMetricFamily(
            "flashsale_claims", "Claims answered, by outcome.", labels=["outcome"]
        )
        for outcome in Outcome:
            if outcome in self._claims.outcomes:
                claims.add_metric([outcome.value], self._claims.outcomes[outcome])
        yield claims

    def _gate_figures(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("flashsale_gate_calls", "Calls sent.", labels=["gate"])
        items = CounterMetricFamily("flashsale_gate_items", "Items in calls.", labels=["gate"])
        waiting = GaugeMetricFamily("flashsale_gate_waiting", "Items queued.", labels=["gate"])
        for name, gate in self._gates.items():
            calls.add_metric([name], gate.calls)
            items.add_metric([name], gate.items)
            waiting.add_metric([name], gate.waiting)
        yield from (calls, items, waiting)
