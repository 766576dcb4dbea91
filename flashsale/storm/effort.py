"""What firing a plan took: of each process that fired, and of all together. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from flashsale.storm.histogram import Histogram, merged
from flashsale.storm.samples import busiest
from flashsale.storm.selfwatch import SelfReport


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


def together(own: SelfReport, shares: Sequence[Share], losses: Sequence[str] = ()) -> Effort:
    """The effort of `shares`, and of the process that kept their record, whose report is `own`.

    Costs add up; it took as long as the slowest; histograms merge exactly; of samples, the busiest
    process's is kept.
    """
    reports = [share.watch for share in shares]
    watch = SelfReport(
        cpu_ns=own.cpu_ns + sum(report.cpu_ns for report in reports),
        wall_ns=max((report.wall_ns for report in reports), default=own.wall_ns),
        loop_lag=merged(report.loop_lag for report in reports),
        descriptors_limit=min(report.descriptors_limit for report in [own, *reports]),
        samples=tuple(busiest(report.samples for report in reports)),
    )
    connect = merged(share.connect for share in shares)
    return Effort(watch, connect, tuple(shares), tuple(losses))
