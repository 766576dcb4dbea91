"""The series that charts draw: a whole run in a few hundred points, however long it was. Pure.

Nothing is drawn attempt by attempt. What runs along time is counted in slots, what runs along the
order of arrival is cut into bins of equally many attempts; of each bin the median, the band between
the 10th and the 90th percentile and the extreme are kept, so that an outlier never vanishes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from flashsale.model import ENDINGS, Ending, Outcome
from flashsale.run.attempts import NEVER, Attempts

POINTS_MAX = 400
"""Slots or steps in one series."""

BINS_MAX = 150
_FINEST_US = 1_000


@dataclass(frozen=True)
class Slots:
    """Counts by kind, in slots of `width_us` after the barrier. Kinds are in order of display."""

    width_us: int
    counts: dict[Ending, list[int]]

    @property
    def middles_s(self) -> list[float]:
        """Where each slot stands, in seconds after the barrier."""
        length = max(map(len, self.counts.values()), default=0)
        return [round((slot + 0.5) * self.width_us / 1e6, 6) for slot in range(length)]


@dataclass(frozen=True)
class Bin:
    """Some neighbours along an axis: where they end on it, and how their values spread."""

    until: float
    size: int
    p10: int
    p50: int
    p90: int
    p99: int
    max: int


def width_us(span_us: int, slots: int) -> int:
    """1, 2 or 5 times a power of ten, 1 ms at least, so that at most `slots` of them fill the
    span."""
    width = _FINEST_US
    while True:
        for factor in (1, 2, 5):
            if span_us < width * factor * slots:
                return width * factor
        width *= 10


def endings(attempts: Attempts, slots: int = 100) -> Slots:
    """How attempts ended, by when they did."""
    span_us = _span_us(attempts)
    width = width_us(span_us, slots)
    by_ending: dict[Ending, Counter[int]] = {}
    for i, answer in attempts.settled():
        slot = (attempts.done_ns[i] - attempts.origin_ns) // (width * 1000)
        by_ending.setdefault(answer.outcome, Counter())[slot] += 1
    length = span_us // width + 1
    ordered = [end for end in ENDINGS if end in by_ending]
    return Slots(width, {end: [by_ending[end][s] for s in range(length)] for end in ordered})


def stock(attempts: Attempts, units: int) -> list[tuple[float, int]]:
    """(seconds after the barrier, units left) as buyers' orders arrived, from all units on. One
    that was told again arrived when it was told first."""
    first: dict[str | None, int] = {}
    for i, answer in attempts.settled():
        if answer.outcome is Outcome.SOLD:
            at_us = (attempts.done_ns[i] - attempts.origin_ns) // 1000
            first[answer.order] = min(at_us, first.get(answer.order, at_us))
    arrived = sorted(first.values())
    every = max(1, -(-len(arrived) // POINTS_MAX))
    sold = sorted({*range(every, len(arrived) + 1, every), len(arrived)} - {0})
    steps = [(arrived[n - 1] / 1e6, units - n) for n in sold]
    end = (_span_us(attempts) / 1e6, units - len(arrived))
    return [(0.0, units), *steps, end]


def latency_by_rank(attempts: Attempts, chosen: Iterable[int]) -> list[Bin]:
    """Response latency of `attempts`, in the order in which they were sent."""
    order = sorted(chosen, key=attempts.sent_ns.__getitem__)
    values = attempts.latencies_us(order, attempts.due_ns)
    edges = _edges(len(values))
    return [_bin(values[start:end], end) for start, end in pairwise(edges)]


def latency_by_time(attempts: Attempts, chosen: Iterable[int], slots: int = 60) -> list[Bin]:
    """Response latency of `attempts`, by the slot of time (in seconds) in which each ended."""
    width = width_us(_span_us(attempts), slots)
    bins: dict[int, list[int]] = {}
    ended = list(chosen)
    for i, value in zip(ended, attempts.latencies_us(ended, attempts.due_ns), strict=True):
        at_us = (attempts.done_ns[i] - attempts.origin_ns) // 1000
        bins.setdefault(at_us // width, []).append(value)
    return [_bin(values, (slot + 1) * width / 1e6) for slot, values in sorted(bins.items())]


def start_lag(attempts: Attempts) -> list[Bin]:
    """How late attempts were sent, by the instant (in seconds) at which they were."""
    origin = attempts.origin_ns
    lags = sorted((attempts.sent_ns[i] - origin, lag) for i, lag in attempts.start_lags_us())
    if not lags:
        return []
    first, last = lags[0][0] // 1000, lags[-1][0] // 1000
    width = width_us(max(0, last - first), BINS_MAX)
    bins: dict[int, list[int]] = {}
    for at_ns, lag in lags:
        bins.setdefault(at_ns // 1000 // width, []).append(lag)
    return [_bin(values, (slot + 1) * width / 1e6) for slot, values in sorted(bins.items())]


def sent_attempts(attempts: Attempts) -> list[int]:
    """The attempts that were sent, by number."""
    return [i for i, instant in enumerate(attempts.sent_ns) if instant != NEVER]


def _edges(count: int) -> list[int]:
    bins = min(BINS_MAX, count)
    return [n * count // bins for n in range(bins + 1)] if bins else []


def _bin(values: Sequence[int], until: float) -> Bin:
    ordered = sorted(values)

    def at(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Bin(until, len(ordered), at(0.1), at(0.5), at(0.9), at(0.99), ordered[-1])


def _span_us(attempts: Attempts) -> int:
    last_ns = max((attempts.done_ns[i] for i in attempts.arrivals), default=attempts.origin_ns)
    return (last_ns - attempts.origin_ns) // 1000
