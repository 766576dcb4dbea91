"""How the generator fared while it fired, ten times a second: its core, its loop, its claims. Pure.

A look is what was read at one instant, counted from the start of the process; a sample is what
became of it between two looks.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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


def busiest(crews: Iterable[Sequence[Sample]]) -> list[Sample]:
    """Several processes' samples as one line: of each slot the busiest core, the latest loop, and
    all that is in flight. Processes begin together and look equally often, so slots go by number.
    """
    lines = [samples for samples in crews if samples]
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
