"""What a replica counts, for Prometheus: plain integers on the hot path, read at the scrape.

No label takes its value from a request: routes are those that were mounted, and all that was
asked for elsewhere is one route, `unknown`. Every series is there from the first scrape on, at
nought, so that a rate sees the first request too.
"""

import asyncio
from collections.abc import Iterator
from typing import NoReturn

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Source
from flashsale.catalog.pictures import Pictures
from flashsale.model import Outcome
from flashsale.seckill.claims import Claims
from flashsale.seckill.lane_claims import LaneClaims
from flashsale.server.app import App
from flashsale.telemetry import LATENCY_S, Buckets

_STORMS_OWN = frozenset({Outcome.REFUSED, Outcome.UNSENT, Outcome.INDETERMINATE})
"""Outcomes that no replica gives."""
_EXPECTED = (200, 503)
"""Statuses that are there before they were given: the error budget counts the first 503, too."""

_KIND = ["kind", "strategy"]
_SATURATION = (
    ("capacity", "capacity_ids", "Ids it was made for."),
    ("fill", "fill_ratio", "Share of its bits that are set."),
    ("estimated_ids", "estimated_ids", "Ids in it, estimated from the fill."),
    ("false_positives", "false_positive_ratio", "Share of unknown ids that pass."),
)
_INTERVAL_S = 0.1


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

    def __init__(self, claims: Claims | LaneClaims) -> None:
        self._claims = claims

    def collect(self) -> Iterator[Metric]:
        claims = CounterMetricFamily(
            "flashsale_claims", "Claims answered, by outcome.", labels=["outcome"]
        )
        for outcome in Outcome:
            if outcome not in _STORMS_OWN:
                claims.add_metric([outcome.value], self._claims.outcomes[outcome])
        yield claims
        behind = CounterMetricFamily(
            "flashsale_claims_behind",
            "Claims shed since the ledger may be behind: it has no permit, or a sale's books "
            "disagree.",
            labels=["lacks"],
        )
        for lacks in ("permit", "books"):
            behind.add_metric([lacks], self._claims.behind[lacks])
        yield behind
        settlement = self._claims.settlement
        yield CounterMetricFamily(
            "flashsale_claim_replays", "Batches sent again to learn the truth.", settlement.replays
        )
        yield GaugeMetricFamily(
            "flashsale_claim_settlements_open", "Batches whose answer was lost.", settlement.open
        )


class CacheCollector(Collector):
    """Reads, loads and filters of one process; given to `Metrics`."""

    def __init__(self, cache: CacheClient) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        yield from self._reads()
        yield from self._loads()
        yield from self._health()
        yield from self._indexes()
        yield from self._blooms()

    def _reads(self) -> Iterator[Metric]:
        reads = CounterMetricFamily(
            "flashsale_cache_reads", "Cached reads, by outcome.", labels=[*_KIND, "outcome"]
        )
        for kind in self._cache.kinds.values():
            for source in Source:
                reads.add_metric(
                    [kind.kind, kind.strategy.value, source.value], kind.outcomes[source]
                )
        yield reads

    def _loads(self) -> Iterator[Metric]:
        loads = CounterMetricFamily(
            "flashsale_cache_loads", "Loads from the database.", labels=_KIND
        )
        failures = CounterMetricFamily(
            "flashsale_cache_load_failures", "Loads that failed.", labels=_KIND
        )
        fills = CounterMetricFamily(
            "flashsale_cache_fills", "Loads put into the cache, or not.", labels=[*_KIND, "result"]
        )
        rebuilds = CounterMetricFamily(
            "flashsale_cache_rebuild_failures", "Rebuilds that failed.", labels=_KIND
        )
        durations = HistogramMetricFamily(
            "flashsale_cache_load_duration_seconds", "Loads, failed ones too.", labels=_KIND
        )
        for kind in self._cache.kinds.values():
            labels, counts = [kind.kind, kind.strategy.value], kind.loading
            loads.add_metric(labels, counts.loads)
            failures.add_metric(labels, counts.failures)
            fills.add_metric([*labels, "filled"], counts.fills)
            fills.add_metric([*labels, "refused"], counts.refused_fills)
            rebuilds.add_metric(labels, kind.rebuild_failures)
            durations.add_metric(labels, counts.durations_s.cumulative(), counts.durations_s.sum)
        yield from (loads, failures, fills, rebuilds, durations)

    def _health(self) -> Iterator[Metric]:
        cache = self._cache
        yield CounterMetricFamily(
            "flashsale_cache_breaker_openings",
            "Times the cache was given up.",
            cache.calls.breaker.opened,
        )
        yield CounterMetricFamily(
            "flashsale_cache_loads_refused", "Loads beyond the limit.", cache.limit.refused
        )
        for name, meaning, value in (
            ("breaker_open", "1 while reads do not ask the cache.", cache.calls.breaker.is_open),
            ("loads_running", "Loads under way.", cache.limit.running),
            ("loads_waiting", "Loads that wait for their turn.", cache.limit.waiting),
            ("owed_deletes", "Deletes that wait for the cache.", len(cache.calls.owed)),
        ):
            yield GaugeMetricFamily(f"flashsale_cache_{name}", meaning, float(value))

    def _indexes(self) -> Iterator[Metric]:
        reads = CounterMetricFamily(
            "flashsale_cache_index_reads",
            "Reads of sets by their outcome: there, waited for, or from the database.",
            labels=["index", "outcome"],
        )
        for name, outcomes in self._cache.index_outcomes.items():
            for source in (Source.HIT, Source.WAIT, Source.LOAD):
                reads.add_metric([name, source.value], outcomes[source])
        yield reads

    def _blooms(self) -> Iterator[Metric]:
        there = GaugeMetricFamily(
            "flashsale_bloom_present", "1 where there is a filter.", labels=["filter"]
        )
        gauges = {
            field: GaugeMetricFamily(f"flashsale_bloom_{name}", meaning, labels=["filter"])
            for field, name, meaning in _SATURATION
        }
        for bloom in self._cache.blooms.values():
            saturation = bloom.saturation
            there.add_metric([bloom.name], float(saturation is not None))
            if saturation is not None:
                for field, gauge in gauges.items():
                    gauge.add_metric([bloom.name], getattr(saturation, field))
        yield from (there, *gauges.values())


class PictureCollector(Collector):
    """Pictures that users sent, by what became of them."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def collect(self) -> Iterator[Metric]:
        pictures = CounterMetricFamily(
            "flashsale_pictures", "Pictures, by what became of them.", labels=["outcome"]
        )
        for outcome, count in self._pictures.outcomes.items():
            pictures.add_metric([outcome], count)
        yield pictures


class LoopLag(Collector):
    """Sleeps ten times a second and notes how late it wakes up."""

    def __init__(self) -> None:
        self.lags_s = Buckets(LATENCY_S)

    def __repr__(self) -> str:
        return f"<LoopLag {self.lags_s!r}>"

    async def keep(self) -> NoReturn:
        """Measure for as long as the process lives."""
        now_s = asyncio.get_running_loop().time
        while True:
            due_s = now_s() + _INTERVAL_S
            await asyncio.sleep(_INTERVAL_S)
            self.lags_s.add(max(0.0, now_s() - due_s))

    def collect(self) -> Iterator[Metric]:
        yield HistogramMetricFamily(
            "flashsale_event_loop_lag_seconds",
            "How late a timer of the event loop ran, ten times a second.",
            buckets=self.lags_s.cumulative(),
            sum_value=self.lags_s.sum,
        )
