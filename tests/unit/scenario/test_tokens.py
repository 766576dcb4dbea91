from pathlib import Path

import pytest

from flashsale.errors import UsageError
from flashsale.scenario.tokens import HEAD, read_tokens, read_tokens_of


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
        (["user_id,token", "1,a", "x,b"], "line 3: found 'x', expected a user id"),
        (["user_id,token", "0,a", "2,b"], "line 2: found '0', expected a user id"),
        (["user_id,token", "٣,a", "2,b"], "line 2: found '٣', expected a user id"),
        (["user_id,token", "1", "2,b"], "line 2: found no comma, expected a user id, a comma and"),
        (["user_id;token", "1;a", "2;b"], "line 1: found ';' between the fields; save it with"),
        (["user_id\ttoken", "1\ta", "2\tb"], "line 1: found '\\t' between the fields"),
        (["id,token", "1,a"], "line 1: expected 'user_id,token'; write that above"),
        (["user_id,token", "1;a", "2,b"], "line 2: found no comma"),
        (["user_id,token", "1,a  b", "2,b"], "line 2: found spaces in a row, expected what the"),
        (["user_id,token", "1,a,b", "2,b"], "line 2: found 3 fields"),
        (["user_id,token", "1,", "2,b"], "line 2: found no token"),
        (["user_id,token", "1,é", "2,b"], "line 2: found 'é' in the token"),
        (["user_id,token", '1,"a\r\nx-evil: 1"', "2,b"], "line 3: found '\\r' in the token"),
        (["user_id,token", "1," + "x" * 8_001], "a token of 8,001 characters, expected at most 8"),
        (["user_id,token", '1,"a'], "line 2: unexpected end of data"),
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


JWT = "Bearer eyJ" + "a-_." * 1_000 + "=="


@pytest.mark.parametrize(
    "content",
    [
        "user_id,token\n1,{0}\n2,b\n",
        "\ufeffuser_id,token\r\n1,{0}\r\n2,b\r\n",
        '"user_id","token"\n"1","{0}"\n"2","b"',
        "\n\nUser_ID, Token\n\n 1 , {0} \n\r\n  \n2,b\n\n",
        "user_id,token\r1,{0}\r2,b",
        "user_id,token\n,\n1,{0}\n2,b\n",
    ],
)
def test_tokens_are_read_as_people_have_them(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens.csv"
    path.write_bytes(content.format(JWT).encode())
    assert read_tokens(path, 2) == {1: JWT, 2: "b"}
    assert read_tokens_of(path, [2]) == {2: "b"}


def test_a_token_with_a_comma_stands_in_quotes(tmp_path: Path) -> None:
    path = written(tmp_path / "tokens.csv", HEAD, '1,"Digest a=1, b=2"')
    assert read_tokens(path, 1) == {1: "Digest a=1, b=2"}


def test_no_error_shows_a_token(tmp_path: Path) -> None:
    for row in ("1,sécret", "1,secret  x", "1;secret", "1,secret,x"):
        path = written(tmp_path / "tokens.csv", HEAD, row)
        with pytest.raises(UsageError) as raised:
            read_tokens(path, 1)
        assert "cret" not in str(raised.value)


def test_a_missing_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No such file.*`flashsale seed --users 7`"):
        read_tokens(tmp_path / "tokens.csv", 7)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    path.write_bytes("user_id,token\n1,a\n".encode("utf-16"))
    with pytest.raises(UsageError, match="not UTF-8 text; save it as UTF-8"):
        read_tokens(path, 1)
