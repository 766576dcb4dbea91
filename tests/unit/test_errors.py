"""One exit code where several hold."""

import itertools

import pytest

from flashsale.errors import (
    ExitCode,
    FlashsaleError,
    NothingJudgedError,
    UnreachableError,
    UsageError,
    ViolationError,
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
