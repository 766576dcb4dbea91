"""What can go wrong, in the two kinds that matter to a sale, and the exit codes."""

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
