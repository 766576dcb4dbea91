"""What a check has to say: violations, doubts and remarks, each naming its offenders, and what it
met of what it guards.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

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
