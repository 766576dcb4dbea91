"""What firing a plan took: of each process that fired, and of all together. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from flashsale.storm.figures.histogram import Histogram, merged
from flashsale.storm.health.samples import busiest
from flashsale.storm.health.selfwatch import SelfReport


@dataclass(frozen=True)
class Share:
    """One process of several: its part of the plan, and how it did."""

    name: str
    connections: int
    planned: int
    sent: int
    watch: SelfReport
    start_lag: Histogram
    connect: Histogram


@dataclass(frozen=True)
class Effort:
    """What it took. `losses` says whose share nobody can tell of, one line each."""

    watch: SelfReport
    connect: Histogram
    shares: tuple[Share, ...] = ()
    losses: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """The content of effort.json, from which shards' efforts are put together exactly."""
        return _ADAPTER.dump_json(self) + b"\n"

    @staticmethod
    def of_json(document: bytes) -> "Effort":
        """The effort that was written so. Raises ValueError where it is none."""
        return _ADAPTER.validate_json(document)


_ADAPTER = TypeAdapter(Effort)


def together(own: SelfReport | None, shares: Sequence[Share], losses: Sequence[str] = ()) -> Effort:
    """The effort of `shares`, and of the process that kept their record, whose report is `own`
    (None where each kept its own).

    Costs add up; it took as long as the slowest; histograms merge exactly; of samples, the busiest
    process's is kept.
    """
    firing = [share.watch for share in shares]
    every = firing if own is None else [own, *firing]
    watch = SelfReport(
        cpu_ns=sum(report.cpu_ns for report in every),
        wall_ns=max((report.wall_ns for report in firing or every), default=0),
        loop_lag=merged(report.loop_lag for report in firing),
        descriptors_limit=min((report.descriptors_limit for report in every), default=0),
        samples=tuple(busiest(report.samples for report in firing)),
    )
    connect = merged(share.connect for share in shares)
    return Effort(watch, connect, tuple(shares), tuple(losses))
