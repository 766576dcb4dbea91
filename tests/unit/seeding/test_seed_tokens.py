"""The tokens file: merged with the earlier one, secret, and replaced in one step."""

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsale.errors import UsageError
from flashsale.scenario.tokens import HEAD
from flashsale.seeding.sessions import TokensFile, paired, read_seeded_tokens


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@given(st.integers(0, 40), st.sets(st.integers(1, 60)))
def test_users_are_paired_with_what_is_held(users: int, holders: set[int]) -> None:
    held = [(user_id, f"t{user_id}") for user_id in sorted(holders)]
    expected = [
        (user_id, f"t{user_id}" if user_id in holders else None)
        for user_id in sorted(holders | set(range(1, users + 1)))
    ]
    assert list(paired(users, held)) == expected


@pytest.mark.usefixtures("open_umask")
def test_it_is_secret_from_its_first_byte_and_complete_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokens.csv"
    with TokensFile(path) as file:
        [partial] = path.parent.iterdir()
        assert partial.stat().st_mode & 0o777 == 0o600
        assert not path.exists()
        file.write([(1, "a"), (2, "b")])
        file.put_in_place()
    assert [entry.name for entry in path.parent.iterdir()] == ["tokens.csv"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == f"{HEAD}\n1,a\n2,b\n"
    assert list(read_seeded_tokens(path)) == [(1, "a"), (2, "b")]


def test_an_error_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), TokensFile(path) as file:  # noqa: PT012
        file.write([(1, "a")])
        raise KeyboardInterrupt
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {
        "tokens.csv": "before"
    }


def test_a_file_that_the_disk_has_no_room_for_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))  # a full disk, for this process
    try:
        with (
            pytest.raises(UsageError, match=re.escape(f"{path} cannot be written: File too large")),
            TokensFile(path) as file,
        ):
            file.write((user, f"token-{user}") for user in range(5_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "tokens.csv.partial").write_text("torn")
    (tmp_path / "tokens.csv.partial").chmod(0o644)
    with TokensFile(tmp_path / "tokens.csv") as file:
        file.put_in_place()
    assert (tmp_path / "tokens.csv").read_text() == f"{HEAD}\n"
    assert (tmp_path / "tokens.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("mode", "current"), [(0o600, True), (0o644, False), (0o640, False)])
def test_a_file_that_others_can_read_is_not_current(
    tmp_path: Path, mode: int, current: bool
) -> None:
    path = tmp_path / "tokens.csv"
    path.touch()
    path.chmod(mode)
    assert TokensFile(path).is_current() is current


def test_no_file_holds_nothing_and_is_not_current(tmp_path: Path) -> None:
    assert list(read_seeded_tokens(tmp_path / "tokens.csv")) == []
    assert not TokensFile(tmp_path / "tokens.csv").is_current()


@pytest.mark.parametrize("place", ["folder", "file/tokens.csv"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be written: .*; name another file with --tokens"):
        TokensFile(tmp_path / place).__enter__()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", None),
        ("user_id\n", 1),
        ("1,a\n", 1),
        (f"{HEAD}\n1\n", 2),
        (f"{HEAD}\n1,\n", 2),
        (f"{HEAD}\n1,a b\n", 2),
        (f"{HEAD}\n1,a,b\n", 2),
        (f"{HEAD}\n0,a\n", 2),
        (f"{HEAD}\nx,a\n", 2),
        (f"{HEAD}\n1,a\n\n", 3),
        (f"{HEAD}\n2,a\n1,b\n", 3),
        (f"{HEAD}\n2,a\n2,b\n", 3),
        (f"{HEAD}\n1,{'a' * 129}\n", 2),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, text: str, line: int | None) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text(text)
    if line is None:
        assert list(read_seeded_tokens(path)) == []
        return
    with pytest.raises(UsageError, match=rf"tokens\.csv, line {line}: expected .* away"):
        list(read_seeded_tokens(path))


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="expected 'user_id,token' and ASCII lines"):
        list(read_seeded_tokens(path))
    with pytest.raises(UsageError, match="Is a directory; name another file"):
        list(read_seeded_tokens(tmp_path))
