"""The figures of one endpoint: how its attempts ended, and how long they took."""

from collections import Counter
from collections.abc import Mapping, Sequence

from flashsale.model import Ending
from flashsale.storm.figures.histogram import Histogram, merged
from flashsale.storm.figures.thresholds import CLOCKS
from flashsale.storm.record.ledger import CENSORED, LOST, NEVER, Ledger


class EndpointFigures:
    """What became of the attempts that asked one thing; `labels` has those sent by their label."""

    def __init__(
        self, ledger: Ledger, attempts: Sequence[int], labels: Mapping[str, Sequence[int]]
    ) -> None:
        answers = (ledger.answers[i] for i in attempts)
        self.planned = len(attempts)
        self.sent = sum(ledger.sent_ns[i] != NEVER for i in attempts)
        self.outcomes: Mapping[Ending, int] = Counter(
            answer.outcome for answer in answers if answer is not None
        )
        self.labels = labels
        starts = {"response": ledger.due_ns, "service": ledger.sent_ns}
        self._latencies = {
            (label, clock): Histogram(ledger.latencies_us(of_label, starts[clock]))
            for label, of_label in labels.items()
            for clock in CLOCKS
        }

    def __repr__(self) -> str:
        return f"<EndpointFigures sent={self.sent} of {self.planned} {dict(self.outcomes)}>"

    @property
    def censored(self) -> int:
        """Attempts that the storm stopped waiting for."""
        return len(self.labels.get(CENSORED, ()))

    def latency(self, clock: str, outcome: Ending | None = None) -> Histogram:
        """On `clock` (response or service), of one outcome's answers, or of all attempts that
        had an answer or were waited for in vain."""
        if outcome is None:
            return merged(
                histogram
                for (label, of), histogram in self._latencies.items()
                if of == clock and label != LOST
            )
        return self._latencies.get((outcome.value, clock), Histogram())
