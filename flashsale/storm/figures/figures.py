"""The figures of a run, counted from its attempts: in bulk when the storm is over, or so far.

While a storm is under way they are counted between its own callbacks, so only what a condition asks
for is: outcomes always, which costs a fifth of a µs an attempt, latencies where one is about them.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import compress

from flashsale.model import Ending
from flashsale.run.attempts import CENSORED, LOST, NEVER, Attempts, label_of
from flashsale.run.histogram import Histogram, hlog_head, hlog_line, merged
from flashsale.scenario.answer import Answer
from flashsale.scenario.load import Stage, Step
from flashsale.scenario.thresholds import CLOCKS, Metric

SLOT_US = 50_000
SLOTS_MAX = 400
_SECOND_US = 1_000_000
_ZERO = Fraction(0)


@dataclass(frozen=True)
class Timeline:
    """Claims sent and answers received in each slot of `slot_us` after the barrier."""

    slot_us: int
    sent: list[int]
    answered: list[int]


class EndpointFigures:
    """What became of the attempts that asked one thing; `labels` has those sent by their label."""

    def __init__(
        self, attempts: Attempts, chosen: Sequence[int], labels: Mapping[str, Sequence[int]]
    ) -> None:
        answers = (attempts.answers[i] for i in chosen)
        self._attempts, self._chosen = attempts, chosen
        self.planned = len(chosen)
        self.sent = sum(attempts.sent_ns[i] != NEVER for i in chosen)
        self.outcomes: Mapping[Ending, int] = Counter(
            answer.outcome for answer in answers if answer is not None
        )
        self.labels = labels
        starts = {"response": attempts.due_ns, "service": attempts.sent_ns}
        self._latencies = {
            (label, clock): Histogram(attempts.latencies_us(of_label, starts[clock]))
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

    def within(self, stage: Stage) -> "EndpointFigures":
        """Of those due in a stage."""
        due, begin_ns = self._attempts.due_ns, self._attempts.origin_ns + stage.begin_us * 1000
        end_ns = begin_ns + stage.length_us * 1000

        def due_then(chosen: Sequence[int]) -> list[int]:
            return [i for i in chosen if begin_ns <= due[i] < end_ns]

        labels = {label: own for label, all_ in self.labels.items() if (own := due_then(all_))}
        return EndpointFigures(self._attempts, due_then(self._chosen), labels)


def _evidence(answer: Answer) -> tuple[str, int, str]:
    """What went wrong, the status (0: none was read), and what the server said."""
    return answer.error or "", answer.status or 0, answer.said or ""


@dataclass(frozen=True)
class Loads:
    """Loads of shops, as the database itself counted them, beside what was asked for.

    A count that would not be exact is None, and `why` says so: it fails what is demanded of it.
    """

    count: int | None
    shops: int  # distinct shops that were asked for and exist
    unknown: int  # reads of ids that do not exist
    why: str = ""

    @property
    def per_shop(self) -> Fraction | None:
        """Loads for each shop that was asked for; None where none was, or none was counted."""
        return None if self.count is None or not self.shops else Fraction(self.count, self.shops)

    @property
    def per_unknown(self) -> Fraction | None:
        """Loads for each read of an unknown id; None where there was none, too."""
        if self.count is None or not self.unknown:
            return None
        return Fraction(self.count, self.unknown)


class Figures:
    """What a run amounts to; `judging.Figures` describes what is demanded of it."""

    def __init__(self, attempts: Attempts, asks: Sequence[int] = ()) -> None:
        """`asks` holds the `Step` of each attempt; without it every one is a claim."""
        self._attempts = attempts
        self.loads: Loads | None = None  # set by who can ask the database
        answers = [answer for _, answer in attempts.settled()]
        self.planned, self.spared = attempts.planned, len(attempts.spared)
        self.sent = attempts.sent
        self.outcomes: Mapping[Ending, int] = Counter(answer.outcome for answer in answers)
        self.errors = Counter(answer.error for answer in answers if answer.error is not None)
        self.said = Counter(_evidence(answer) for answer in answers if answer.said is not None)
        self.labels: Mapping[str, Sequence[int]] = attempts.by_label()
        self.endpoints = _by_endpoint(attempts, asks, self.labels)
        self.start_lag = attempts.start_lag()
        whole_ns = attempts.last_done_ns() - attempts.origin_ns
        whole_us = whole_ns // 1000  # what the file can tell, too
        self.duration_s = whole_us / 1e6
        answered = sum(answer.status is not None for answer in answers)
        self.rate_per_s = Fraction(answered * _SECOND_US, whole_us) if whole_us else _ZERO

    def __repr__(self) -> str:
        return f"<Figures sent={self.sent} of {self.planned} {dict(self.outcomes)}>"

    @property
    def attempts(self) -> Attempts:
        """The record that all of it is counted from."""
        return self._attempts

    @property
    def censored(self) -> int:
        """Attempts that the storm stopped waiting for."""
        return len(self.labels.get(CENSORED, ()))

    @property
    def lost(self) -> int:
        """Attempts whose connection broke."""
        return len(self.labels.get(LOST, ()))

    def latency(self, clock: str, outcome: Ending | None = None) -> Histogram:
        """On `clock` (response or service), of one outcome's answers, or of all attempts that
        had an answer or were waited for in vain."""
        return merged(found.latency(clock, outcome) for found in self.endpoints.values())

    def of(self, endpoint: str, stage: Stage | None = None) -> EndpointFigures:
        """The figures of one endpoint, or of those of its attempts that were due in a stage; of no
        attempt where the plan did not ask it."""
        found = self.endpoints.get(endpoint) or EndpointFigures(self._attempts, (), {})
        return found if stage is None else found.within(stage)

    def hlog(self) -> str:
        """Both clocks, second by second, tagged `buy.sold.response` and so on."""
        lines = [hlog_head(self._attempts.barrier_unix_us)]
        for second, tag, chosen in self._by_second():
            for clock in CLOCKS:
                histogram = Histogram(self._attempts.latencies_us(chosen, self._start_of(clock)))
                lines.append(hlog_line(f"{tag}.{clock}", second, 1, histogram))
        return "".join(lines)

    def timeline(self) -> Timeline:
        """Arrivals and completions in slots of 50 ms, wider ones for a long run."""
        attempts, slots = self._attempts, self.duration_s * 1e6 / SLOT_US
        slot_us = SLOT_US * max(1, -(-int(slots) // SLOTS_MAX))
        length = int(self.duration_s * 1e6 // slot_us) + 1
        answered = (
            attempts.done_ns[i] for i, answer in attempts.settled() if answer.status is not None
        )
        sent = (instant for instant in attempts.sent_ns if instant != NEVER)
        return Timeline(
            slot_us, self._slots(sent, slot_us, length), self._slots(answered, slot_us, length)
        )

    def _slots(self, instants_ns: Iterable[int], slot_us: int, length: int) -> list[int]:
        origin, width = self._attempts.origin_ns, slot_us * 1000
        counts = Counter((instant - origin) // width for instant in instants_ns)
        return [counts[slot] for slot in range(length)]

    def _start_of(self, clock: str) -> "array[int]":
        return self._attempts.due_ns if clock == "response" else self._attempts.sent_ns

    def _by_second(self) -> Iterator[tuple[int, str, list[int]]]:
        groups: dict[tuple[int, str], list[int]] = {}
        done, origin = self._attempts.done_ns, self._attempts.origin_ns
        for endpoint, figures in self.endpoints.items():
            for label, chosen in figures.labels.items():
                for i in chosen:
                    second = (done[i] - origin) // 1000 // _SECOND_US
                    groups.setdefault((second, f"{endpoint}.{label}"), []).append(i)
        for (second, tag), chosen in sorted(groups.items()):
            yield second, tag, chosen


def _by_endpoint(
    attempts: Attempts, asks: Sequence[int], labels: Mapping[str, Sequence[int]]
) -> dict[str, EndpointFigures]:
    spared = set(attempts.spared)
    every = (
        [i for i in range(len(attempts.answers)) if i not in spared]
        if spared
        else range(len(attempts.answers))
    )
    steps = [step for step in Step if step in asks] if asks else [Step.BUY]
    if len(steps) == 1:
        return {steps[0].endpoint: EndpointFigures(attempts, every, labels)}
    return {
        step.endpoint: EndpointFigures(
            attempts,
            [i for i in every if asks[i] == step],
            {
                label: own
                for label, chosen in labels.items()
                if (own := [i for i in chosen if asks[i] == step])
            },
        )
        for step in steps
    }


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

    def take(self, attempts: Attempts, chosen: Sequence[int], answers: Sequence[Answer]) -> None:
        """Count these on, all of them ended."""
        self.planned += len(chosen)
        self.outcomes.update([answer.outcome for answer in answers])
        self.answered += sum([answer.status is not None for answer in answers])
        for (clock, outcome), histogram in self._latencies.items():
            since = attempts.due_ns if clock == "response" else attempts.sent_ns
            told = compress(chosen, [_has_latency(answer, outcome) for answer in answers])
            sent = [i for i in told if attempts.sent_ns[i] != NEVER]
            histogram.record(attempts.latencies_us(sent, since))

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

    def __init__(self, attempts: Attempts, asks: Sequence[int], metrics: Sequence[Metric]) -> None:
        self._attempts, self._asks, self._seen = attempts, asks, 0
        self._endpoints = {
            step: RunningEndpoint([m for m in metrics if m.endpoint == step.endpoint])
            for step in Step
            if step in asks
        }
        self._lag_wanted = any(metric.clock == "start_lag" for metric in metrics)
        self.start_lag = Histogram()
        self.elapsed_s, self.rate_per_s = 0.0, _ZERO

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
        attempts, self.elapsed_s = self._attempts, elapsed_s
        new = attempts.arrivals[self._seen :]
        self._seen += len(new)
        for step, endpoint in self._endpoints.items():
            own = new
            if len(self._endpoints) > 1:
                own = [i for i in new if self._asks[i] == step]
            endpoint.take(attempts, own, [a for i in own if (a := attempts.answers[i]) is not None])
        answered = sum(found.answered for found in self._endpoints.values())
        self.rate_per_s = Fraction(answered) / Fraction(elapsed_s) if elapsed_s else _ZERO
        if self._lag_wanted:
            self.start_lag.record(self._lags_us(new))

    def of(self, endpoint: str, stage: Stage | None = None) -> RunningEndpoint:
        """The figures of one endpoint so far; of no attempt where the plan does not ask it. Stages
        are not counted apart: no condition of an early end is about one."""
        named = (found for step, found in self._endpoints.items() if step.endpoint == endpoint)
        return next(named, None) or RunningEndpoint()

    def latency(self, clock: str, outcome: Ending | None = None) -> Histogram:
        """Nothing: every metric of a latency is of an endpoint."""
        return Histogram()

    def _lags_us(self, chosen: Sequence[int]) -> list[int]:
        attempts = self._attempts
        sent, due, free = attempts.sent_ns, attempts.due_ns, attempts.free_ns or attempts.due_ns
        return [(sent[i] - max(due[i], free[i])) // 1000 for i in chosen if sent[i] != NEVER]
