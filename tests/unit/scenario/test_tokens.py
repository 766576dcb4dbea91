from pathlib import Path

import pytest

from flashsale.errors import UsageError
from flashsale.scenario.tokens import read_tokens


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_first_users_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "tokens.csv", "user_id,token", "9,c", "3,b", "5,a")
    assert list(read_tokens(path, 2).items()) == [(9, "c"), (3, "b")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: expected 'user_id,token'; run `flashsale seed --users 2`"),
        (["1,a", "2,b"], "line 1: expected 'user_id,token'"),
        (["user_id,token", "1,a"], "tokens of 1 users, not 2; run `flashsale seed --users 2`"),
        (["user_id,token", "1,a", "x,b"], "line 3: expected a user id, a comma and a token"),
        (["user_id,token", "0,a", "2,b"], "line 2: expected a user id"),
        (["user_id,token", "1", "2,b"], "line 2: expected a user id"),
        (["user_id,token", "1,a b", "2,b"], "line 2: expected a user id"),
        (["user_id,token", "1,a,b", "2,b"], "line 2: expected a user id"),
        (["user_id,token", "1,é", "2,b"], "line 2: expected a user id"),
        (["user_id,token", "1,a", "1,b"], "line 3: user 1 stands there twice"),
    ],
)
def test_a_file_that_does_not_do_is_one_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = written(tmp_path / "tokens.csv", *lines)
    with pytest.raises(UsageError) as error:
        read_tokens(path, 2)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No such file.*`flashsale seed --users 7`"):
        read_tokens(tmp_path / "tokens.csv", 7)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_tokens(path, 1)
