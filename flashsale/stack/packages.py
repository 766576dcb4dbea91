"""`services install`: the distribution's packages, unpacked for this user, without root."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from flashsale.errors import UnreachableError
from flashsale.stack.binaries import (
    PROGRAMS,
    Binary,
    Program,
    find,
    install_command,
    look,
    look_in_tree,
    look_on_path,
    services_dir,
    services_tree,
)

Say: TypeAlias = Callable[[str], None]

_UPDATE_TIMEOUT_S = 300
_DOWNLOAD_TIMEOUT_S = 900
_TEMPORARY = "install-"

_KEEP_SYSTEM = frozenset({"libc6", "libc-bin"})
"""Never shadowed by an unpacked copy: the loader and its C library must match."""

_APT_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "{folder}/state";
Dir::State::lists "{folder}/lists";
Dir::State::status "{status}";
Dir::Cache "{folder}/cache";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
"""
"""Read after the system's own configuration, so mirrors and proxies stay and hooks that need
root go. The sandbox user is for root alone: `_apt` may not read a home folder."""


def install(say: Say, programs: Sequence[Program] = PROGRAMS) -> list[Binary]:
    """Bring what is missing of one group into its per-user tree; safe to run twice at once.

    Returns the programs as found afterwards. Raises UnreachableError with the cure.
    """
    if all(look(program) for program in programs):
        return [find(program) for program in programs]
    command = install_command(programs[0].group)
    if "services install" not in command:
        raise UnreachableError(f"no apt-get on this system; install with {command}")
    with _exclusive(say):
        # Another install may have finished while this one waited for the lock.
        if not all(look(program) for program in programs):
            _replace_tree([program for program in programs if not look_on_path(program)], say)
    return [find(program) for program in programs]


def _replace_tree(programs: Sequence[Program], say: Say) -> None:
    """Build a whole new tree beside the old one, try it, and rename it into place."""
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=services_dir()) as name:
        work = Path(name)
        apt = Apt(work / "apt")
        say("reading the distribution's package lists")
        apt.update()
        patterns = [pattern for program in programs for pattern in program.package_patterns]
        packages = apt.closure([apt.package(pattern) for pattern in dict.fromkeys(patterns)])
        say(f"fetching {len(packages)} packages: {', '.join(p.split('=')[0] for p in packages)}")
        tree = work / "tree"
        tree.mkdir()
        for archive in apt.download(packages):
            _run(["dpkg", "-x", archive, tree], _DOWNLOAD_TIMEOUT_S, "unpacking failed")
        _try_out(programs, tree)
        place = services_tree(programs[0].group)
        _swap(tree, place, work / "old")
    say(f"unpacked into {place}")


def _try_out(programs: Sequence[Program], tree: Path) -> None:
    for program in programs:
        if look_in_tree(program, tree) is None:
            least = ".".join(map(str, program.least))
            raise UnreachableError(
                f"this release's packages hold no {program.name} {least} or newer that runs; "
                "install one by hand and put it on PATH, or name external servers by URL"
            )


def _swap(new: Path, place: Path, aside: Path) -> None:
    if place.exists():
        place.rename(aside)  # servers that run from it keep their open files
    new.rename(place)


@contextmanager
def _exclusive(say: Say) -> Iterator[None]:
    """Hold the install lock, and clear away what a killed install left behind."""
    folder = services_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "install.lock").open("w")
    except OSError as error:
        raise UnreachableError(
            f"cannot write {folder} ({error.strerror}); set FLASHSALE_SERVICES_DIR"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another install is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


class Apt:
    """apt with a state, lists and cache of its own: needs no root and changes no system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("state", "lists/partial", "cache/archives/partial", "debs"):
            (folder / name).mkdir(parents=True)
        self._blank = folder / "blank-status"
        self._blank.touch()
        self._conf = self._write_conf("apt.conf", Path("/var/lib/dpkg/status"))
        self._blank_conf = self._write_conf("blank.conf", self._blank)

    def update(self) -> None:
        """Fetch the package lists. One source out of order among others is not fatal."""
        _run(["apt-get", "-c", self._conf, "update"], _UPDATE_TIMEOUT_S, "", check=False)
        if not any((self._folder / "lists").glob("*_Packages*")):
            raise UnreachableError(
                "apt-get update brought no package lists; check the network and the system's apt "
                "sources, or install redis-server, mariadb-server and nginx as root"
            )

    def package(self, pattern: str) -> str:
        """The package of that name in this release: some carry a version in it."""
        found = _run(
            ["apt-cache", "-c", self._conf, "search", "--names-only", pattern],
            _UPDATE_TIMEOUT_S,
            "apt-cache search failed",
        )
        names = [line.split()[0] for line in found.splitlines() if line]
        if not names:
            raise UnreachableError(
                f"this release has no package {pattern.strip('^$')}; install the programs by hand"
            )
        return max(names, key=_release)

    def closure(self, packages: Sequence[str]) -> list[str]:
        """`name=version` of each package to unpack: those named and what this system lacks.

        apt decides against the system's own status. Where that is broken or held, it decides
        against an empty one, and what dpkg calls installed is left out. (The packages named are
        wanted in any case: what the system has of them is too old or out of reach.)
        """
        try:
            return self._simulate(self._conf, packages)
        except UnreachableError:
            every = self._simulate(self._blank_conf, packages)
            left_out = _installed() - set(packages)
            return [package for package in every if package.split("=")[0] not in left_out]

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Fetch and verify the archives; returns their paths."""
        debs = self._folder / "debs"
        _run(
            ["apt-get", "-c", self._conf, "-q", "download", *packages],
            _DOWNLOAD_TIMEOUT_S,
            "apt-get download failed",
            cwd=debs,
        )
        return sorted(debs.glob("*.deb"))

    def _simulate(self, conf: Path, packages: Sequence[str]) -> list[str]:
        told = _run(
            ["apt-get", "-c", conf, "-s", "--reinstall", "install", *packages],
            _UPDATE_TIMEOUT_S,
            "apt-get cannot resolve the packages",
        )
        planned = re.findall(r"^Inst (\S+)(?: \[[^\]]*\])? \((\S+)", told, re.MULTILINE)
        return [f"{name}={version}" for name, version in planned if name not in _KEEP_SYSTEM]

    def _write_conf(self, name: str, status: Path) -> Path:
        conf = self._folder / name
        conf.write_text(_APT_CONF.format(folder=self._folder, status=status))
        return conf


def _release(name: str) -> tuple[bool, list[int]]:
    """Orders package names: the unversioned one is the release's own choice, else the newest."""
    numbers = [int(part) for part in re.findall(r"\d+", name)]
    return not numbers, numbers


def _installed() -> frozenset[str]:
    told = _run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n"], 60, "dpkg-query failed"
    )
    return frozenset(line[2:].strip() for line in told.splitlines() if line.startswith("ii"))


def _run(
    command: Sequence[str | Path],
    timeout_s: int,
    failure: str,
    *,
    check: bool = True,
    cwd: Path | None = None,
) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=cwd,
            env=os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired:
        raise UnreachableError(
            f"{command[0]} did not finish within {timeout_s} s; check the network and try again"
        ) from None
    if check and done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UnreachableError(f"{failure}: {''.join(last)}; install the packages as root instead")
    return done.stdout
