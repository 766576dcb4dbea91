"""What firing a plan took: of each process that fired, and of all together. Pure.

A process is looked at ten times a second while it fires. A look is what was read at one instant,
counted from the start of the process; a sample is what became of it between two looks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter

from flashsale.run.histogram import Histogram, merged

SAMPLES_MAX = 600
"""A minute at ten a second. A longer run has wider samples, not more."""


class Look(NamedTuple):
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


def samples_of(looks: Sequence[Look], most: int = SAMPLES_MAX) -> list[Sample]:
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


def _between(looks: Sequence[Look]) -> Sample:
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
