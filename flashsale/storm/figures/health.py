"""Whether a run proves anything about its target: the generator's own verdict. Pure.

A load test says something only if its own load was the plan's. INVALID: it was not, or what it
measured was itself. SUSPECT: the figures stand, and a part of them may be the generator's.

Only an open run has arrivals of its own to be late for. A closed one waits for its answers, and a
stampede without spread saturates its core by nature, so their lag is reported and not judged.

Handshakes tell by their times of a full listen queue, which drops them for another try. A SYN
without an answer is sent again after a second, then after ever longer (RFC 6298: 1, 3, 7 s after
the first), or, as Linux does since 6.5, first every second (tcp_syn_linear_timeouts). So handshakes
that were dropped take whole seconds, and a little: a cluster behind each.
"""

import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from flashsale.run.histogram import Histogram
from flashsale.run.parts import Health
from flashsale.storm.figures.effort import SelfReport
from flashsale.storm.plan.plan import Plan

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

RETRIES_S = (1, 2, 3, 4, 5, 7, 11, 15, 31)
CLUSTER_US = 250_000
"""How long after a retry its answer counts as one: a round trip, and the loop's own lag."""


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


def retried(connect: Histogram) -> dict[int, int]:
    """Seconds of a retry → the connections that stood just after it; empty where none did."""
    found = {s: connect.between(s * 1_000_000, s * 1_000_000 + CLUSTER_US) for s in RETRIES_S}
    return {seconds: count for seconds, count in found.items() if count}


def listen_queue_hint(connect: Histogram) -> str | None:
    """Trouble with the target's listen queue, and its cure; None where there is none."""
    clusters = retried(connect)
    if not clusters:
        return None
    times = ", ".join(f"{n:,} took about {seconds} s" for seconds, n in clusters.items())
    return (
        f"listen queue: of {connect.count:,} connections {times}, as where a SYN was dropped "
        "and sent again; raise the target's listen backlog and net.core.somaxconn"
    )
