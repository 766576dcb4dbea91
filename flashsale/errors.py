"""What can go wrong, in the two kinds that matter to a sale, and the exit codes."""

import re
from enum import IntEnum


class ExitCode(IntEnum):
    """What a `flashsale` process ends with; the same meaning in every command."""

    PASS = 0
    INTERNAL = 1
    USAGE = 2
    VIOLATION = 3
    THRESHOLD = 4
    REGRESSION = 5
    INVALID_RUN = 6
    UNREACHABLE = 7
    NOTHING_JUDGED = 8
    INTERRUPTED = 130
    TERMINATED = 143


_PRECEDENCE = (
    ExitCode.VIOLATION,
    ExitCode.INTERRUPTED,
    ExitCode.TERMINATED,
    ExitCode.INTERNAL,
    ExitCode.USAGE,
    ExitCode.UNREACHABLE,
    ExitCode.NOTHING_JUDGED,
    ExitCode.INVALID_RUN,
    ExitCode.THRESHOLD,
    ExitCode.REGRESSION,
)


def worst(*codes: ExitCode) -> ExitCode:
    """The one exit code of a run for which several hold: a violation outranks everything."""
    return next((code for code in _PRECEDENCE if code in codes), ExitCode.PASS)


_STEERING = (
    r"\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Beside ASCII's: what is invisible, turns text around, or is no character."""
_COMMAND = (
    r"|#(?=#\w*\[)"
    r"|(?m:^)[ \t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]*:(?=:[\w-]+[^\n]*::)"
)
"""What CI servers obey in a log: `##[…]`, `##vso[…]`, `##teamcity[…]`, and `::name …::` where a
line begins."""
_IN_TEXT = re.compile(rf"[\x00-\x08\x0b-\x1f{_STEERING}{_COMMAND}")
_IN_LINE = re.compile(rf"[\x00-\x1f{_STEERING}{_COMMAND}")


def plain(text: str) -> str:
    """Text of anybody's as a terminal, or the log of a CI server, may have it: what would steer
    them is spelt out, but for the ends of lines and tabs."""
    return _IN_TEXT.sub(_spelt, text)


def one_line(text: str) -> str:
    """The same in one line, whatever is in it."""
    return _IN_LINE.sub(_spelt, " ".join(text.split("\n")))


def plain_json(document: str) -> str:
    """The same of a JSON document, spelt as JSON spells it."""
    return _IN_TEXT.sub(lambda found: f"{found[0][:-1]}\\u{ord(found[0][-1]):04x}", document)


def _spelt(found: re.Match[str]) -> str:
    before, sign = found[0][:-1], found[0][-1]
    spelt = f"\\x{ord(sign):x}" if sign in "#:" else sign.encode("unicode_escape").decode("ascii")
    return before + spelt


class FlashsaleError(Exception):
    """An error that a user can cause or cure: one line, an exit code, no traceback."""

    exit_code = ExitCode.INTERNAL


class UsageError(FlashsaleError):
    """A wrong flag, scenario or setting; the message names the field and what was expected."""

    exit_code = ExitCode.USAGE


class ViolationError(FlashsaleError):
    """A command refused because it would break, or has found broken, a promise of the sale."""

    exit_code = ExitCode.VIOLATION


class UnreachableError(FlashsaleError):
    """A service or target is missing or does not answer; the message names the cure."""

    exit_code = ExitCode.UNREACHABLE


class NothingJudgedError(FlashsaleError):
    """Nothing could be judged: no attempts, no baseline, or another data set."""

    exit_code = ExitCode.NOTHING_JUDGED


class Unavailable(Exception):  # noqa: N818 - a kind of trouble, not a bug: read as `except Unavailable`
    """It certainly did not happen: the call was refused before it executed."""


class Indeterminate(Exception):  # noqa: N818 - see Unavailable
    """It may have happened: the call was sent and its answer is not known."""
