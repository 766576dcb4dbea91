"""The machine that a storm ran on: two runs on different ones say little about each other."""

import os
import platform
from pathlib import Path
from typing import Self

from flashsale.storm.figures.part import Part

_CPUINFO = Path("/proc/cpuinfo")


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
