"""What a check has to say: violations, doubts and remarks, each naming its offenders, and what it
met of what it guards; what one check, and what a whole run amounts to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from flashsale.errors import ExitCode
from flashsale.model import Verdict

EXAMPLES_MAX = 20
"""How many offenders a finding names; the total counts them all."""


@dataclass(frozen=True, slots=True)
class Offence:
    """One offender. `text` says it all; the numbers beside it are for machines."""

    text: str
    voucher: int | None = None
    user: int | None = None
    order: int | str | None = None

    def to_json(self) -> dict[str, Any]:
        """The offence with its order id as text, since JSON numbers lose digits above 2^53."""
        order = str(self.order) if self.order is not None else None
        return {"text": self.text, "voucher": self.voucher, "user": self.user, "order": order}


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule and those who broke it: FAIL. UNKNOWN is a doubt, PASS a remark."""

    verdict: Verdict
    rule: str
    total: int
    offences: tuple[Offence, ...]

    def __str__(self) -> str:
        if not self.offences:
            return self.rule
        named = "; ".join(offence.text for offence in self.offences)
        more = self.total - len(self.offences)
        return f"{self.rule}: {named}" + (f"; and {more:,} more" if more else "")

    def to_json(self) -> dict[str, Any]:
        """The finding as it stands in summary.json."""
        return {
            "verdict": str(self.verdict),
            "rule": self.rule,
            "total": self.total,
            "offences": [offence.to_json() for offence in self.offences],
        }


def violation(rule: str, offences: Iterable[Offence]) -> list[Finding]:
    """The finding that `rule` was broken, or nothing where there is no offence."""
    return _finding(Verdict.FAIL, rule, offences)


def doubt(rule: str, offences: Iterable[Offence]) -> list[Finding]:
    """The finding that `rule` could not be judged, or nothing where nothing is in doubt."""
    return _finding(Verdict.UNKNOWN, rule, offences)


def remark(rule: str, offences: Iterable[Offence]) -> list[Finding]:
    """Something worth saying beside a pass, or nothing."""
    return _finding(Verdict.PASS, rule, offences)


def _finding(verdict: Verdict, rule: str, offences: Iterable[Offence]) -> list[Finding]:
    rest = iter(offences)
    named = tuple(islice(rest, EXAMPLES_MAX))
    total = len(named) + sum(1 for _ in rest)
    return [Finding(verdict, rule, total, named)] if total else []


Met = Mapping[str, int]
"""What came that a check guards against, by what is counted: first of all what it guards. Where
that is nought, it would have passed whatever the sale does; the other counts say how it was tried.
"""


def is_met(met: Met) -> bool:
    """True where something came that the check guards against."""
    return next(iter(met.values()), 0) > 0


_EXIT_CODES = {
    Verdict.PASS: ExitCode.PASS,
    Verdict.FAIL: ExitCode.VIOLATION,
    Verdict.UNKNOWN: ExitCode.NOTHING_JUDGED,
}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check amounts to; `detail` names the offenders, or the rule that held.

    `exercised` counts what it met, first of all of what it guards. `history` is the second judge's:
    the smallest part of the run that no sale can have gone through, claim by claim.
    """

    name: str
    verdict: Verdict
    detail: str
    findings: tuple[Finding, ...] = ()
    exercised: Met = field(default_factory=dict)
    history: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it stands in summary.json."""
        return {
            "name": self.name,
            "verdict": str(self.verdict),
            "detail": self.detail,
            "exercised": dict(self.exercised),
            "findings": [finding.to_json() for finding in self.findings],
            "history": list(self.history),
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the whole run amounts to. `reason` says why nothing, or not all, could be judged.

    `shortfall` says what the storm's record lacks, and what that means; `rests_on` what a verdict
    on somebody else's shop rests on.
    """

    verdict: Verdict
    checks: tuple[CheckResult, ...]
    reason: str | None = None
    accepted: int | None = None
    unanswered: int | None = None
    persisted: int | None = None
    drain_s: float | None = None
    waited_s: float = 0.0
    latency_ms: dict[str, Any] | None = None
    shortfall: str | None = None
    rests_on: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """What `flashsale verify` ends with."""
        return _EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """As it stands in verify.json and in `--json`."""
        return {
            "schema": 1,
            "verdict": str(self.verdict),
            "exit_code": int(self.exit_code),
            "reason": self.reason,
            "shortfall": self.shortfall,
            **({"rests_on": list(self.rests_on)} if self.rests_on else {}),
            "orders": {
                "accepted": self.accepted,
                "unanswered": self.unanswered,
                "persisted": self.persisted,
                "drain_s": self.drain_s,
            },
            "waited_s": round(self.waited_s, 3),
            "latency_ms": {"persisted": self.latency_ms},
            "checks": [check.to_json() for check in self.checks],
        }
