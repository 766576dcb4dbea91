"""Where the services' programs are: in the tree that `services install` unpacked, else on PATH.

The tree holds what PATH lacked, or had and could not start: so what it holds goes first.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flashsale.errors import UnreachableError
from flashsale.stack.process import plain_environment

_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/libexec")
"""Where distributions put servers, and what an ordinary user's PATH lacks."""

TREE_MARK = "fetched-for"

_TREE_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")

_VERSION_TIMEOUT_S = 20

_INSTALL_COMMANDS = {
    "dnf": "sudo dnf install redis mariadb-server nginx",
    "yum": "sudo yum install redis mariadb-server nginx",
    "zypper": "sudo zypper install redis mariadb nginx",
    "pacman": "sudo pacman -S redis mariadb nginx",
    "apk": "sudo apk add redis mariadb nginx",
    "brew": "brew install redis mariadb nginx",
}


@dataclass(frozen=True)
class Program:
    """A program that the stack needs, the oldest version that will do, and who packages it."""

    name: str
    names: tuple[str, ...]
    least: tuple[int, ...]
    version_command: tuple[str, ...]
    version_pattern: str
    package_patterns: tuple[str, ...]  # each names one package of every release
    group: str = ""  # what is installed together, into a tree of its own


REDIS = Program(
    name="redis-server",
    names=("redis-server",),
    least=(7, 0),
    version_command=("--version",),
    version_pattern=r"Redis server v=(\d[\d.]*)",
    package_patterns=(r"^redis-server$", r"^redis-tools$"),  # the former links into the latter
)
MARIADB = Program(
    name="mariadbd",
    names=("mariadbd", "mysqld"),
    least=(10, 6),
    version_command=("--no-defaults", "--version"),
    version_pattern=r"Ver (\d[\d.]*)-MariaDB",  # Oracle's mysqld prints no such word
    package_patterns=(r"^mariadb-server-core(-[0-9.]+)?$",),
)
NGINX = Program(
    name="nginx",
    names=("nginx",),
    least=(1, 18),
    version_command=("-v",),
    version_pattern=r"nginx/(\d[\d.]*)",
    package_patterns=(r"^nginx$",),
)
PROGRAMS = (REDIS, MARIADB, NGINX)

OBSERVE = "observe"
PROMETHEUS = Program(
    name="prometheus",
    names=("prometheus",),
    least=(2, 31),
    version_command=("--version",),
    version_pattern=r"prometheus, version (\d[\d.]*)",
    package_patterns=(r"^prometheus$",),
    group=OBSERVE,
)
PROMTOOL = Program(
    name="promtool",
    names=("promtool",),
    least=(2, 31),
    version_command=("--version",),
    version_pattern=r"promtool, version (\d[\d.]*)",
    package_patterns=(r"^prometheus$",),
    group=OBSERVE,
)
REDIS_EXPORTER = Program(
    name="redis exporter",
    names=("prometheus-redis-exporter", "redis_exporter"),
    least=(1, 20),
    version_command=("--version",),
    version_pattern=r"Redis Metrics Exporter v?(\d[\d.]*)",
    package_patterns=(r"^prometheus-redis-exporter$",),
    group=OBSERVE,
)
MYSQL_EXPORTER = Program(
    name="mysqld exporter",
    names=("prometheus-mysqld-exporter", "mysqld_exporter"),
    least=(0, 13),
    version_command=("--version",),
    version_pattern=r"mysqld_exporter, version (\d[\d.]*)",
    package_patterns=(r"^prometheus-mysqld-exporter$",),
    group=OBSERVE,
)
NGINX_EXPORTER = Program(
    name="nginx exporter",
    names=("prometheus-nginx-exporter", "nginx-prometheus-exporter"),
    least=(0, 9),
    version_command=("--version",),
    version_pattern=r"(?i)nginx\S* (?:prometheus exporter )?,?\s*version[= ]v?(\d[\d.]*)",
    package_patterns=(r"^prometheus-nginx-exporter$",),
    group=OBSERVE,
)
OBSERVERS = (PROMETHEUS, PROMTOOL, REDIS_EXPORTER, MYSQL_EXPORTER, NGINX_EXPORTER)
"""What `serve --observe` starts beside the stack, and what checks its rules."""


@dataclass(frozen=True)
class Binary:
    """A program that was found and ran; `tree` is the unpacked root it came from, if any."""

    path: Path
    version: tuple[int, ...]
    tree: Path | None = None

    @property
    def version_text(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))

    def environment(self) -> dict[str, str]:
        """The environment to run it in: ours but for FLASHSALE_…, its libraries in reach."""
        return _environment(self.tree)

    def shares(self, *names: str) -> Iterator[Path]:
        """The folders of `names` under this program's own `share`, the nearest first."""
        prefixes = [self.path.resolve().parent.parent, self.path.parent.parent]
        # A tree that lacks them is broken: this system's would be of another version.
        prefixes += [] if self.tree else [Path("/usr")]
        folders = (prefix / "share" / name for prefix in prefixes for name in names)
        return (folder for folder in folders if folder.is_dir())

    def __str__(self) -> str:
        where = f"{self.version_text} at {self.path}"
        return f"{where}, fetched for {tree_release(self.tree)}" if self.tree else where


def services_dir() -> Path:
    """The per-user folder for unpacked services (FLASHSALE_SERVICES_DIR overrides it)."""
    chosen = os.environ.get("FLASHSALE_SERVICES_DIR")
    if chosen:
        return Path(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "flashsale" / "services"


def services_tree(group: str = "") -> Path:
    """A group's unpacked tree for this release and machine: several may share a home."""
    release = _os_release()
    # Debian's testing and sid have no number yet.
    version = release.get("VERSION_ID") or release.get("VERSION_CODENAME") or "0"
    name = f"{release.get('ID', 'linux')}-{version}-{platform.machine()}"
    return services_dir() / (f"{name}-{group}" if group else name)


def mark_tree(tree: Path) -> None:
    """Write into a tree which release it was fetched for."""
    name = _os_release().get("PRETTY_NAME", "an unnamed release")
    (tree / TREE_MARK).write_text(f"{name}\n", encoding="utf-8")


def tree_release(tree: Path) -> str:
    """The release that a tree was fetched for: as marked, else as its folder is named."""
    try:
        return (tree / TREE_MARK).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return tree.name


def look(program: Program) -> Binary | None:
    """The program in the unpacked tree or on PATH, new enough and able to run; else None."""
    return look_in_tree(program, services_tree(program.group)) or look_on_path(program)


def look_on_path(program: Program) -> Binary | None:
    """The program that the system offers, if it is new enough and runs."""
    return _first_good(program, _on_path(program), None)


def look_in_tree(program: Program, tree: Path) -> Binary | None:
    """The program unpacked below `tree`, if it is new enough and runs."""
    return _first_good(program, _in_tree(program, tree), tree)


def find(program: Program) -> Binary:
    """Like `look`; raises UnreachableError with the cure where there is none."""
    binary = look(program)
    if binary is not None:
        return binary
    raise UnreachableError(f"{absence(program)}; install it with {install_command(program.group)}")


def absence(program: Program) -> str:
    """What to say of a program that `look` does not find: is there one that will not do?"""
    least = ".".join(map(str, program.least))
    found = [*_in_tree(program, services_tree(program.group)), *_on_path(program)]
    seen = f" ({found[0]} is older or does not run)" if found else ""
    return f"{program.name} {least} or newer is missing{seen}"


def install_command(group: str = "") -> str:
    """The command that brings a group's missing programs onto this kind of system."""
    if shutil.which("apt-get", path=_search_path()) and shutil.which("dpkg", path=_search_path()):
        return f"`flashsale services install{' --observe' if group else ''}`"
    if group:
        return "your package manager: prometheus and its exporters for Redis, MySQL and nginx"
    for tool, command in _INSTALL_COMMANDS.items():
        if shutil.which(tool):
            return f"`{command}`"
    return "your package manager: Redis >= 7.0, MariaDB >= 10.6 and nginx, on PATH"


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _search_path() -> str:
    path = os.environ.get("PATH", "")
    return os.pathsep.join([path, *_SYSTEM_FOLDERS]) if path else ""  # empty means: nowhere


def _on_path(program: Program) -> Iterator[Path]:
    path = _search_path()
    for name in program.names:
        found = shutil.which(name, path=path) if path else None
        if found:
            yield Path(found)


def _in_tree(program: Program, tree: Path) -> Iterator[Path]:
    for name in program.names:
        for folder in _TREE_FOLDERS:
            candidate = tree / folder / name
            if candidate.exists():
                yield candidate


def _first_good(program: Program, paths: Iterator[Path], tree: Path | None) -> Binary | None:
    for path in paths:
        version = version_of(program, path, tree)
        if version is not None and version >= program.least:
            return Binary(path, version, tree)
    return None


def version_of(program: Program, path: Path, tree: Path | None = None) -> tuple[int, ...] | None:
    """The version that the program prints; None where it does not run or is something else."""
    try:
        done = subprocess.run(
            [path, *program.version_command],
            env=_environment(tree),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(program.version_pattern, done.stdout + done.stderr)
    return tuple(int(part) for part in match[1].strip(".").split(".")) if match else None


def _environment(tree: Path | None) -> dict[str, str]:
    environment = plain_environment()
    if tree is not None:
        folders = [*sorted((tree / "usr/lib").glob("*-linux-*")), tree / "usr/lib"]
        folders += sorted((tree / "lib").glob("*-linux-*"))
        inherited = environment.get("LD_LIBRARY_PATH")
        parts = [*map(str, folders), *([inherited] if inherited else [])]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(parts)
    return environment
