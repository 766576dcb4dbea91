import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from flashsale.errors import UsageError
from flashsale.run.folder import (
    NotWrittenError,
    RunFolder,
    create_run_folder,
    ensure_run_folder,
    lines_in,
    open_file,
    read_file,
    telling,
    write_file,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_is_named_by_scenario_and_utc_and_is_the_latest() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=9)))
    folder = create_run_folder("stampede", None, there)
    assert folder.path == Path("runs/stampede-20260101T120000Z")
    assert Path("runs/latest").resolve() == folder.path.resolve()
    second = create_run_folder("sellout", None, NOON)
    assert Path("runs/latest").resolve() == second.path.resolve()
    assert {path.name for path in Path("runs").iterdir()} == {folder.name, second.name, "latest"}


def test_runs_of_the_same_second_never_collide() -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: create_run_folder("s", None, NOON), range(40)))
    assert len({folder.path for folder in folders}) == 40
    assert Path("runs/latest").resolve() in {folder.path.resolve() for folder in folders}
    assert len(list(Path("runs").iterdir())) == 41


def test_out_is_used_as_it_is_and_leaves_latest_alone(tmp_path: Path) -> None:
    folder = create_run_folder("s", Path("some/where"), NOON)
    assert folder.path == tmp_path / "some/where"
    assert not Path("runs").exists()


def test_out_never_overwrites_a_run() -> None:
    folder = create_run_folder("s", Path("here"), NOON)
    folder.attempts.touch()
    with pytest.raises(UsageError, match="--out here already holds a run"):
        create_run_folder("s", Path("here"), NOON)


@pytest.mark.parametrize("name", ["junit.xml", "report.html", "summary.json", "attempts.csv"])
def test_out_never_overwrites_a_file_of_others(name: str) -> None:
    Path("project").mkdir()
    Path("project/setup.py").touch()
    ensure_run_folder(Path("project"))
    Path("project", name).touch()
    for attempt in (ensure_run_folder, lambda out: create_run_folder("s", out, NOON)):
        with pytest.raises(UsageError, match=f"--out project holds {name}, which the run would"):
            attempt(Path("project"))


def test_a_folder_that_cannot_be_made_is_one_line() -> None:
    Path("runs").write_text("a file")
    with pytest.raises(UsageError, match="cannot make a run folder in runs"):
        create_run_folder("s", None, NOON)
    Path("file").write_text("")
    with pytest.raises(UsageError, match="cannot make a run folder in file"):
        create_run_folder("s", Path("file"), NOON)


def test_whether_a_run_can_be_left_there_is_known_beforehand() -> None:
    Path("file").write_text("")
    with pytest.raises(UsageError, match="cannot make a run folder in file/run: Not a directory"):
        ensure_run_folder(Path("file/run"))
    with pytest.raises(UsageError, match="cannot make a run folder in /proc"):
        ensure_run_folder(Path("/proc"))
    ensure_run_folder(Path("new/run"))
    assert list(Path("new/run").iterdir()) == []
    create_run_folder("stampede", Path("new/run"), NOON).attempts.write_text("")
    with pytest.raises(UsageError, match="--out new/run already holds a run"):
        ensure_run_folder(Path("new/run"))
    ensure_run_folder(None)
    assert list(Path("runs").iterdir()) == []


def test_a_folder_in_the_place_of_latest_is_told_and_keeps_no_run_from_being_made() -> None:
    Path("runs/latest").mkdir(parents=True)
    told: list[str] = []
    folder = create_run_folder("s", None, NOON, told.append)
    assert told == [
        "cannot write runs/latest: Is a directory; move the folder of that name away; "
        f"this run is {folder.path}"
    ]
    assert sorted(path.name for path in Path("runs").iterdir()) == ["latest", folder.name]


def test_a_file_is_replaced_whole_and_no_link_is_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    Path("file").symlink_to(mine)
    write_file(Path("file"), b"new")
    assert (mine.read_text(), Path("file").read_text()) == ("mine", "new")
    assert not Path("file").is_symlink()


def _broken() -> Iterator[bytes]:
    yield b"half"
    raise RuntimeError("broken")


def test_what_could_not_be_written_whole_leaves_the_old_file_and_nothing_else() -> None:
    write_file(Path("file"), [b"o", b"ld"])
    with pytest.raises(RuntimeError):
        write_file(Path("file"), _broken())
    assert Path("file").read_bytes() == b"old"
    Path("folder").mkdir()
    told: list[str] = []
    with telling(told.append):
        write_file(Path("folder"), b"new")
    with telling(told.append):
        write_file(Path("file/below"), b"new")
    assert told == [
        "cannot write folder: Is a directory; move the folder of that name away",
        "cannot write file/below: Not a directory",
    ]
    assert {path.name for path in Path().iterdir()} == {"file", "folder"}


@pytest.mark.parametrize(("umask", "mode"), [(0, 0o644), (0o022, 0o644), (0o077, 0o600)])
def test_nobody_else_may_write_whatever_the_umask_says(umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        folder = create_run_folder("s", Path("deep/run"), NOON)
        write_file(folder.summary, b"{}")
    finally:
        os.umask(before)
    assert folder.summary.stat().st_mode & 0o777 == mode
    for path in (folder.path, folder.path.parent):
        assert path.stat().st_mode & 0o022 == 0


def test_what_is_no_file_is_not_waited_for_and_what_has_no_end_is_not_read() -> None:
    os.mkfifo("pipe")
    for path in (Path("pipe"), Path("/dev/zero"), Path()):
        with pytest.raises(OSError, match="Not a file"):
            open_file(path)
    Path("large").write_bytes(b"x" * 100)
    with pytest.raises(OSError, match="more than 99 bytes"):
        read_file(Path("large"), 99)
    assert len(read_file(Path("large"), 100)) == 100
    with Path("long").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    with open_file(Path("long")) as file, pytest.raises(ValueError, match="a line is longer"):
        list(lines_in(file))


def test_a_name_of_any_bytes_has_a_text() -> None:
    assert RunFolder(Path(os.fsdecode(b"caf\xe9"))).name == "caf\ufffd"
    assert str(NotWrittenError("f", OSError("odd"))) == "cannot write f: odd"
