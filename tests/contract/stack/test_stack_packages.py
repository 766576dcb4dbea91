"""`services install` against stand-ins for apt-get and dpkg: whole or not at all, and once."""

import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from flashsale.errors import UnreachableError, UsageError
from flashsale.stack import binaries, packages
from tests.rig.until import until

PROGRAMS = {
    "redis-server": 'echo "Redis server v=7.2.4 sha=0"',
    "mariadbd": 'echo "mariadbd  Ver 11.4.2-MariaDB for Linux"',
    "nginx": 'echo "nginx version: nginx/1.26.0" >&2',
    "prometheus": 'echo "prometheus, version 2.42.0+ds (branch: debian/sid)"',
    "promtool": 'echo "promtool, version 2.42.0+ds (branch: debian/sid)"',
    "prometheus-redis-exporter": 'echo "level=info msg=\\"Redis Metrics Exporter 1.45.0-2\\"" >&2',
    "mysqld_exporter": 'echo "mysqld_exporter, version 0.16.0 (branch: HEAD)"',
    "nginx-prometheus-exporter": 'echo "nginx_exporter, version 1.4.0 (branch: HEAD)"',
}

APT_GET = """\
echo "apt-get $*" >> "$LOG"
lists=$(sed -n 's/^Dir::State::lists "\\(.*\\)";/\\1/p' "$2")
case "$*" in
  *update*) [ -n "$FAIL_UPDATE" ] || touch "$lists/main_Packages"; sleep 0.2 ;;
  *download*) for p in "$@"; do case "$p" in *=*) touch "${p%%=*}.deb" ;; esac; done ;;
  *install*)
    case "$*" in *prometheus*) echo "Inst prometheus (2.42 Debian:13/stable [amd64])"; exit ;; esac
    if [ -n "$FAIL_SYSTEM" ] && grep -q '/var/lib/dpkg/status' "$2"; then
      echo "E: Unmet dependencies." >&2; exit 100
    fi
    for p in libaio1t64 libc6 redis-server redis-tools mariadb-server-core-11.4 nginx; do
      echo "Inst $p (1:2.3-4 Debian:13/stable [amd64])"
    done ;;
esac
"""

APT_CACHE = """\
case "$*" in
  *mariadb*) echo "mariadb-server-core-10.6 - old"; echo "mariadb-server-core-11.4 - new" ;;
  *redis-s*) echo "redis-server - store" ;;
  *redis-t*) echo "redis-tools - its program" ;;
  *prometheus*) echo "$5" | sed 's/[$^]//g; s/$/ - observes/' ;;
  *nginx*) echo "nginx - server" ;;
esac
"""

DPKG = """\
tree="$3"
mkdir -p "$tree/usr/bin"
[ -z "$FAIL_UNPACK" ] || exit 2
case "$2" in
  *libaio*) ;;
  *prometheus*) for each in prom mysqld_ nginx-; do cp "$BIN/$each"* "$tree/usr/bin/"; done ;;
  *mariadb*) cp "$BIN/mariadbd" "$tree/usr/bin/mariadbd" ;;
  *redis-tools*) cp "$BIN/redis-server" "$tree/usr/bin/redis-server" ;;
  *nginx*) [ -n "$NO_NGINX" ] || cp "$BIN/nginx" "$tree/usr/bin/nginx" ;;
esac
"""


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
    path.chmod(0o755)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system with apt and without any of our programs; returns the log of apt's calls."""
    tools = tmp_path / "tools"
    _script(tools / "apt-get", APT_GET)
    _script(tools / "apt-cache", APT_CACHE)
    _script(tools / "dpkg", DPKG)
    _script(tools / "dpkg-query", 'echo "ii  libc6"; echo "ii  redis-tools"')
    for name, text in PROGRAMS.items():
        _script(tmp_path / "programs" / name, text)
    for tool in ("sh", "sed", "grep", "touch", "mkdir", "cp", "sleep", "echo"):
        (tools / tool).symlink_to(Path("/usr/bin") / tool)
    monkeypatch.setattr(binaries, "_SYSTEM_FOLDERS", ())
    monkeypatch.setattr(packages, "complaint", _stand_in_complaint)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("FLASHSALE_SERVICES_DIR", str(tmp_path / "services"))
    monkeypatch.setenv("BIN", str(tmp_path / "programs"))
    log = tmp_path / "apt.log"
    monkeypatch.setenv("LOG", str(log))
    return log


def _stand_in_complaint(program: binaries.Program, binary: binaries.Binary) -> str | None:
    """Stand-ins print their version and serve nothing: one starts unless its text says not."""
    return "a library is missing" if "broken" in binary.path.read_text() else None


def _install() -> list[str]:
    lines: list[str] = []
    packages.install(lines.append)
    return lines


def test_what_is_missing_is_fetched_resolved_and_found(system: Path) -> None:
    lines = _install()
    found = [binaries.find(program) for program in binaries.PROGRAMS]
    assert [b.version for b in found] == [(7, 2, 4), (11, 4, 2), (1, 26, 0)]
    assert {b.tree for b in found} == {binaries.services_tree()}
    assert (
        "fetching 5 packages: libaio1t64, redis-server, redis-tools, mariadb-server-core-11.4"
        in lines[4]
    )


def test_the_c_library_is_never_shadowed(system: Path) -> None:
    _install()
    downloads = [line for line in system.read_text().splitlines() if " download " in line]
    assert len(downloads) == 1
    assert "libc6" not in downloads[0]
    assert "libaio1t64=1:2.3-4" in downloads[0]


def test_the_newest_versioned_package_is_chosen(system: Path) -> None:
    _install()
    resolved = next(line for line in system.read_text().splitlines() if " install " in line)
    assert resolved.endswith("install redis-server redis-tools mariadb-server-core-11.4 nginx")


def test_a_second_install_does_nothing(system: Path) -> None:
    _install()
    calls = system.read_text()
    assert _install() == []
    assert system.read_text() == calls


def test_programs_on_path_are_not_fetched(system: Path, tmp_path: Path) -> None:
    _script(tmp_path / "tools" / "redis-server", PROGRAMS["redis-server"])
    _install()
    resolved = next(line for line in system.read_text().splitlines() if " install " in line)
    assert resolved.endswith("install mariadb-server-core-11.4 nginx")


def test_what_observes_goes_into_a_tree_of_its_own(system: Path) -> None:
    _install()
    fetched = system.read_text().count(" download ")
    lines: list[str] = []
    packages.install(lines.append, binaries.OBSERVERS)
    found = [binaries.find(program) for program in binaries.OBSERVERS]
    versions = [(2, 42, 0), (2, 42, 0), (1, 45, 0), (0, 16, 0), (1, 4, 0)]
    assert [binary.version for binary in found] == versions
    assert {binary.tree for binary in found} == {binaries.services_tree(binaries.OBSERVE)}
    assert binaries.services_tree(binaries.OBSERVE) != binaries.services_tree()
    assert binaries.find(binaries.REDIS).tree == binaries.services_tree()
    assert system.read_text().count(" download ") == fetched + 1
    packages.install(lines.append, binaries.OBSERVERS)
    assert system.read_text().count(" download ") == fetched + 1, "the second time nothing"


def test_what_observes_is_not_fetched_unasked(system: Path) -> None:
    _install()
    assert "prometheus" not in system.read_text()
    with pytest.raises(UnreachableError, match="`flashsale services install --observe`"):
        binaries.find(binaries.PROMETHEUS)


def test_an_old_program_on_path_does_not_count(system: Path, tmp_path: Path) -> None:
    _script(tmp_path / "tools" / "redis-server", 'echo "Redis server v=6.0.16 sha=0"')
    assert binaries.look(binaries.REDIS) is None
    with pytest.raises(UnreachableError, match=r"redis-server 7\.0 or newer.*is older"):
        binaries.find(binaries.REDIS)
    _install()
    assert binaries.find(binaries.REDIS).tree is not None


def test_oracles_mysqld_is_not_taken_for_mariadb(system: Path, tmp_path: Path) -> None:
    _script(tmp_path / "tools" / "mysqld", 'echo "mysqld  Ver 8.0.36 for Linux"')
    assert binaries.look(binaries.MARIADB) is None


def test_a_broken_dpkg_state_is_worked_round(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL_SYSTEM", "1")
    lines = _install()
    assert "libaio1t64, redis-server, redis-tools, mariadb-server-core-11.4, nginx" in lines[4]
    resolutions = [line for line in system.read_text().splitlines() if " install " in line]
    assert len(resolutions) == 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("FAIL_UPDATE", "no package lists"),
        ("FAIL_UNPACK", "unpacking failed"),
        ("NO_NGINX", "no nginx"),
    ],
)
def test_a_failed_install_leaves_nothing_half_done(
    system: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    monkeypatch.setenv(fault, "1")
    with pytest.raises(UnreachableError, match=told) as error:
        _install()
    assert "\n" not in str(error.value)
    assert [path.name for path in binaries.services_dir().iterdir()] == ["install.lock"]
    monkeypatch.delenv(fault)
    _install()
    assert binaries.look(binaries.NGINX) is not None


def test_a_killed_installs_leftovers_are_cleared(system: Path) -> None:
    leftover = binaries.services_dir() / "install-abcd" / "tree"
    leftover.mkdir(parents=True)
    _install()
    assert not leftover.parent.exists()


def test_two_installs_at_once_fetch_once(system: Path) -> None:
    code = "from flashsale.stack import packages; packages.install(print)"
    installs = [
        subprocess.Popen([sys.executable, "-c", _without_system(code)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [install.communicate(timeout=30)[0].decode() for install in installs]
    assert [install.returncode for install in installs] == [0, 0]
    assert system.read_text().count(" update") == 1
    assert sum("another install is running" in output for output in outputs) <= 1
    assert binaries.look(binaries.REDIS) is not None


def test_two_threads_at_once_fetch_once(system: Path) -> None:
    threads = [threading.Thread(target=_install) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert system.read_text().count(" update") == 1


def test_without_apt_the_install_command_is_named(system: Path, tmp_path: Path) -> None:
    (tmp_path / "tools" / "apt-get").unlink()
    _script(tmp_path / "tools" / "dnf", "")
    with pytest.raises(UnreachableError, match="`sudo dnf install redis mariadb-server nginx`"):
        _install()
    with pytest.raises(UnreachableError, match="`sudo dnf install redis mariadb-server nginx`"):
        binaries.find(binaries.REDIS)


def test_a_folder_that_cannot_be_written_names_the_setting(
    system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLASHSALE_SERVICES_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(UnreachableError, match="FLASHSALE_SERVICES_DIR"):
        _install()


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"FLASHSALE_SERVICES_DIR": "/a/b"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/flashsale/services"),
        ({"HOME": "/h"}, "/h/.cache/flashsale/services"),
    ],
)
def test_where_the_services_are(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("FLASHSALE_SERVICES_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert binaries.services_dir() == Path(folder)


def _without_system(code: str) -> str:
    return (
        "from flashsale.stack import binaries, packages; binaries._SYSTEM_FOLDERS = (); "
        f"packages.complaint = lambda program, binary: None; {code}"
    )


def test_a_program_that_does_not_start_is_fetched_anew(system: Path) -> None:
    _install()
    tree = binaries.services_tree()
    _script(tree / "usr/bin/mariadbd", f"{PROGRAMS['mariadbd']} # broken")
    lines = _install()
    assert lines[0].startswith("mariadbd 11.4.2 at ")
    assert lines[0].endswith(" does not start: a library is missing")
    assert "broken" not in (tree / "usr/bin/mariadbd").read_text()
    assert _install() == []


def test_a_program_on_path_that_does_not_start_is_stood_in_for(
    system: Path, tmp_path: Path
) -> None:
    """A user without root cannot mend it, so what was fetched goes before it."""
    _script(tmp_path / "tools" / "redis-server", f"{PROGRAMS['redis-server']} # broken")
    _install()
    assert binaries.find(binaries.REDIS).tree == binaries.services_tree()


def test_a_broken_tree_gives_way_to_what_the_system_offers(system: Path, tmp_path: Path) -> None:
    _install()
    for name in ("redis-server", "mariadbd", "nginx"):
        _script(tmp_path / "tools" / name, PROGRAMS[name])
        _script(binaries.services_tree() / "usr/bin" / name, f"{PROGRAMS[name]} # broken")
    calls = system.read_text()
    _install()
    assert {binaries.find(program).tree for program in binaries.PROGRAMS} == {None}
    assert system.read_text() == calls


def test_packages_whose_program_does_not_start_change_nothing(system: Path, tmp_path: Path) -> None:
    _script(tmp_path / "programs" / "nginx", f"{PROGRAMS['nginx']} # broken")
    with pytest.raises(UnreachableError, match=r"hold a nginx 1\.26\.0 that does not start"):
        _install()
    assert [path.name for path in binaries.services_dir().iterdir()] == ["install.lock"]


def test_without_apt_a_program_that_does_not_start_names_another_cure(
    system: Path, tmp_path: Path
) -> None:
    for name in ("redis-server", "mariadbd", "nginx"):
        _script(tmp_path / "tools" / name, f"{PROGRAMS[name]} # broken")
    (tmp_path / "tools" / "apt-get").unlink()
    _script(tmp_path / "tools" / "dnf", "")
    with pytest.raises(UnreachableError, match="remove its package, and install anew with `sudo"):
        _install()


def test_a_tree_tells_its_release_and_is_removed(system: Path) -> None:
    _install()
    other = binaries.services_dir() / "debian-11-x86_64"
    (other / "usr").mkdir(parents=True)
    (binaries.services_dir() / "notes").mkdir()
    (this, old) = sorted(packages.trees(), key=lambda tree: tree.place.name == other.name)
    assert (this.place, old.release) == (binaries.services_tree(), "debian-11-x86_64")
    assert this.release in str(binaries.find(binaries.REDIS))
    lines: list[str] = []
    packages.remove(lines.append)
    assert str(this) in lines[0] + lines[1]
    assert lines[-1].endswith(f"MiB freed in {binaries.services_dir()}")
    assert [path.name for path in binaries.services_dir().iterdir()] == ["notes"]
    assert binaries.look(binaries.REDIS) is None


def test_nothing_is_removed_where_nothing_was_fetched(system: Path) -> None:
    lines: list[str] = []
    packages.remove(lines.append)
    assert lines == [f"nothing to remove: there is no {binaries.services_dir()}"]


def test_a_tree_that_a_server_runs_from_stays(system: Path) -> None:
    _install()
    sleep = binaries.services_tree() / "usr/bin/sleep"
    shutil.copy("/usr/bin/sleep", sleep)
    with subprocess.Popen([sleep, "60"]) as server:
        try:
            until(lambda: Path(f"/proc/{server.pid}/exe").resolve() == sleep)
            with pytest.raises(UsageError, match="stop its stack first"):
                packages.remove(print)
        finally:
            server.kill()
    assert binaries.look(binaries.REDIS) is not None
