"""Other load generators to stand beside: found on PATH, else fetched into the per-user cache.

wrk and hey come as the distribution's packages, Locust from the package index into an environment
of its own, vegeta, k6 and oha from their registries where Go or Cargo is there to build them. None
is a dependency of the project.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

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


class Built(NamedTuple):
    """A rival that its language's own tool fetches and builds."""

    name: str
    words: tuple[str, ...]


VEGETA = Built("vegeta", ("go", "install", "github.com/tsenart/vegeta/v12@latest"))
K6 = Built("k6", ("go", "install", "go.k6.io/k6@latest"))
OHA = Built("oha", ("cargo", "install", "--quiet", "--locked", "oha"))
_LOCUST = "locust>=2.32"
_INSTALL_TIMEOUT_S = 900


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


def built(rival: Built) -> str:
    """The path of vegeta, k6 or oha, built first where it is missing. Raises Missing."""
    on_path = shutil.which(rival.name)
    if on_path:
        return on_path
    folder = services_dir().parent / "rivals"
    program = folder / "bin" / rival.name
    if not program.exists():
        if shutil.which(rival.words[0]) is None:
            raise Missing(f"{rival.name} is not on PATH, and no {rival.words[0]} to build it with")
        _say(f"building {rival.name} into {folder}")
        where = {"GOBIN": str(folder / "bin"), "CARGO_INSTALL_ROOT": str(folder)}
        _fetch(rival.name, [*rival.words], {**os.environ, **where})
    return str(program)


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
    own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        for words in ([sys.executable, "-m", "venv", str(venv)], pip):
            _fetch("Locust", words, own)
    except Missing:
        _forget(venv)
        raise


def _fetch(name: str, words: list[str], environment: dict[str, str]) -> None:
    """Run one step of a rival's coming. Raises Missing with its last line."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{name} could not be fetched ({error})") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Missing(f"{name} could not be fetched ({' '.join(last)})")


def _forget(venv: Path) -> None:
    """Take a half one away."""
    shutil.rmtree(venv, ignore_errors=True)


def _say(line: str) -> None:
    print(f"benchmarks: {line}", file=sys.stderr)
