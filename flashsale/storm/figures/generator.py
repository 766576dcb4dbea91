"""The generator in figures: what firing a plan took, and its own verdict on the run. Pure.

A process is looked at ten times a second while it fires. A look is what was read at one instant,
counted from the start of the process; a sample is what became of it between two looks.

A load test says something only if its own load was the plan's. INVALID: it was not, or what it
measured was itself. SUSPECT: the figures stand, and a part of them may be the generator's.

Only an open run has arrivals of its own to be late for. A closed one waits for its answers, and a
stampede without spread saturates its core by nature, so their lag is reported and not judged.
"""

import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter

from flashsale.run.histogram import Histogram, merged
from flashsale.run.parts import Health
from flashsale.storm.plan.plan import Plan

SAMPLES_MAX = 600
"""A minute at ten a second. A longer run has wider samples, not more."""


class RawSample(NamedTuple):
    """One reading, `at_ns` after the barrier. `lag_us` is the loop's worst since the one before."""

    at_ns: int
    cpu_ns: int
    waited_ns: int
    lag_us: int
    in_flight: int


class Sample(NamedTuple):
    """The time up to `at_ms` after the barrier, since the sample before.

    `cpu_share` is of one core, `waited_share` of the time: the generator was ready to run, and
    another process had its core. `in_flight` is the most that was out at a look.
    """

    at_ms: float
    cpu_share: float
    waited_share: float
    loop_lag_ms: float
    in_flight: int

    @property
    def wanted_share(self) -> float:
        """Of one core: what the generator used, and what it would have used, had it got it."""
        return self.cpu_share + self.waited_share


def samples_of(looks: Sequence[RawSample], most: int = SAMPLES_MAX) -> list[Sample]:
    """What became of the time between looks, the first of which is only the start."""
    width = -(-(len(looks) - 1) // most) if len(looks) > 1 else 1
    return [_between(looks[i : i + width + 1]) for i in range(0, len(looks) - 1, width)]


def busiest(several: Iterable[Sequence[Sample]]) -> list[Sample]:
    """Several processes' samples as one line: of each slot the busiest core, the latest loop, and
    all that is in flight. Processes begin together and look equally often, so slots go by number.
    """
    lines = [samples for samples in several if samples]
    return [
        _worst([samples[slot] for samples in lines if slot < len(samples)])
        for slot in range(max(map(len, lines), default=0))
    ]


def _between(looks: Sequence[RawSample]) -> Sample:
    first, last = looks[0], looks[-1]
    wall_ns = max(1, last.at_ns - first.at_ns)
    return Sample(
        at_ms=round(last.at_ns / 1e6, 1),
        cpu_share=round((last.cpu_ns - first.cpu_ns) / wall_ns, 3),
        waited_share=round((last.waited_ns - first.waited_ns) / wall_ns, 3),
        loop_lag_ms=max(look.lag_us for look in looks[1:]) / 1000,
        in_flight=max(look.in_flight for look in looks[1:]),
    )


def _worst(samples: Sequence[Sample]) -> Sample:
    hottest = max(samples, key=lambda sample: sample.wanted_share)
    return Sample(
        at_ms=max(sample.at_ms for sample in samples),
        cpu_share=hottest.cpu_share,
        waited_share=hottest.waited_share,
        loop_lag_ms=max(sample.loop_lag_ms for sample in samples),
        in_flight=sum(sample.in_flight for sample in samples),
    )


@dataclass(frozen=True)
class SelfReport:
    """What the generator cost and how late it was."""

    cpu_ns: int
    wall_ns: int
    loop_lag: Histogram
    descriptors_limit: int
    samples: tuple[Sample, ...] = ()

    @property
    def cpu_share(self) -> float:
        """Of one core, from the barrier to the end of the drain."""
        return self.cpu_ns / self.wall_ns if self.wall_ns else 0.0


@dataclass(frozen=True)
class ProcessEffort:
    """One process of several, or one shard: its part of the plan, and how it did."""

    name: str
    connections: int
    planned: int
    sent: int
    watch: SelfReport
    start_lag: Histogram
    connect: Histogram


@dataclass(frozen=True)
class Effort:
    """What it took: of each of several `processes`, or shards. `losses` says whose part nobody can
    tell of, one line each."""

    watch: SelfReport
    connect: Histogram
    processes: Annotated[tuple[ProcessEffort, ...], Field(alias="shares")] = ()
    losses: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """The content of effort.json, from which shards' efforts are put together exactly."""
        return _ADAPTER.dump_json(self, by_alias=True) + b"\n"

    @staticmethod
    def of_json(document: bytes) -> "Effort":
        """The effort that was written so. Raises ValueError where it is none."""
        return _ADAPTER.validate_json(document)


_ADAPTER = TypeAdapter(Effort)


def together(
    own: SelfReport | None, processes: Sequence[ProcessEffort], losses: Sequence[str] = ()
) -> Effort:
    """The effort of `processes`, and of the process that kept their record, whose report is `own`
    (None where each kept its own).

    Costs add up; it took as long as the slowest; histograms merge exactly; of samples, the busiest
    process's is kept.
    """
    firing = [process.watch for process in processes]
    every = firing if own is None else [own, *firing]
    watch = SelfReport(
        cpu_ns=sum(report.cpu_ns for report in every),
        wall_ns=max((report.wall_ns for report in firing or every), default=0),
        loop_lag=merged(report.loop_lag for report in firing),
        descriptors_limit=min((report.descriptors_limit for report in every), default=0),
        samples=tuple(busiest(report.samples for report in firing)),
    )
    connect = merged(process.connect for process in processes)
    return Effort(watch, connect, tuple(processes), tuple(losses))


LAG_SHARE_MAX = 0.20
"""Of the response p99: an open run that was as late, in sending or in reading, measured itself."""

START_LAG_FLOOR_US = 1_000
"""A start within a millisecond of its plan is on time. Beside a target that answers in a third of
one, the scheduler's own tenth would be a large share, and say nothing of who measured what."""

REFUSED_SHARE = 0.10
"""A target that turned so much away has failed however late the rest was sent: the few answers that
there are tell little of how late a run was, and nothing of who refused connections."""

LAG_SHARE_DOUBTFUL = 0.10
LAG_FLOOR_US = 10_000
"""A loop that comes round this late is no news: its timers go by the millisecond, and nothing that
lasts five times as long is blurred by it."""

SATURATED = 0.90
"""Of one core. A generator that wants more has answers waiting for it: their latency is its own."""

SATURATED_SHARE_MAX = 0.25
WATCHED_MS_MIN = 1000
"""A shorter run is over before its share of anything says much."""

HEADROOM_MIN = 2.0
"""What the generator could send for what the plan asks. Above half of what one server can do, waits
grow faster than load (M/D/1: at a half, half a service time; at nine tenths, four and a half)."""

PEAK_US = 100_000
"""A peak is the most that is due within so long: shorter ones are the loop's to smooth."""


@dataclass(frozen=True)
class Calibration:
    """What a request cost this generator, in µs of one core, and how long it took to find out."""

    requests: int
    us_per_request: float
    took_ms: float

    def capacity_per_s(self, processes: int = 1) -> float:
        """What so many processes could send a second, each on a core of its own while there are
        enough."""
        return min(processes, len(os.sched_getaffinity(0))) * 1e6 / self.us_per_request


@dataclass(frozen=True)
class Room:
    """What a plan asks of a generator that was calibrated. `peak_per_s` is None for a plan that has
    no rate: then `at_once` attempts leave together at its beginning."""

    calibration: Calibration
    processes: int
    peak_per_s: float | None
    at_once: int

    @property
    def capacity_per_s(self) -> float:
        """What all processes could send a second."""
        return self.calibration.capacity_per_s(self.processes)

    @property
    def headroom(self) -> float | None:
        """Capacity for peak."""
        return self.capacity_per_s / self.peak_per_s if self.peak_per_s else None

    @property
    def burst_ms(self) -> float | None:
        """How long "at once" takes this generator: it cannot be measured any finer."""
        return self.at_once / self.capacity_per_s * 1000 if self.at_once else None


def room_of(calibration: Calibration, processes: int, plan: Plan, open_run: bool) -> Room:
    """The room that `plan` leaves."""
    firsts = plan.first_attempts
    if open_run:
        return Room(calibration, processes, peak_per_s(plan.at_us[: len(firsts)]), 0)
    at_once = bisect_left(plan.at_us, PEAK_US, hi=len(firsts))
    return Room(calibration, processes, None, min(at_once, plan.connection_count))


def peak_per_s(at_us: Sequence[int]) -> float:
    """The highest rate that a plan asks for: `at_us` are the ascending instants of its arrivals."""
    if not at_us:
        return 0.0
    edges = range(at_us[0], at_us[-1] + PEAK_US + 1, PEAK_US)
    ranks = [bisect_left(at_us, edge) for edge in edges]
    return max(b - a for a, b in pairwise(ranks)) * 1e6 / PEAK_US


@dataclass(frozen=True)
class Conduct:
    """What a run is judged by: `watches` of the processes that fired, by name; `headroom` is None
    where the plan has no rate, or nobody measured what the generator can do."""

    planned: int
    sent: int
    open_run: bool
    closed_run: bool
    start_lag: Histogram
    response: Histogram
    watches: Mapping[str, SelfReport] = field(default_factory=dict)
    headroom: float | None = None
    refused: int = 0
    """Attempts that were not sent by the target's doing, which is no fault of the generator."""

    @property
    def target_failed(self) -> bool:
        """Whether the target turned so much away that no lateness of ours can be why."""
        return self.refused > REFUSED_SHARE * self.planned


def health_of(faults: Sequence[str], doubts: Sequence[str]) -> Health:
    """The verdict that follows from what was found."""
    if faults:
        return Health.INVALID
    return Health.SUSPECT if doubts else Health.VALID


def faults(conduct: Conduct) -> list[str]:
    """Why a run proves nothing about its target, one line each; empty for a sound one."""
    found = []
    if conduct.sent + conduct.refused != conduct.planned:
        found.append(f"{conduct.sent:,} of {conduct.planned:,} planned attempts were sent")
    return found if conduct.target_failed else found + _late(conduct)


def doubts(conduct: Conduct) -> list[str]:
    """Why a part of a run's figures may be the generator's own, one line each."""
    lags = [lag for lag in _lags(conduct) if lag.us > LAG_FLOOR_US]
    found = _late(conduct) if conduct.target_failed else []
    found += [
        lag.line(LAG_SHARE_DOUBTFUL)
        for lag in lags
        if LAG_SHARE_DOUBTFUL < lag.share <= LAG_SHARE_MAX
    ]
    saturated = ((name, _saturation(conduct, watch)) for name, watch in conduct.watches.items())
    found += [f"{name} {line}" for name, line in saturated if line]
    if conduct.headroom is not None and conduct.headroom < HEADROOM_MIN:
        found.append(
            f"at its peak the plan asks for {1 / conduct.headroom:.0%} of what this generator can "
            f"send: a headroom of {conduct.headroom:.2f}×, less than {HEADROOM_MIN:.0f}×"
        )
    return found


def _late(conduct: Conduct) -> list[str]:
    return [lag.line(LAG_SHARE_MAX) for lag in _lags(conduct) if lag.share > LAG_SHARE_MAX]


@dataclass(frozen=True)
class _Lag:
    """How late an open run was by its own fault, beside the latency that it is a part of."""

    name: str
    us: int
    of: str
    latency_us: int

    @property
    def share(self) -> float:
        return self.us / self.latency_us if self.latency_us else float(self.us > 0)

    def line(self, limit: float) -> str:
        return (
            f"{self.name} {self.us / 1000:.1f} ms is more than {limit:.0%} of the response "
            f"{self.of} {self.latency_us / 1000:.1f} ms"
        )


def _lags(conduct: Conduct) -> list[_Lag]:
    """1. Start lag, beyond a millisecond: requests left late. 2. Loop lag, beyond what timers are
    late by nature: answers were read late, which looks like the target's latency, and where all
    connections were busy, like the wait for one of them."""
    if not conduct.open_run or not conduct.start_lag.count:
        return []
    of, latency_us = _tail(conduct.response)
    name, lag_us = _tail(conduct.start_lag)
    lags = []
    if lag_us > START_LAG_FLOOR_US:
        lags.append(_Lag(f"start lag {name}", lag_us, of, latency_us))
    for who, watch in conduct.watches.items():
        name, lag_us = _loop_tail(watch.loop_lag)
        if lag_us > LAG_FLOOR_US:
            lags.append(_Lag(f"{who} read answers late: loop lag {name}", lag_us, of, latency_us))
    return lags


def _saturation(conduct: Conduct, watch: SelfReport) -> str:
    """An open run has its answers read late by a generator that wants its whole core, whether it
    has it or waits for it. A closed run that uses it all goes at the generator's pace."""
    if not (conduct.open_run or conduct.closed_run):
        return ""
    whole_ms = hot_ms = since_ms = 0.0
    for sample in watch.samples:
        width_ms, since_ms = sample.at_ms - since_ms, sample.at_ms
        share = sample.wanted_share if conduct.open_run else sample.cpu_share
        whole_ms += width_ms
        hot_ms += width_ms * (share >= SATURATED)
    if whole_ms < WATCHED_MS_MIN or hot_ms <= SATURATED_SHARE_MAX * whole_ms:
        return ""
    verb = "wanted" if conduct.open_run else "used"
    return f"{verb} {SATURATED:.0%} of its core or more for {hot_ms / whole_ms:.0%} of the run"


def _tail(histogram: Histogram) -> tuple[str, int]:
    """The p99 in µs, or the maximum where there are too few samples for one."""
    (p99,) = histogram.percentiles_us(99)
    return ("max", histogram.max_us) if p99 is None else ("p99", p99)


def _loop_tail(lag: Histogram) -> tuple[str, int]:
    """The highest percentile that its rounds, fifty a second, have the samples for."""
    known = zip(("p99", "p95", "p90"), lag.percentiles_us(90, 95, 99)[::-1], strict=True)
    return next(((name, us) for name, us in known if us is not None), ("", 0))
