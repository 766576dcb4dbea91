"""`make releases`: the stampede, rehearsed on the programs of every release that can be had.

Unpacks each release's Redis, MariaDB, nginx and Python side by side into a cache folder, without
root, and runs them on this machine through their own release's loader and C library. Prints what
was tried, and writes the same table into docs/machines.md.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flashsale.errors import ExitCode, UnreachableError
from flashsale.stack import binaries
from flashsale.stack.packages import Apt
from tools.mirror import mirror

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "machines.md"
BEGIN, END = "<!-- begin: make releases -->", "<!-- end: make releases -->"
HEADINGS = ("release", "Redis", "MariaDB", "nginx", "Python", "outcome", "took")

_PYTHON = r"^python3-venv$"
_REHEARSAL_TIMEOUT_S = 300
_TRIES = 3
_MACHINE_TOO_BUSY = (ExitCode.THRESHOLD, ExitCode.INVALID_RUN)  # says nothing of the programs
_INSTALL_TIMEOUT_S = 900
_COMPONENTS = {"debian": "main", "ubuntu": "main universe"}
_PROGRAMS = "usr/programs"  # beside usr/share and usr/lib, where a program looks for its files
_WRAPPER = """\
#!/bin/sh
exec "{loader}" --library-path "{libraries}" --argv0 "$0" "{program}" "$@"
"""


@dataclass(frozen=True)
class Release:
    """A release of a distribution, by the name that its archive knows it by."""

    system: str
    name: str

    def __str__(self) -> str:
        return f"{self.system} {self.name}"

    def sources(self, archive: str) -> str:
        """Its line of a sources.list, with the key that this machine has for the distribution."""
        keyring = Path(f"/usr/share/keyrings/{self.system}-archive-keyring.gpg")
        signed = f"[signed-by={keyring}] " if keyring.exists() else ""
        return f"deb {signed}{archive} {self.name} {_COMPONENTS[self.system]}\n"


RELEASES = (
    Release("debian", "bookworm"),
    Release("debian", "trixie"),
    Release("debian", "sid"),
    Release("ubuntu", "noble"),
    Release("ubuntu", "questing"),
    Release("ubuntu", "resolute"),
)


@dataclass(frozen=True)
class Row:
    """What was tried: one release's programs with one Python."""

    cells: Sequence[str]
    held: bool

    def __str__(self) -> str:
        return f"| {' | '.join(self.cells)} |"


def resolve(apt: Apt) -> list[str]:
    """`name=version` of each package that the programs of a release need."""
    patterns = [p for program in binaries.PROGRAMS for p in program.package_patterns]
    return apt.closure([apt.package(pattern) for pattern in [*patterns, _PYTHON]])


def unpack(release: Release, place: Path, archive: str) -> None:
    """Fetch a release's programs into `place`, whole or not at all, and wrap each of them."""
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="unpack-", dir=place.parent) as name:
        apt = Apt(Path(name) / "apt", release.sources(archive))
        apt.update()
        apt.unpack(resolve(apt), Path(name) / "tree")
        _wrap(Path(name) / "tree", place)
        (Path(name) / "tree").rename(place)


def _wrap(tree: Path, place: Path) -> None:
    """Write a script for each program, by which the tree runs wherever its `place` is."""
    machine = f"{platform.machine()}-linux-gnu"
    folders = [
        folder for folder in (f"usr/lib/{machine}", f"lib/{machine}") if (tree / folder).exists()
    ]
    # The links to it are absolute: they would lead to this machine's own.
    loader = next(
        path
        for folder in folders
        for path in (tree / folder).glob("ld-linux-*.so.*")
        if path.is_file() and not path.is_symlink()
    )
    (tree / _PROGRAMS).mkdir()
    for program in _servers_and_python(tree):
        script = tree / _PROGRAMS / program.name
        script.write_text(
            _WRAPPER.format(
                loader=place / loader.relative_to(tree),
                libraries=os.pathsep.join(str(place / folder) for folder in folders),
                program=place / program.resolve().relative_to(tree.resolve()),
            )
        )
        script.chmod(0o755)


def _servers_and_python(tree: Path) -> Iterator[Path]:
    for folder in (tree / "usr/bin", tree / "usr/sbin"):
        for name in ("redis-server", "mariadbd", "nginx"):
            if (folder / name).exists():
                yield folder / name
    numbered = (tree / "usr/bin").glob("python3.[0-9]*")
    yield from (path for path in numbered if re.fullmatch(r"python3\.\d+", path.name))


def pythons(tree: Path) -> list[Path]:
    """The interpreters to try a release with: this one, and its own."""
    own = sorted((tree / _PROGRAMS).glob("python3.*"))
    return [Path(sys.executable), *own]


def environment_of(python: Path, cache: Path) -> Path:
    """The interpreter of an environment with this checkout, as `make` would install it."""
    if python == Path(sys.executable):
        return python
    place = cache / f"venv-{python.parents[2].name}"
    inside = place / "bin" / "python"
    lock, made_of = ROOT / "requirements.lock", place / "made-of.lock"
    if made_of.exists() and made_of.read_bytes() == lock.read_bytes():
        return inside
    shutil.rmtree(place, ignore_errors=True)
    install: list[str | Path] = [
        inside,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    # Debian's ensurepip would take its wheel from this machine's /usr/share.
    _run([python, "-m", "venv", "--without-pip", place])
    (wheel,) = python.parents[1].glob("share/python-wheels/pip-*.whl")
    _run([inside, wheel / "pip", "install", "--quiet", "--no-index", wheel])
    _run([*install, "--require-hashes", "-r", lock])
    _run([*install, "--no-deps", "--no-build-isolation", "--editable", ROOT])
    shutil.copy(lock, made_of)
    return inside


def _run(command: Sequence[str | Path]) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=True
        ).stdout
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or error.stdout.strip()).splitlines()[-1:]
        raise UnreachableError(f"{Path(command[0]).name} failed: {''.join(last)}") from None


def rehearse(release: Release, tree: Path, python: Path, cache: Path) -> Row:
    """Rehearse the stampede on a release's programs, with one interpreter."""
    versions = [_version(tree, program) for program in binaries.PROGRAMS]
    number, took_s = python.name, 0.0
    try:
        inside = environment_of(python, cache)
        number = _run([inside, "-c", "import platform; print(platform.python_version())"]).strip()
        tries = 0
        while tries < _TRIES:
            tries += 1
            started = time.monotonic()
            code, said = _stampede(inside, tree, cache / "runs" / f"{tree.name}-{number}")
            took_s = time.monotonic() - started
            if code not in _MACHINE_TOO_BUSY:
                break
        outcome = "pass" if code == ExitCode.PASS else f"exit {code}: {said}"
        outcome += f", at try {tries}" if tries > 1 else ""
    except (UnreachableError, subprocess.TimeoutExpired) as error:
        code, outcome = ExitCode.UNREACHABLE, str(error)
    cells = [str(release), *versions, number, outcome, f"{took_s:.0f} s"]
    return Row(cells, code == ExitCode.PASS)


def _stampede(python: Path, tree: Path, folder: Path) -> tuple[int, str]:
    """The exit code of one rehearsal, and its last line."""
    path = os.pathsep.join([str(tree / _PROGRAMS), os.environ.get("PATH", "")])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / "output.txt").open("w") as output:
        code = subprocess.run(
            [python, "-P", "-m", "flashsale", "rehearse", "stampede", "--out", folder / "run"],
            env=os.environ | {"PATH": path, "FLASHSALE_SERVICES_DIR": str(folder / "none")},
            cwd=folder,
            stdout=output,
            stderr=output,
            timeout=_REHEARSAL_TIMEOUT_S,
            check=False,
        ).returncode
    text = (folder / "output.txt").read_text(errors="replace")
    return code, next(iter(text.strip().splitlines()[-1:]), "")


def _version(tree: Path, program: binaries.Program) -> str:
    for name in program.names:
        version = binaries.version_of(program, tree / _PROGRAMS / name)
        if version:
            return ".".join(map(str, version))
    return "–"


def try_release(release: Release, cache: Path, *, this_python: bool) -> Iterator[Row]:
    """Every row of one release; one row says why where its packages cannot be had."""
    tree = cache / f"{release.system}-{release.name}-{platform.machine()}"
    try:
        unpack(release, tree, mirror(release.system))
    except UnreachableError as error:
        why = str(error).split(";")[0]
        yield Row([str(release), "–", "–", "–", "–", f"not tried: {why}", "–"], held=True)
        return
    for python in pythons(tree)[: 1 if this_python else None]:
        yield rehearse(release, tree, python, cache)


def write(rows: Sequence[Row]) -> None:
    """Put the table between its marks in docs/machines.md."""
    text = DOCUMENT.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    lines = [Row(HEADINGS, held=True), Row(["---"] * len(HEADINGS), held=True), *rows]
    table = "\n".join(map(str, lines))
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def main() -> int:
    """Try every release that is named, else all; returns 1 where a rehearsal did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tools.releases", description=__doc__)
    parser.add_argument("names", nargs="*", help="releases to try (all: every one, and the table)")
    parser.add_argument("--this-python", action="store_true", help="not the releases' own")
    options = parser.parse_args()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("FLASHSALE_RELEASES_DIR", Path(home) / "flashsale" / "releases"))
    rows = []
    for release in RELEASES:
        if not options.names or release.name in options.names:
            for row in try_release(release, cache, this_python=options.this_python):
                print(row, flush=True)
                rows.append(row)
    if not options.names and not options.this_python:
        write(rows)
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
