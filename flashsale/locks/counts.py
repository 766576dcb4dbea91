"""What locks have counted, and how a scrape tells it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass
class LockCounts:
    """Locks by what became of them; one owner's, since it began."""

    acquired: int = 0
    waited: int = 0  # of those that were asked for: somebody else had them at first
    refused: int = 0  # given up, since somebody else kept them
    lost: int = 0  # ours no more when they were renewed or released


_MEANINGS = {
    "acquired": "Locks taken.",
    "waited": "Locks that somebody else held when they were asked for.",
    "refused": "Locks given up, since somebody else kept them.",
    "lost": "Locks that were not ours any more when they were renewed or given back.",
}


class LockCollector(Collector):
    """The locks of one process; `locks` says what they are for."""

    def __init__(self, locks: str, counts: LockCounts, held: Callable[[], int]) -> None:
        self._labels = [locks]
        self._counts = counts
        self._held = held

    def collect(self) -> Iterator[Metric]:
        for name, meaning in _MEANINGS.items():
            family = CounterMetricFamily(f"flashsale_locks_{name}", meaning, labels=["locks"])
            family.add_metric(self._labels, getattr(self._counts, name))
            yield family
        held = GaugeMetricFamily("flashsale_locks_held", "Locks held now.", labels=["locks"])
        held.add_metric(self._labels, self._held())
        yield held
