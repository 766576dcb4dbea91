"""What summary.json tells of the generator: what it cost, how late it was, how it was judged, and
the machine that it ran on.
"""

import os
import platform
from enum import StrEnum
from pathlib import Path
from typing import Self

from flashsale.run.parts import Latency, Part

_CPUINFO = Path("/proc/cpuinfo")


class Health(StrEnum):
    """Whether the generator did what the plan said, and had the room to."""

    VALID = "valid"
    SUSPECT = "suspect"
    INVALID = "invalid"


class CalibrationFigures(Part):
    """What the generator could send, measured before the run against a null responder.

    `headroom` is capacity for the plan's peak, null for a plan without a rate of its own;
    `burst_ms` is how long sending and reading takes that leaves at once.
    """

    requests: int
    took_ms: float
    us_per_request: float
    capacity_per_s: float
    peak_per_s: float | None
    headroom: float | None
    burst_ms: float | None


class SampleFigures(Part):
    """A tenth of a second of the generator, or more of a long run."""

    at_ms: float
    cpu_share: float
    waited_share: float
    loop_lag_ms: float
    in_flight: int


class WorkerFigures(Part):
    """How one of several processes did that fired the plan."""

    name: str
    connections: int
    planned: int
    sent: int
    cpu_us_per_request: float | None
    cpu_share: float
    start_lag_ms: Latency
    loop_lag_ms: Latency
    connect_ms: Latency
    samples: list[SampleFigures] = []


class GeneratorFigures(Part):
    """How the storm itself did: in all, and each of its `workers` where there were several.

    `complaints` make a run invalid, `doubts` make it suspect.
    """

    verdict: Health
    complaints: list[str]
    doubts: list[str] = []
    cpu_us_per_request: float | None
    cpu_share: float
    start_lag_ms: Latency
    loop_lag_ms: Latency
    connect_ms: Latency
    descriptors_limit: int
    calibration: CalibrationFigures | None = None
    workers: list[WorkerFigures] = []
    samples: list[SampleFigures] = []


class Machine(Part):
    """What a load test's figures depend on, apart from its target."""

    system: str
    processor: str
    cpus: int
    """Those that this process may run on."""

    python: str

    @classmethod
    def here(cls) -> Self:
        """The machine that this process runs on."""
        return cls(
            system=f"{platform.system()} {platform.release()}",
            processor=_processor() or platform.processor() or platform.machine(),
            cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cpus(),
            python=platform.python_version(),
        )

    def differences(self, other: "Machine") -> list[str]:
        """How `other` differs, a word or two each. Pure."""
        theirs = other.model_dump()
        return [
            f"{name} {value!r}, was {theirs[name]!r}"
            for name, value in self.model_dump().items()
            if value != theirs[name]
        ]


def _cpus() -> int:
    return os.cpu_count() or 1


def _processor() -> str:
    """The processor's own name; Python knows only the architecture on Linux."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
