"""The verdict: what each check amounts to, what the run amounts to, and the exit code."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from flashsale.errors import ExitCode
from flashsale.model import Verdict
from flashsale.verify.checks import CHECKS, Check
from flashsale.verify.finding import Finding
from flashsale.verify.latency import drain_s, persisted_latency
from flashsale.verify.snapshot import Snapshot

_EXIT_CODES = {
    Verdict.PASS: ExitCode.PASS,
    Verdict.FAIL: ExitCode.VIOLATION,
    Verdict.UNKNOWN: ExitCode.NOTHING_JUDGED,
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What one check amounts to; `detail` names the offenders, or the rule that held."""

    name: str
    verdict: Verdict
    detail: str
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it stands in summary.json."""
        return {
            "name": self.name,
            "verdict": str(self.verdict),
            "detail": self.detail,
            "findings": [finding.to_json() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the whole run amounts to. `reason` says why nothing, or not all, could be judged.

    `shortfall` says what the storm's record lacks, and what that means.
    """

    verdict: Verdict
    checks: tuple[Judged, ...]
    reason: str | None = None
    accepted: int | None = None
    unanswered: int | None = None
    persisted: int | None = None
    drain_s: float | None = None
    waited_s: float = 0.0
    latency_ms: dict[str, Any] | None = None
    shortfall: str | None = None

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


def judge(snapshot: Snapshot) -> Judgement:
    """Judge everything. Pure.

    One violation fails the run; without one, a check that could not judge leaves it unknown, and
    so does a run in which nothing was accepted, since it put no rule to the test.
    """
    before = snapshot.before
    if before is not None and before.dataset != snapshot.dataset:
        return unjudged(
            f"the stores hold data set {snapshot.dataset}, the run was on {before.dataset}"
        )
    if not snapshot.still:
        return unjudged("the sale was still moving while it was read; try again when it rests")
    checks = tuple(_judge_one(check, snapshot) for check in CHECKS)
    verdict, reason = _whole(checks, snapshot)
    return Judgement(
        verdict=verdict,
        checks=checks,
        reason=reason,
        accepted=snapshot.accepted,
        unanswered=snapshot.unanswered,
        persisted=snapshot.persisted,
        drain_s=drain_s(snapshot),
        latency_ms=persisted_latency(snapshot),
        shortfall=snapshot.shortfall,
    )


def unjudged(reason: str) -> Judgement:
    """The judgement that nothing could be judged."""
    checks = tuple(Judged(check.name, Verdict.UNKNOWN, reason) for check in CHECKS)
    return Judgement(Verdict.UNKNOWN, checks, reason)


def after_waiting(judgement: Judgement, waited_s: float) -> Judgement:
    """The judgement with the time that its drain took."""
    return replace(judgement, waited_s=waited_s)


def _judge_one(check: Check, snapshot: Snapshot) -> Judged:
    findings = tuple(check.judge(snapshot))
    verdict = _gravest(finding.verdict for finding in findings)
    told = [finding for finding in findings if finding.verdict == verdict]
    detail = "; ".join(map(str, told)) if told else check.rule
    return Judged(check.name, verdict, detail, findings)


def _gravest(verdicts: Iterable[Verdict]) -> Verdict:
    found = set(verdicts)
    return next((v for v in (Verdict.FAIL, Verdict.UNKNOWN) if v in found), Verdict.PASS)


def _whole(checks: tuple[Judged, ...], snapshot: Snapshot) -> tuple[Verdict, str | None]:
    verdict = _gravest(check.verdict for check in checks)
    if verdict == Verdict.FAIL:
        return verdict, None
    if not snapshot.accepted:
        return Verdict.UNKNOWN, "no order was accepted, so no rule was put to the test"
    if verdict == Verdict.UNKNOWN:
        unknown = ", ".join(check.name for check in checks if check.verdict == verdict)
        return verdict, f"could not judge {unknown}"
    return verdict, None
