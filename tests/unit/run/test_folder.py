from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from flashsale.errors import UsageError
from flashsale.run.folder import create_run_folder, ensure_run_folder

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
