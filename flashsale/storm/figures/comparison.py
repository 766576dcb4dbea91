"""What became of a run's figures since an earlier run: the form in which summary.json has it."""

from flashsale.errors import ExitCode
from flashsale.model import Verdict
from flashsale.storm.figures.part import Part


class Change(Part):
    """One figure of two runs. `unknown` where one of them has too few samples for it."""

    metric: str
    unit: str
    """`ms`, `/s` or `%` (of the planned attempts, written as a share of 1)."""

    before: float | None
    after: float | None
    change: float | None
    """Relative to the figure before: 0.15 is 15 % more. None where there is nothing to relate."""

    verdict: Verdict
    detail: str


class Comparison(Part):
    """A run beside the one that it was compared with."""

    run: str
    """The earlier run's name."""

    folder: str
    """Where that run lies, seen from this run's folder."""

    max_regress: float
    """How much worse a figure may have become, as a share of 1."""

    warnings: list[str]
    """Why the two may differ for another reason than the target."""

    changes: list[Change]

    @property
    def verdict(self) -> Verdict:
        """Fail where one figure has become too bad, unknown where none could be compared."""
        verdicts = {change.verdict for change in self.changes}
        if Verdict.FAIL in verdicts:
            return Verdict.FAIL
        return Verdict.PASS if Verdict.PASS in verdicts else Verdict.UNKNOWN

    @property
    def exit_code(self) -> ExitCode:
        """What the comparison alone amounts to."""
        match self.verdict:
            case Verdict.FAIL:
                return ExitCode.REGRESSION
            case Verdict.PASS:
                return ExitCode.PASS
            case _:
                return ExitCode.NOTHING_JUDGED
