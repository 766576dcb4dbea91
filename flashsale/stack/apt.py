"""The distribution's packages, resolved and fetched by its own apt, without root."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from flashsale.errors import UnreachableError

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
