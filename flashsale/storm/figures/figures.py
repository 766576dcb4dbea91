"""The figures of a run, counted from its ledger in bulk when the storm is over."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flashsale.model import Ending
from flashsale.storm.figures.endpoint_figures import EndpointFigures
from flashsale.storm.figures.histogram import Histogram, hlog_head, hlog_line, merged
from flashsale.storm.figures.loads import Loads
from flashsale.storm.figures.thresholds import CLOCKS
from flashsale.storm.record.ledger import CENSORED, LOST, NEVER, Ledger
from flashsale.storm.workload.step import Step

SLOT_US = 50_000
SLOTS_MAX = 400
_SECOND_US = 1_000_000


@dataclass(frozen=True)
class Timeline:
    """Claims sent and answers received in each slot of `slot_us` after the barrier."""

    slot_us: int
    sent: list[int]
    answered: list[int]


class Figures:
    """What a run amounts to; `thresholds.Figures` describes what is demanded of it."""

    def __init__(self, ledger: Ledger, asks: Sequence[int] = ()) -> None:
        """`asks` holds the `Step` of each attempt; without it every one is a claim."""
        self._ledger = ledger
        self.loads: Loads | None = None  # set by who can ask the database
        answers = [answer for _, answer in ledger.settled()]
        self.planned, self.spared = ledger.planned, len(ledger.spared)
        self.sent = ledger.sent
        self.outcomes: Mapping[Ending, int] = Counter(answer.outcome for answer in answers)
        self.errors = Counter(answer.error for answer in answers if answer.error is not None)
        self._labels = ledger.by_label()
        self.endpoints = _by_endpoint(ledger, asks, self._labels)
        self.start_lag = ledger.start_lag()
        last_ns = max((ledger.done_ns[i] for i in ledger.arrivals), default=ledger.origin_ns)
        self.duration_s = (last_ns - ledger.origin_ns) // 1000 / 1e6  # what the file can tell, too
        answered = sum(answer.status is not None for answer in answers)
        self.rate_per_s = answered / self.duration_s if self.duration_s else 0.0

    def __repr__(self) -> str:
        return f"<Figures sent={self.sent} of {self.planned} {dict(self.outcomes)}>"

    @property
    def ledger(self) -> Ledger:
        """The record that all of it is counted from."""
        return self._ledger

    @property
    def censored(self) -> int:
        """Attempts that the storm stopped waiting for."""
        return len(self._labels.get(CENSORED, ()))

    @property
    def lost(self) -> int:
        """Attempts whose connection broke."""
        return len(self._labels.get(LOST, ()))

    def latency(self, clock: str, outcome: Ending | None = None) -> Histogram:
        """On `clock` (response or service), of one outcome's answers, or of all attempts that
        had an answer or were waited for in vain."""
        return merged(found.latency(clock, outcome) for found in self.endpoints.values())

    def of(self, endpoint: str) -> EndpointFigures:
        """The figures of one endpoint; of no attempt where the plan did not ask it."""
        return self.endpoints.get(endpoint) or EndpointFigures(self._ledger, (), {})

    def hlog(self) -> str:
        """Both clocks, second by second, tagged `buy.sold.response` and so on."""
        lines = [hlog_head(self._ledger.barrier_unix_us)]
        for second, tag, attempts in self._by_second():
            for clock in CLOCKS:
                histogram = Histogram(self._ledger.latencies_us(attempts, self._start_of(clock)))
                lines.append(hlog_line(f"{tag}.{clock}", second, 1, histogram))
        return "".join(lines)

    def timeline(self) -> Timeline:
        """Arrivals and completions in slots of 50 ms, wider ones for a long run."""
        ledger, slots = self._ledger, self.duration_s * 1e6 / SLOT_US
        slot_us = SLOT_US * max(1, -(-int(slots) // SLOTS_MAX))
        length = int(self.duration_s * 1e6 // slot_us) + 1
        answered = (
            ledger.done_ns[i] for i, answer in ledger.settled() if answer.status is not None
        )
        sent = (instant for instant in ledger.sent_ns if instant != NEVER)
        return Timeline(
            slot_us, self._slots(sent, slot_us, length), self._slots(answered, slot_us, length)
        )

    def _slots(self, instants_ns: Iterable[int], slot_us: int, length: int) -> list[int]:
        origin, width = self._ledger.origin_ns, slot_us * 1000
        counts = Counter((instant - origin) // width for instant in instants_ns)
        return [counts[slot] for slot in range(length)]

    def _start_of(self, clock: str) -> "array[int]":
        return self._ledger.due_ns if clock == "response" else self._ledger.sent_ns

    def _by_second(self) -> Iterator[tuple[int, str, list[int]]]:
        groups: dict[tuple[int, str], list[int]] = {}
        done, origin = self._ledger.done_ns, self._ledger.origin_ns
        for endpoint, figures in self.endpoints.items():
            for label, attempts in figures.labels.items():
                for i in attempts:
                    second = (done[i] - origin) // 1000 // _SECOND_US
                    groups.setdefault((second, f"{endpoint}.{label}"), []).append(i)
        for (second, tag), attempts in sorted(groups.items()):
            yield second, tag, attempts


def _by_endpoint(
    ledger: Ledger, asks: Sequence[int], labels: Mapping[str, Sequence[int]]
) -> dict[str, EndpointFigures]:
    spared = set(ledger.spared)
    every = (
        [i for i in range(len(ledger.answers)) if i not in spared]
        if spared
        else range(len(ledger.answers))
    )
    steps = [step for step in Step if step in asks] if asks else [Step.BUY]
    if len(steps) == 1:
        return {steps[0].endpoint: EndpointFigures(ledger, every, labels)}
    return {
        step.endpoint: EndpointFigures(
            ledger,
            [i for i in every if asks[i] == step],
            {
                label: chosen
                for label, attempts in labels.items()
                if (chosen := [i for i in attempts if asks[i] == step])
            },
        )
        for step in steps
    }
