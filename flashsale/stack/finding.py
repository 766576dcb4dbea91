"""One thing that was looked at: what was found, what it means, and the cure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """What a finding means for the promises of the sale."""

    OK = "ok"
    WARN = "warn"  # slower, or less than it could be
    FAIL = "fail"  # a promise would break


@dataclass(frozen=True)
class Finding:
    """A row of `flashsale doctor`. The cure is empty where nothing is to be cured."""

    subject: str
    name: str
    found: str
    grade: Grade
    cure: str = ""


def judged(
    subject: str, name: str, found: object, holds: bool, cure: str, grade: Grade = Grade.FAIL
) -> Finding:
    """A finding that is OK where it holds, and otherwise of `grade` with its cure."""
    if holds:
        return Finding(subject, name, str(found), Grade.OK)
    return Finding(subject, name, str(found), grade, cure)


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Those that would break a promise."""
    return [finding for finding in findings if finding.grade is Grade.FAIL]
