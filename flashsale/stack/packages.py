"""The programs' per-user trees: fetched whole from the distribution, tried, mended, removed.

The distribution's own apt resolves and fetches the packages, without root.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import psutil

from flashsale.errors import UnreachableError, UsageError
from flashsale.files import private_folder
from flashsale.stack.binaries import (
    PROGRAMS,
    TREE_MARK,
    Binary,
    Program,
    absence,
    find,
    install_command,
    look,
    look_in_tree,
    look_on_path,
    mark_tree,
    services_dir,
    services_tree,
    tree_release,
)
from flashsale.stack.trial import complaint

_UPDATE_TIMEOUT_S = 300
_DOWNLOAD_TIMEOUT_S = 900

_KEEP_SYSTEM = frozenset({"libc6", "libc-bin"})
"""Never shadowed by an unpacked copy: the loader and its C library must match."""

_FOREIGN = """\
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
"""
"""For the packages of another release: its sources alone, and none of this system's wishes."""

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


class Apt:
    """apt with a state, lists and cache of its own: needs no root and changes no system.

    With `sources` (lines of a sources.list) it serves another release than this system's, and
    unpacks that one's C library as well: such programs run through a loader of their own.
    """

    def __init__(self, folder: Path, sources: str | None = None) -> None:
        self._folder = folder
        self._sources = sources
        for name in ("state", "lists/partial", "cache/archives/partial", "debs"):
            (folder / name).mkdir(parents=True)
        self._blank = folder / "blank-status"
        self._blank.touch()
        self._blank_conf = self._write_conf("blank.conf", self._blank)
        self._conf = self._write_conf("apt.conf", Path("/var/lib/dpkg/status"))
        if sources is not None:
            (folder / "sources.list").write_text(sources, encoding="utf-8")
            self._conf = self._blank_conf

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

    def unpack(self, packages: Sequence[str], tree: Path) -> None:
        """Fetch the packages, verified, and unpack them into a new folder."""
        tree.mkdir()
        for archive in self._download(packages):
            _run(["dpkg", "-x", archive, tree], _DOWNLOAD_TIMEOUT_S, "unpacking failed")

    def _download(self, packages: Sequence[str]) -> list[Path]:
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
        kept = frozenset() if self._sources is not None else _KEEP_SYSTEM
        return [f"{name}={version}" for name, version in planned if name not in kept]

    def _write_conf(self, name: str, status: Path) -> Path:
        conf = self._folder / name
        text = _APT_CONF if self._sources is None else _APT_CONF + _FOREIGN
        filled = text.format(folder=self._folder, status=status)
        conf.write_bytes(filled.encode("utf-8", "surrogateescape"))
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
            encoding="utf-8",
            errors="replace",
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


Say: TypeAlias = Callable[[str], None]

_LOCK = "install.lock"
_TEMPORARY = "install-"
_TREE_NAME = re.compile(r"[a-z]+-[a-z0-9.]+-\w+(-observe)?")
"""A tree of before they were marked: system, release, machine, and what it is for."""


def install(say: Say, programs: Sequence[Program] = PROGRAMS) -> list[Binary]:
    """Bring what is missing or does not start, of one group, into its per-user tree.

    Every program is started once. Safe to run twice at once. Returns the programs as found
    afterwards, each of which starts. Raises UnreachableError with the cure.
    """
    wrong = _what_is_wrong(programs)
    if not wrong:
        return [find(program) for program in programs]
    if "services install" not in install_command(programs[0].group):
        raise UnreachableError(_cure_without_apt(wrong[0], programs[0].group))
    with _exclusive(say):
        # Another install may have finished while this one waited for the lock.
        wrong = _what_is_wrong(programs)
        for line in wrong:
            say(line)
        if wrong:
            wanted = [program for program in programs if not _on_path(program)]
            _replace_tree(services_tree(programs[0].group), wanted, say)
    return [find(program) for program in programs]


def _what_is_wrong(programs: Sequence[Program]) -> list[str]:
    """A line for each program that is not there or does not start."""
    lines = []
    for program in programs:
        binary = look(program)
        why = None if binary is None else complaint(program, binary)
        if binary is None:
            lines.append(absence(program))
        elif why:
            lines.append(f"{program.name} {binary} does not start: {why}")
    return lines


def _cure_without_apt(wrong: str, group: str) -> str:
    command = install_command(group)
    if "does not start" in wrong:
        return f"{wrong}; remove its package, and install anew with {command}"
    return f"{wrong}, and no apt-get on this system; install with {command}"


def _on_path(program: Program) -> bool:
    """Whether the system offers a program that starts, so that none has to be fetched."""
    binary = look_on_path(program)
    return binary is not None and complaint(program, binary) is None


def _replace_tree(place: Path, programs: Sequence[Program], say: Say) -> None:
    """Build a whole new tree beside the old one, start what is in it, and rename it into place."""
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=services_dir()) as name:
        work = Path(name)
        if not programs:  # the system offers them all by now, and the tree hides them
            place.rename(work / "old")
            say(f"removed {place}: what is on PATH starts")
            return
        apt = Apt(work / "apt")
        say("reading the distribution's package lists")
        apt.update()
        patterns = [pattern for program in programs for pattern in program.package_patterns]
        packages = apt.closure([apt.package(pattern) for pattern in dict.fromkeys(patterns)])
        say(f"fetching {len(packages)} packages: {', '.join(p.split('=')[0] for p in packages)}")
        tree = work / "tree"
        apt.unpack(packages, tree)
        mark_tree(tree)
        _try_out(programs, tree)
        _swap(tree, place, work / "old")
    say(f"unpacked into {place}")


def _try_out(programs: Sequence[Program], tree: Path) -> None:
    for program in programs:
        binary = look_in_tree(program, tree)
        if binary is None:
            least = ".".join(map(str, program.least))
            wrong = f"hold no {program.name} {least} or newer that runs"
        elif why := complaint(program, binary):
            wrong = f"hold a {program.name} {binary.version_text} that does not start ({why})"
        else:
            continue
        raise UnreachableError(
            f"this release's packages {wrong}; "
            "install one by hand and put it on PATH, or name external servers by URL"
        )


def _swap(new: Path, place: Path, aside: Path) -> None:
    if place.exists():
        place.rename(aside)  # servers that run from it keep their open files
    new.rename(place)


@dataclass(frozen=True)
class Tree:
    """Programs that were fetched for one release and one group."""

    place: Path
    release: str
    size_mb: int

    def __str__(self) -> str:
        return f"{self.place} ({self.size_mb} MiB, for {self.release})"


def trees() -> list[Tree]:
    """Every tree of this user, also those of other releases and machines that share the home."""
    try:
        places = sorted(path for path in services_dir().iterdir() if _is_tree(path))
    except OSError:
        return []
    return [Tree(place, tree_release(place), _size_mb(place)) for place in places]


def _is_tree(path: Path) -> bool:
    """Whether `install` made it: the folder may be one that the user has named, and holds more."""
    unmarked = _TREE_NAME.fullmatch(path.name) and (path / "usr").is_dir()
    return not path.is_symlink() and ((path / TREE_MARK).is_file() or bool(unmarked))


def _size_mb(folder: Path) -> int:
    files = (path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return -(-sum(stat.st_size for stat in files) // 2**20)


def remove(say: Say) -> None:
    """Remove every tree, and the folder where nothing else is in it.

    Raises UsageError where a server runs from one.
    """
    if not services_dir().is_dir():
        say(f"nothing to remove: there is no {services_dir()}")
        return
    with _exclusive(say):
        found = trees()
        for tree in found:
            _refuse_while_used(tree.place)
        for tree in found:
            shutil.rmtree(tree.place)
            say(f"removed {tree}")
        (services_dir() / _LOCK).unlink(missing_ok=True)
    say(f"{sum(tree.size_mb for tree in found)} MiB freed in {services_dir()}")
    if not any(services_dir().iterdir()):
        services_dir().rmdir()


def _refuse_while_used(place: Path) -> None:
    for process in psutil.process_iter(["pid", "name", "exe"]):
        exe = process.info["exe"]
        if exe and Path(exe).is_relative_to(place.resolve()):
            raise UsageError(
                f"{process.info['name']} (pid {process.info['pid']}) runs from {place}; "
                "stop its stack first (`flashsale stop`, with the stack's --state-dir)"
            )


@contextmanager
def _exclusive(say: Say) -> Iterator[None]:
    """Hold the install lock, and clear away what a killed install left behind."""
    folder = services_dir()
    try:
        private_folder(folder)  # programs that are run come from there
        lock = (folder / _LOCK).open("w", encoding="ascii")
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
