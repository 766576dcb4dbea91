"""A fetched tree is judged by starting it: whole, with either names of its files, and broken."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rig.command_line import run_flashsale

from flashsale.doctor.machine import examine_binaries
from flashsale.stack import binaries, mariadb
from flashsale.stack.binaries import Binary, Program
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.trial import complaint

ROOT = Path(__file__).resolve().parents[3]
TABLES = ("system_tables.sql", "performance_tables.sql", "system_tables_data.sql")


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs that other tests run, where links from a tree of a test's own lead."""
    place = tmp_path_factory.mktemp("programs") / "tree"
    for program in binaries.PROGRAMS:
        binary = binaries.find(program)
        if binary.tree is None:
            pytest.skip("the programs are this system's own, and are not to be broken")
        if not place.exists():
            shutil.copytree(binary.tree, place, symlinks=True)
    return place


@pytest.fixture
def tree(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of this test's own to break."""
    tree = tmp_path / "services" / binaries.services_tree().name
    shutil.copytree(copied, tree, symlinks=True, copy_function=os.link)
    monkeypatch.setenv("FLASHSALE_SERVICES_DIR", str(tmp_path / "services"))
    monkeypatch.setenv("PATH", "")
    return tree


def _find(program: Program) -> Binary:
    binary = binaries.find(program)
    assert binary.tree is not None
    return binary


def _share(tree: Path) -> Path:
    (found,) = {path.resolve().parent for path in tree.glob("usr/share/*/*_system_tables.sql")}
    return found


def _rename_tables(tree: Path, start: str) -> None:
    share = _share(tree)
    for name in TABLES:
        (old,) = share.glob(f"*_{name}")
        old.rename(share / f"{start}_{name}")


@pytest.mark.parametrize("start", ["mysql", "mariadb"])
def test_mariadb_starts_from_the_names_of_every_release(
    tree: Path, tmp_path: Path, start: str
) -> None:
    _rename_tables(tree, start)
    with MariaDBServer(tmp_path / "db", buffer_pool_mb=32, redo_log_mb=16) as server:
        assert server.serves()


def test_mariadb_starts_where_a_release_has_dropped_a_tuning_option(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = mariadb._CONF.replace("innodb-flush-neighbors", "innodb-of-yesterday")
    assert dropped != mariadb._CONF
    monkeypatch.setattr(mariadb, "_CONF", dropped)
    with MariaDBServer(tmp_path / "db", buffer_pool_mb=32, redo_log_mb=16) as server:
        assert server.serves()


def test_what_is_whole_has_no_complaint(tree: Path) -> None:
    assert [complaint(program, _find(program)) for program in binaries.PROGRAMS] == [None] * 3


def _without_system_tables(tree: Path) -> None:
    for path in tree.glob("usr/share/*/*_system_tables.sql"):
        path.unlink()


def _with_half_a_table_script(tree: Path) -> None:
    for path in tree.glob("usr/share/*/*_system_tables.sql"):
        text = path.read_text()
        path.unlink()  # the file is shared with the tree that it was copied from
        path.write_text(text[: text.index("CREATE") + 40])


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (_without_system_tables, "came without the SQL of its system tables"),
        (_with_half_a_table_script, "system tables"),
    ],
)
def test_a_mariadb_that_prints_its_version_alone_is_found_out(
    tree: Path, break_it: Callable[[Path], None], told: str
) -> None:
    break_it(tree)
    why = complaint(binaries.MARIADB, _find(binaries.MARIADB))
    assert why is not None
    assert re.search(told, why)
    assert "\n" not in why


@pytest.mark.parametrize("program", binaries.PROGRAMS, ids=lambda program: program.name)
def test_a_program_that_only_prints_its_version_is_found_out(tree: Path, program: Program) -> None:
    """As where a library that it loads later is missing, or an option is gone."""
    binary = _find(program)
    words = f'{program.version_command[-1]}) exec {binary.path}.real "$@"'
    binary.path.rename(f"{binary.path}.real")
    complains = "echo 'error while loading shared libraries: libgone.so.3' >&2"
    binary.path.write_text(f'#!/bin/sh\ncase "$*" in *{words};; *) {complains}; exit 127;; esac\n')
    binary.path.chmod(0o755)
    found = binaries.find(program)
    assert found.path == binary.path
    why = complaint(program, found)
    assert why is not None
    assert why.endswith("error while loading shared libraries: libgone.so.3")


def test_doctor_starts_each_program_and_names_the_cure_that_cures(tree: Path) -> None:
    binaries.mark_tree(tree)
    _without_system_tables(tree)
    redis, database, nginx = examine_binaries(binaries.PROGRAMS)
    assert [row.grade for row in (redis, database, nginx)] == ["ok", "fail", "ok"]
    assert "does not start" in database.found
    assert f"fetched for {binaries.tree_release(tree)}" in redis.found


def _services(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_flashsale(Path.cwd(), "services", *arguments)


def test_services_are_listed_with_their_release_and_removed(tree: Path) -> None:
    (tree / binaries.TREE_MARK).write_text("Some Linux 7\n")
    listed = _services("list")
    assert listed.returncode == 0
    assert listed.stdout.count("fetched for Some Linux 7") == len(binaries.PROGRAMS)
    removed = _services("remove")
    assert removed.returncode == 0
    assert re.search(
        rf"removed {re.escape(str(tree))} \(\d+ MiB, for Some Linux 7\)", removed.stdout
    )
    assert not tree.parent.exists()
    missed = _services("list")
    assert missed.returncode == 7
    assert missed.stdout.count("missing") == len(binaries.PROGRAMS)


def test_a_broken_tree_is_told_by_services_install_where_it_cannot_be_mended(tree: Path) -> None:
    """PATH is empty here, so there is no apt-get: nothing is called well that does not start."""
    _without_system_tables(tree)
    done = _services("install")
    assert done.returncode == 7
    (line,) = done.stderr.strip().splitlines()
    assert "does not start" in line
    assert "install anew with your package manager" in line


def test_a_system_without_a_number_has_a_tree_by_its_code_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Debian's testing and sid: else every release to come would share one tree."""
    sid = {"ID": "debian", "VERSION_CODENAME": "forky"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: sid)
    assert binaries.services_tree().name.startswith("debian-forky-")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_clean_says_what_it_leaves(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    told = subprocess.run(
        ["make", "clean"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "XDG_CACHE_HOME": "/cache"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    assert "left: runs/, .flashsale/ and the programs in /cache/flashsale/services" in told
    assert "`.venv/bin/flashsale services remove`" in told


def test_a_program_that_lacks_a_library_is_named_and_not_only_missed(tree: Path) -> None:
    path = _find(binaries.REDIS).path.resolve()
    path.unlink()
    path.write_text("#!/bin/sh\nexit 127\n")
    path.chmod(0o755)
    redis, *_ = examine_binaries([binaries.REDIS])
    assert redis.grade == "fail"
    assert re.search(r"is missing \(.*redis-server is older or does not run\)", redis.found)
