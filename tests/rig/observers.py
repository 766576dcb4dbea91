"""Prometheus, its tool and its exporters for the tests that need them: fetched where missing.

`make test` does not fetch them, so these tests are slow ones, and see to it themselves.
"""

import subprocess
from pathlib import Path

import pytest

from flashsale.stack import binaries, packages


def fetched() -> None:
    """Have all of them here; skip where this system has no packages of them to fetch."""
    missing = [each for each in binaries.OBSERVERS if binaries.look(each) is None]
    if missing and "services install" not in binaries.install_command(binaries.OBSERVE):
        pytest.skip(f"{missing[0].name} is missing, and this is neither Debian nor Ubuntu")
    packages.install(print, binaries.OBSERVERS)


def promtool(
    *arguments: str | Path, told: bytes | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run promtool; `told` is its standard input."""
    binary = binaries.find(binaries.PROMTOOL)
    return subprocess.run(
        [binary.path, *arguments],
        input=told,
        capture_output=True,
        timeout=240,
        check=False,
        cwd=cwd,
        env=binary.environment(),
    )
