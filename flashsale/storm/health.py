"""Whether a run proves anything about its target: the generator's own verdict. Pure.

A load test says something only if its own load was the plan's. INVALID: it was not, or what it
measured was itself. SUSPECT: the figures stand, and a part of them may be the generator's.

Only an open run has arrivals of its own to be late for. A closed one waits for its answers, and a
stampede without spread saturates its core by nature, so their lag is reported and not judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from flashsale.storm.histogram import Histogram
from flashsale.storm.selfwatch import SelfReport

LAG_SHARE_MAX = 0.20
"""Of the response p99: an open run whose start lag exceeds it measured itself."""

LOOP_LAG_FLOOR_US = 10_000
"""A loop that comes round this late is no news: its timers go by the millisecond, and nothing that
lasts longer than five times as much is blurred by it."""

SATURATED = 0.90
"""Of one core. A generator that wants more has answers waiting for it: their latency is its own."""

SATURATED_SAMPLES_MAX = 0.25
SAMPLES_MIN = 10
"""So many samples, a second of them, before a share of them says anything."""

HEADROOM_MIN = 2.0
"""What the generator could send for what the plan asks. Above half of what one server can do, waits
grow faster than load (M/D/1: at a half, half a service time; at nine tenths, four and a half)."""


class Health(StrEnum):
    """Whether the generator did what the plan said, and had the room to."""

    VALID = "valid"
    SUSPECT = "suspect"
    INVALID = "invalid"


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


def health_of(faults: Sequence[str], doubts: Sequence[str]) -> Health:
    """The verdict that follows from what was found."""
    if faults:
        return Health.INVALID
    return Health.SUSPECT if doubts else Health.VALID


def faults(conduct: Conduct) -> list[str]:
    """Why a run proves nothing about its target, one line each; empty for a sound one."""
    found = []
    if conduct.sent != conduct.planned:
        found.append(f"{conduct.sent:,} of {conduct.planned:,} planned attempts were sent")
    if conduct.open_run and conduct.start_lag.count:
        (name, lag), (of, latency) = _tail(conduct.start_lag), _tail(conduct.response)
        if lag > LAG_SHARE_MAX * latency:
            found.append(
                f"start lag {name} {lag / 1000:.1f} ms is more than "
                f"{LAG_SHARE_MAX:.0%} of the response {of} {latency / 1000:.1f} ms"
            )
    return found


def doubts(conduct: Conduct) -> list[str]:
    """Why a part of a run's figures may be the generator's own, one line each."""
    found = []
    for name, watch in conduct.watches.items():
        lines = _saturation(conduct, watch), _late_loop(conduct, watch)
        found += [f"{name} {line}" for line in lines if line]
    if conduct.headroom is not None and conduct.headroom < HEADROOM_MIN:
        found.append(
            f"at its peak the plan asks for {1 / conduct.headroom:.0%} of what this generator can "
            f"send: a headroom of {conduct.headroom:.2f}×, less than {HEADROOM_MIN:.0f}×"
        )
    return found


def _saturation(conduct: Conduct, watch: SelfReport) -> str:
    """An open run has its answers read late by a generator that wants its whole core, whether it
    has it or waits for it. A closed run that uses it all goes at the generator's pace."""
    samples = watch.samples
    if len(samples) < SAMPLES_MIN or not (conduct.open_run or conduct.closed_run):
        return ""
    wanted = [s.wanted_share if conduct.open_run else s.cpu_share for s in samples]
    hot = sum(share >= SATURATED for share in wanted) / len(samples)
    if hot <= SATURATED_SAMPLES_MAX:
        return ""
    verb = "wanted" if conduct.open_run else "used"
    return f"{verb} {SATURATED:.0%} of its core or more for {hot:.0%} of the run"


def _late_loop(conduct: Conduct, watch: SelfReport) -> str:
    """By the highest percentile that the loop's rounds, fifty a second, have the samples for."""
    known = zip(("p99", "p95", "p90"), watch.loop_lag.percentiles_us(90, 95, 99)[::-1], strict=True)
    name, lag = next(((name, lag) for name, lag in known if lag is not None), ("", 0))
    of, latency = _tail(conduct.response)
    if not conduct.open_run or lag <= max(LOOP_LAG_FLOOR_US, LAG_SHARE_MAX * latency):
        return ""
    return (
        f"read answers late: loop lag {name} {lag / 1000:.1f} ms is more than "
        f"{LAG_SHARE_MAX:.0%} of the response {of} {latency / 1000:.1f} ms"
    )


def _tail(histogram: Histogram) -> tuple[str, int]:
    """The p99 in µs, or the maximum where there are too few samples for one."""
    (p99,) = histogram.percentiles_us(99)
    return ("max", histogram.max_us) if p99 is None else ("p99", p99)
