"""The figures of a storm that is still under way, of the attempts that have ended so far.

They are counted between the storm's own callbacks, so only what a condition asks for is: outcomes
always, which costs a fifth of a µs an attempt, latencies where one is about them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress

from flashsale.model import Ending
from flashsale.storm.attack.answer import Answer
from flashsale.storm.figures.histogram import Histogram
from flashsale.storm.figures.loads import Loads
from flashsale.storm.figures.thresholds import Metric
from flashsale.storm.record.ledger import LOST, NEVER, Ledger, label_of
from flashsale.storm.workload.step import Step


class RunningEndpoint:
    """What became so far of the attempts that asked one thing; `planned` are those that ended."""

    def __init__(self, metrics: Sequence[Metric] = ()) -> None:
        self.planned = self.answered = 0
        self.outcomes: Counter[Ending] = Counter()
        self._latencies = {
            (metric.clock, metric.outcome): Histogram()
            for metric in metrics
            if metric.kind == "latency"
        }

    def __repr__(self) -> str:
        return f"<RunningEndpoint ended={self.planned} {dict(self.outcomes)}>"

    def take(self, ledger: Ledger, attempts: Sequence[int], answers: Sequence[Answer]) -> None:
        """Count these on, all of them ended."""
        self.planned += len(attempts)
        self.outcomes.update([answer.outcome for answer in answers])
        self.answered += sum([answer.status is not None for answer in answers])
        for (clock, outcome), histogram in self._latencies.items():
            since = ledger.due_ns if clock == "response" else ledger.sent_ns
            chosen = compress(attempts, [_has_latency(answer, outcome) for answer in answers])
            sent = [i for i in chosen if ledger.sent_ns[i] != NEVER]
            histogram.record(ledger.latencies_us(sent, since))

    def latency(self, clock: str, outcome: Ending | None = None) -> Histogram:
        """As `EndpointFigures.latency`, so far; empty where no metric was about it."""
        return self._latencies.get((clock, outcome), Histogram())


def _has_latency(answer: Answer, outcome: Ending | None) -> bool:
    if outcome is None:
        return label_of(answer) != LOST
    return answer.outcome is outcome and answer.status is not None


class RunningFigures:
    """The whole run so far, and each endpoint, as far as `metrics` ask for it."""

    loads: Loads | None = None

    def __init__(self, ledger: Ledger, asks: Sequence[int], metrics: Sequence[Metric]) -> None:
        self._ledger, self._asks, self._seen = ledger, asks, 0
        self._endpoints = {
            step: RunningEndpoint([m for m in metrics if m.endpoint == step.endpoint])
            for step in Step
            if step in asks
        }
        self._lag_wanted = any(metric.clock == "start_lag" for metric in metrics)
        self.start_lag = Histogram()
        self.elapsed_s = self.rate_per_s = 0.0

    def __repr__(self) -> str:
        return f"<RunningFigures ended={self.planned} after={self.elapsed_s:.1f}s>"

    @property
    def planned(self) -> int:
        """How many attempts have ended."""
        return sum(found.planned for found in self._endpoints.values())

    @property
    def outcomes(self) -> Mapping[Ending, int]:
        """How they ended."""
        return sum((found.outcomes for found in self._endpoints.values()), Counter[Ending]())

    def take_new(self, elapsed_s: float) -> None:
        """Count on what has ended since the last time."""
        ledger, self.elapsed_s = self._ledger, elapsed_s
        new = ledger.arrivals[self._seen :]
        self._seen += len(new)
        for step, endpoint in self._endpoints.items():
            own = new
            if len(self._endpoints) > 1:
                own = [i for i in new if self._asks[i] == step]
            endpoint.take(ledger, own, [a for i in own if (a := ledger.answers[i]) is not None])
        answered = sum(found.answered for found in self._endpoints.values())
        self.rate_per_s = answered / elapsed_s if elapsed_s else 0.0
        if self._lag_wanted:
            self.start_lag.record(self._lags_us(new))

    def of(self, endpoint: str) -> RunningEndpoint:
        """The figures of one endpoint so far; of no attempt where the plan does not ask it."""
        named = (found for step, found in self._endpoints.items() if step.endpoint == endpoint)
        return next(named, None) or RunningEndpoint()

    def latency(self, clock: str, outcome: Ending | None = None) -> Histogram:
        """Nothing: every metric of a latency is of an endpoint."""
        return Histogram()

    def _lags_us(self, attempts: Sequence[int]) -> list[int]:
        ledger = self._ledger
        sent, due, free = ledger.sent_ns, ledger.due_ns, ledger.free_ns or ledger.due_ns
        return [(sent[i] - max(due[i], free[i])) // 1000 for i in attempts if sent[i] != NEVER]
