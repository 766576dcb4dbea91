"""The figures of a storm that is still under way, of the attempts that have ended so far."""

from collections import Counter
from collections.abc import Sequence

from flashsale.model import Ending
from flashsale.storm.histogram import Histogram, merged
from flashsale.storm.ledger import LOST, NEVER, Ledger, label_of
from flashsale.storm.loads import Loads
from flashsale.storm.step import Step
from flashsale.storm.thresholds import CLOCKS


class RunningEndpoint:
    """What became so far of the attempts that asked one thing; `planned` are those that ended."""

    def __init__(self) -> None:
        self.planned = 0
        self.outcomes: Counter[Ending] = Counter()
        self._latencies: dict[tuple[str, str], Histogram] = {}

    def __repr__(self) -> str:
        return f"<RunningEndpoint ended={self.planned} {dict(self.outcomes)}>"

    def take(self, ledger: Ledger, attempts: Sequence[int]) -> None:
        """Count these on, all of them ended."""
        self.planned += len(attempts)
        labels: dict[str, list[int]] = {}
        for i in attempts:
            answer = ledger.answers[i]
            assert answer is not None
            self.outcomes[answer.outcome] += 1
            if ledger.sent_ns[i] != NEVER:
                labels.setdefault(label_of(answer), []).append(i)
        for clock, since in zip(CLOCKS, (ledger.due_ns, ledger.sent_ns), strict=True):
            for label, labelled in labels.items():
                histogram = self._latencies.setdefault((label, clock), Histogram())
                histogram.record(ledger.latencies_us(labelled, since))

    def latency(self, clock: str, outcome: Ending | None = None) -> Histogram:
        """As `EndpointFigures.latency`, so far."""
        if outcome is not None:
            return self._latencies.get((outcome.value, clock), Histogram())
        return merged(
            histogram
            for (label, of), histogram in self._latencies.items()
            if of == clock and label != LOST
        )


class RunningFigures(RunningEndpoint):
    """The whole run so far, and each endpoint; `take_new` costs what ended since the last time."""

    loads: Loads | None = None

    def __init__(self, ledger: Ledger, asks: Sequence[int]) -> None:
        super().__init__()
        self._ledger, self._asks = ledger, asks
        self._seen = self._answered = 0
        self._endpoints = {step.endpoint: RunningEndpoint() for step in Step}
        self.start_lag = Histogram()
        self.elapsed_s = self.rate_per_s = 0.0

    def take_new(self, elapsed_s: float) -> None:
        """Count on what has ended since the last time."""
        ledger = self._ledger
        new = ledger.arrivals[self._seen :]
        self._seen += len(new)
        for step in Step:
            self._endpoints[step.endpoint].take(ledger, [i for i in new if self._asks[i] == step])
        self.take(ledger, new)
        self.start_lag.record(self._lags_us(new))
        answers = (ledger.answers[i] for i in new)
        self._answered += sum(
            answer is not None and answer.status is not None for answer in answers
        )
        self.elapsed_s = elapsed_s
        self.rate_per_s = self._answered / elapsed_s if elapsed_s else 0.0

    def of(self, endpoint: str) -> RunningEndpoint:
        """The figures of one endpoint so far."""
        return self._endpoints[endpoint]

    def _lags_us(self, attempts: Sequence[int]) -> list[int]:
        ledger = self._ledger
        sent, due, free = ledger.sent_ns, ledger.due_ns, ledger.free_ns or ledger.due_ns
        return [(sent[i] - max(due[i], free[i])) // 1000 for i in attempts if sent[i] != NEVER]
