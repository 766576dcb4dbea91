"""One exit code where several hold."""

import itertools

import orjson
import pytest

from flashsale.errors import (
    ExitCode,
    FlashsaleError,
    NothingJudgedError,
    UnreachableError,
    UsageError,
    ViolationError,
    one_line,
    plain,
    plain_json,
    worst,
)


def test_precedence_is_the_designs() -> None:
    order = [3, 130, 143, 1, 2, 7, 8, 6, 4, 5, 0]
    for better, worse in itertools.pairwise(reversed(order)):
        assert worst(ExitCode(better), ExitCode(worse)) == worse
        assert worst(ExitCode(worse), ExitCode(better)) == worse


def test_every_code_has_its_place() -> None:
    assert all(worst(code) == code for code in ExitCode)
    assert worst() == ExitCode.PASS


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (FlashsaleError, 1),
        (UsageError, 2),
        (ViolationError, 3),
        (UnreachableError, 7),
        (NothingJudgedError, 8),
    ],
)
def test_errors_carry_their_code(kind: type[FlashsaleError], code: int) -> None:
    assert kind("x").exit_code == code


COMMANDS = ["::error::x", " \t\u3000::add-mask::0", "a\n::set-output name=b::c", "so ##[error]x",
            "##vso[task.setvariable variable=a]b", "###teamcity[testFailed name='a']"]  # fmt: skip


@pytest.mark.parametrize("text", COMMANDS)
def test_no_text_is_a_command_to_a_ci_server(text: str) -> None:
    for told in (plain(text), one_line(text)):
        assert not any(line.strip().startswith("::") for line in told.splitlines())
        assert all(sign not in told for sign in ("##[", "##vso[", "##teamcity["))
    document = orjson.dumps({text: text}).decode()
    assert "##" not in plain_json(document)
    assert orjson.loads(plain_json(document)) == {text: text}


@pytest.mark.parametrize(
    "text", ["::1", "fe80::1::2", "http://[::1]:80", "## [a]", "a ::error::x", "C# [x]", "日本語"]
)
def test_what_is_no_command_stays_as_it_is(text: str) -> None:
    assert (plain(text), one_line(text), plain_json(text)) == (text, text, text)


def test_json_steers_no_terminal() -> None:
    told = plain_json(orjson.dumps(["\x9b2J\x7f\u202e\u061c"]).decode())
    assert told.isascii()
    assert orjson.loads(told) == ["\x9b2J\x7f\u202e\u061c"]
