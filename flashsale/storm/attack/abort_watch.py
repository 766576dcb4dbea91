"""Conditions that end a storm early: `--abort-if 'buy.indeterminate.share>20%'`.

They are metrics like those of thresholds, but of the attempts that have ended so far, and they are
to become true, where a threshold has to hold. Judged a few times a second beside the storm; without
a condition there is nothing to count.
"""

from collections.abc import Sequence

from flashsale.model import Verdict
from flashsale.run.attempts import Attempts
from flashsale.scenario.thresholds import DATABASE, Threshold, parse_expression
from flashsale.storm.figures.figures import RunningFigures
from flashsale.storm.figures.judging import Judgement, judge

LOOK_S = 0.25
SETTLING_S = 1.0
"""A rate is not judged before: nothing has been answered when the barrier opens."""

ENDED_MIN, ENDED_SHARE_MIN = 100, 0.1
"""So many attempts, or such a share of a small plan, have to have ended before shares and latencies
are judged: the first answers of a storm are no sample of it."""


def parse_abort(text: str, where: str) -> Threshold:
    """The condition written as `metric condition`. Raises ValueError with one line."""
    condition = parse_expression(text, where)
    if condition.metric.clock == DATABASE:
        raise ValueError(f"{where}: {condition.name!r} is known only when the storm is over")
    if condition.metric.kind == "count" and condition.comparison not in (">", ">="):
        raise ValueError(
            f"{where}: a count is too small when a storm begins: found {text!r}, expected > or >="
        )
    return condition


class AbortWatch:
    """Looks whether one of its conditions has become true. `judgements` says what became of each:
    FAIL for the one that ended the storm."""

    def __init__(
        self, conditions: Sequence[Threshold], ledger: Attempts, asks: Sequence[int]
    ) -> None:
        self._conditions = conditions
        metrics = [condition.metric for condition in conditions]
        self._figures = RunningFigures(ledger, asks, metrics)
        self._next_s = 0.0
        self._ended_min = max(1, min(ENDED_MIN, round(ENDED_SHARE_MIN * len(ledger.answers))))
        self.met: Judgement | None = None

    def __repr__(self) -> str:
        return f"<AbortWatch {len(self._conditions)} conditions met={self.met}>"

    def look(self, elapsed_s: float) -> bool:
        """Whether the storm is to end now; True at most once."""
        if not self._conditions or self.met is not None:
            return False
        self._figures.take_new(elapsed_s)  # every time: less at once keeps nobody waiting
        if elapsed_s < self._next_s:
            return False
        self._next_s = elapsed_s + LOOK_S
        for condition in self._conditions:
            judgement = judge(condition, self._figures)
            if judgement.verdict is Verdict.PASS and self._can_be_told(condition):
                self.met = self._told(judgement)
                return True
        return False

    @property
    def judgements(self) -> list[Judgement]:
        """One for each condition."""
        return [
            self.met
            if self.met is not None and condition is self.met.threshold
            else Judgement(condition, Verdict.PASS, None, "did not become true")
            for condition in self._conditions
        ]

    def _can_be_told(self, condition: Threshold) -> bool:
        match condition.metric.kind:
            case "count":
                return True
            case "rate":
                return self._figures.elapsed_s >= SETTLING_S
            case _:
                endpoint = condition.metric.endpoint
                part = self._figures.of(endpoint) if endpoint else self._figures
                return part.planned >= self._ended_min

    def _told(self, judgement: Judgement) -> Judgement:
        figures = self._figures
        ended = f"{figures.planned:,} attempts had ended after {figures.elapsed_s:.1f} s"
        detail = f"{judgement.detail} when {ended}"
        return Judgement(judgement.threshold, Verdict.FAIL, judgement.value, detail)
