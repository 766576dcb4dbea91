"""stack.json: what it says survives the file, and it speaks only for a living supervisor."""

import json
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from flashsale.errors import UnreachableError, UsageError
from flashsale.stack.state import (
    ChildState,
    StackState,
    is_served,
    read_state,
    remove_state,
    served,
    supervisor_pid,
    write_state,
)

CHILD = ChildState("r1", "replica", 42, 8081, "http://127.0.0.1:8081", "/logs/r1.log", 2)
STATE = StackState(
    schema=1,
    pid=41,
    started_at="2026-01-01T00:00:00.000+00:00",
    ready=True,
    base_url="http://127.0.0.1:8080",
    ledger_url="redis://127.0.0.1:1/0",
    cache_url="redis://127.0.0.1:2/0",
    mysql_url="mysql+pymysql://u:p@127.0.0.1:3/flashsale",
    children=(CHILD, replace(CHILD, name="c1", kind="worker", port=None, url=None)),
)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    with served(tmp_path):
        write_state(tmp_path, STATE)
        assert read_state(tmp_path) == STATE


def test_only_its_user_can_read_it(tmp_path: Path) -> None:
    write_state(tmp_path, STATE)
    assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600


def test_a_state_without_a_living_supervisor_is_none(tmp_path: Path) -> None:
    with served(tmp_path):
        write_state(tmp_path, STATE)
    assert (tmp_path / "stack.json").exists()
    assert read_state(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "\x00" * 10,
        '"schema"',
        json.dumps({"schema": 1}),
        json.dumps(asdict(STATE) | {"schema": 2}),
        json.dumps(asdict(STATE) | {"children": [{"name": "r1"}]}),
        json.dumps(asdict(STATE) | {"children": 3}),
    ],
)
def test_a_damaged_or_foreign_file_is_none(tmp_path: Path, text: str) -> None:
    with served(tmp_path):
        (tmp_path / "stack.json").write_text(text)
        assert read_state(tmp_path) is None


def test_no_folder_is_none(tmp_path: Path) -> None:
    assert read_state(tmp_path / "nowhere") is None
    assert supervisor_pid(tmp_path / "nowhere") is None
    assert not is_served(tmp_path / "nowhere")


def test_removing_twice_is_fine(tmp_path: Path) -> None:
    write_state(tmp_path, STATE)
    remove_state(tmp_path)
    remove_state(tmp_path)
    assert not (tmp_path / "stack.json").exists()


def test_a_second_supervisor_is_told_of_the_first(tmp_path: Path) -> None:
    with served(tmp_path):
        pid = supervisor_pid(tmp_path)
        with pytest.raises(UsageError, match=f"process {pid}.*flashsale stop"), served(tmp_path):
            pytest.fail("two supervisors hold one folder")
    with served(tmp_path):
        assert is_served(tmp_path)


def test_a_folder_that_cannot_be_made_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnreachableError, match="--state-dir"), served(tmp_path / "file" / "below"):
        pytest.fail("served below a file")
