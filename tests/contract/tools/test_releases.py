"""What a release calls the packages of our programs, resolved by apt from small lists; and the
stampede on newer releases' programs, where their packages can be had."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flashsale.stack.packages import Apt
from tools import releases
from tools.releases import RELEASES, Release, Row

LISTS = {
    "ubuntu jammy": {
        "redis-server": ("5:6.0.16-1ubuntu1", "redis-tools (= 5:6.0.16-1ubuntu1)"),
        "redis-tools": ("5:6.0.16-1ubuntu1", "libc6, libjemalloc2"),
        "mariadb-server-core-10.6": ("1:10.6.18-0ubuntu0.22.04.1", "libc6, libaio1"),
        "nginx": ("1.18.0-6ubuntu14", "nginx-core | nginx-full"),
        "nginx-core": ("1.18.0-6ubuntu14", "libc6"),
        "python3-venv": ("3.10.6-1~22.04", "python3.10-venv"),
        "python3.10-venv": ("3.10.12-1", ""),
        "libjemalloc2": ("5.2.1-4ubuntu1", "libc6"),
        "libaio1": ("0.3.112-13build1", "libc6"),
        "libc6": ("2.35-0ubuntu3", ""),
    },
    "ubuntu noble": {
        "redis-server": ("5:7.0.15-1build2", "redis-tools (= 5:7.0.15-1build2)"),
        "redis-tools": ("5:7.0.15-1build2", "libc6, libjemalloc2"),
        "mariadb-server-core": ("1:10.11.7-2ubuntu2", "libc6, libaio1t64"),
        "mariadb-server-core-compat": ("1:10.11.7-2ubuntu2", ""),
        "nginx": ("1.24.0-2ubuntu7", "libc6, nginx-common"),
        "nginx-common": ("1.24.0-2ubuntu7", ""),
        "python3-venv": ("3.12.3-0ubuntu1", "python3.12-venv"),
        "python3.12-venv": ("3.12.3-1", ""),
        "libjemalloc2": ("5.3.0-2build1", "libc6"),
        "libaio1t64": ("0.3.113-6build1", "libc6"),
        "libc6": ("2.39-0ubuntu8", ""),
    },
    # A release in which both stand: the unversioned one is its own choice.
    "two mariadbs": {
        "redis-server": ("8:1", "redis-tools"),
        "redis-tools": ("8:1", ""),
        "mariadb-server-core": ("12.3-1", "libc6"),
        "mariadb-server-core-11.8": ("11.8-1", "libc6"),
        "nginx": ("1.30.1-1", ""),
        "python3-venv": ("3.14.2-1", ""),
        "libc6": ("2.43-1", ""),
    },
}
UNVERSIONED = {"redis-server", "redis-tools", "nginx", "python3-venv", "libc6"}
EXPECTED = {
    "ubuntu jammy": UNVERSIONED
    | {"mariadb-server-core-10.6", "nginx-core", "python3.10-venv", "libjemalloc2", "libaio1"},
    "ubuntu noble": UNVERSIONED
    | {"mariadb-server-core", "nginx-common", "python3.12-venv", "libjemalloc2", "libaio1t64"},
    "two mariadbs": UNVERSIONED | {"mariadb-server-core"},
}

needs_apt = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("apt-get", "dpkg")), reason="no apt here"
)


def _archive(folder: Path, packages: dict[str, tuple[str, str]]) -> str:
    """A flat archive of these packages' list; returns its line of a sources.list."""
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    folder.mkdir()
    (folder / "Packages").write_text(
        "\n".join(
            f"Package: {name}\nArchitecture: {architecture}\nVersion: {version}\n"
            f"Depends: {depends}\nFilename: ./{name}.deb\nSize: 1\nDescription: {name}\n"
            f"SHA256: {'0' * 64}\n"
            for name, (version, depends) in packages.items()
        ).replace("Depends: \n", "")
    )
    return f"deb [trusted=yes] copy:{folder} ./\n"


@needs_apt
@pytest.mark.parametrize("release", LISTS)
def test_a_releases_packages_are_resolved_by_its_own_names(tmp_path: Path, release: str) -> None:
    """With its C library: its programs run through a loader of their own."""
    apt = Apt(tmp_path / "apt", _archive(tmp_path / "archive", LISTS[release]))
    apt.update()
    resolved = dict(package.split("=") for package in releases.resolve(apt))
    assert set(resolved) == EXPECTED[release]
    assert all(resolved[name] == LISTS[release][name][0] for name in resolved)


@needs_apt
def test_a_release_whose_lists_cannot_be_read_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "mirror", lambda system: f"copy:{tmp_path}/{system}")
    (row,) = releases.try_release(Release("ubuntu", "noble"), tmp_path / "cache", this_python=True)
    assert row.cells[0] == "ubuntu noble"
    assert row.cells[5] == "not tried: apt-get update brought no package lists"
    assert row.held
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_table_is_replaced_and_the_text_around_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "machines.md"
    document.write_text(f"before\n{releases.BEGIN}\n| old |\n{releases.END}\nafter\n")
    monkeypatch.setattr(releases, "DOCUMENT", document)
    releases.write([Row(["debian sid", "8", "12", "1.30", "3.14", "pass", "60 s"], held=True)])
    head, *rows = document.read_text().splitlines()
    assert head == "before"
    assert rows[3] == "| debian sid | 8 | 12 | 1.30 | 3.14 | pass | 60 s |"
    assert rows[-1] == "after"
    assert "old" not in document.read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_apt
@pytest.mark.parametrize("release", ["trixie", "sid"])
def test_the_stampede_holds_on_the_programs_of_a_newer_release(release: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.releases", "--this-python", release],
        capture_output=True,
        text=True,
        timeout=800,
        cwd=releases.ROOT,
        check=False,
    )
    assert release in [each.name for each in RELEASES]
    assert done.returncode == 0, done.stdout + done.stderr
    if "not tried" in done.stdout:
        pytest.skip(done.stdout)
    assert "| pass |" in done.stdout
