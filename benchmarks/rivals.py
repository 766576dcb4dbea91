"""Other load generators to stand beside: found on PATH, else fetched into the per-user cache.

wrk and hey come as the distribution's packages, Locust from the package index into an environment
of its own; it is no dependency of the project.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from flashsale.errors import UnreachableError
from flashsale.stack.binaries import Binary, Program, find, look, services_dir
from flashsale.stack.packages import install

_GROUP = "benchmarks"
WRK = Program(
    name="wrk",
    names=("wrk",),
    least=(4, 0),
    version_command=("-v",),
    version_pattern=r"wrk \D*(\d[\d.]*)",
    package_patterns=(r"^wrk$",),
    group=_GROUP,
)
HEY = Program(
    name="hey",
    names=("hey",),
    least=(),
    version_command=("--help",),
    version_pattern=r"Number of requests to run\. Default is (\d+)",  # it tells no version
    package_patterns=(r"^hey$",),
    group=_GROUP,
)
_LOCUST = "locust>=2.32"
_INSTALL_TIMEOUT_S = 600


class Missing(Exception):  # noqa: N818 - an answer, as in "the rival is missing"
    """A rival that is not here and could not be fetched; the message says why, in a line."""


def binary_of(program: Program) -> Binary:
    """wrk or hey, fetched first where it is missing. Raises Missing."""
    if look(program) is None:
        try:
            install(_say, [WRK, HEY])
        except UnreachableError as error:
            raise Missing(f"{program.name} is neither on PATH nor to be had: {error}") from error
    return find(program)


def locust_command() -> list[str]:
    """What to run for Locust. Raises Missing."""
    on_path = shutil.which("locust")
    if on_path:
        return [on_path]
    venv = services_dir().parent / f"locust-{sys.version_info[0]}.{sys.version_info[1]}"
    program = venv / "bin" / "locust"
    if not program.exists():
        _install_locust(venv)
    return [str(program)]


def _install_locust(venv: Path) -> None:
    """A whole environment or none."""
    _say(f"fetching Locust into {venv}")
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", _LOCUST]
    for words in ([sys.executable, "-m", "venv", str(venv)], pip):
        try:
            done = subprocess.run(
                words,
                capture_output=True,
                text=True,
                timeout=_INSTALL_TIMEOUT_S,
                check=False,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            _forget(venv)
            raise Missing(f"Locust could not be fetched ({error})") from error
        if done.returncode:
            _forget(venv)
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise Missing(f"Locust could not be fetched ({' '.join(last)})")


def _forget(venv: Path) -> None:
    """Take a half one away."""
    shutil.rmtree(venv, ignore_errors=True)


def _say(line: str) -> None:
    print(f"benchmarks: {line}", file=sys.stderr)
