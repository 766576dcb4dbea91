from collections.abc import Sequence

import pytest

from flashsale.model import Outcome, Verdict
from flashsale.run.attempts import Attempts
from flashsale.scenario.answer import Answer, indeterminate, unsent
from flashsale.scenario.load import Step
from flashsale.scenario.thresholds import metrics
from flashsale.storm.figures.figures import Figures, RunningFigures
from flashsale.storm.figures.judging import AbortWatch, parse_abort

MS = 1_000_000
SOLD, GONE = Answer(Outcome.SOLD, 200, "1"), Answer(Outcome.SOLD_OUT, 200)
LOST, LATE = indeterminate("reset"), indeterminate("timeout")


class Storm:
    """A record that fills, and a watch on it."""

    def __init__(self, *conditions: str, planned: int = 2_000) -> None:
        self.record = Attempts(planned)
        self.record.origin_ns = 5
        parsed = [parse_abort(text, "--abort-if") for text in conditions]
        self.watch = AbortWatch(parsed, self.record, [Step.BUY] * planned)

    def end(self, *answers: Answer, after_ms: int = 10) -> "Storm":
        for answer in answers:
            i = len(self.record.arrivals)
            self.record.due_ns[i] = 5
            if answer.outcome is not Outcome.UNSENT:
                self.record.sent_ns[i] = 5 + MS
            self.record.settle(i, 5 + after_ms * MS, answer)
        return self


LOOKS = (
    ("buy.indeterminate.share>20%", [SOLD] * 80 + [LOST] * 20, False),
    ("buy.indeterminate.share>20%", [SOLD] * 79 + [LOST] * 21, True),
    ("buy.indeterminate.share>20%", [LOST] * 99, False),  # too few to tell
    ("buy.error.share>=50%", [SOLD] * 50 + [unsent("connect")] * 50, True),
    ("buy.indeterminate.count>3", [LOST] * 4, True),  # a count needs no sample
    ("buy.indeterminate.count>3", [LOST] * 3, False),
    ("buy.p90>9ms", [SOLD] * 99, False),  # a percentile needs its own
    ("buy.p90>9ms", [SOLD] * 100, True),
    ("buy.p90>11ms", [SOLD] * 100, False),
    ("buy.service.max>9.5ms", [SOLD] * 100, False),
    ("buy.service.max>8.5ms", [SOLD] * 100, True),
    ("start_lag.max>0.5ms", [SOLD] * 100, True),
    ("rate<1000/s", [], True),  # a target that answers nothing
    ("rate<1000/s", [SOLD] * 1_100, False),
    ("browse.hit.share<50%", [SOLD] * 100, False),  # nobody browsed
)


@pytest.mark.parametrize(("condition", "answers", "ends"), LOOKS)
def test_a_condition_that_becomes_true_ends_the_storm(
    condition: str, answers: Sequence[Answer], ends: bool
) -> None:
    storm = Storm(condition).end(*answers)
    assert storm.watch.look(1.0) is ends
    assert bool(storm.watch.met) is ends


def test_what_comes_later_is_counted_on_and_the_end_comes_once() -> None:
    storm = Storm("buy.indeterminate.share>20%", "buy.sold.count>1000").end(*[SOLD] * 500)
    assert not storm.watch.look(0.25)
    storm.end(*[LOST] * 500)
    assert not storm.watch.look(0.3), "not yet: a few times a second"
    assert storm.watch.look(0.5)
    assert not storm.watch.look(9.0)
    met, other = storm.watch.judgements
    assert (met.verdict, met.value) == (Verdict.FAIL, 0.5)
    assert met.detail == "50.00% when 1,000 attempts had ended after 0.5 s"
    assert other.verdict is Verdict.PASS
    assert other.detail == "was not true when another ended the storm"


def test_each_condition_that_is_true_at_a_look_is_told() -> None:
    storm = Storm("buy.error.share>1%", "buy.indeterminate.count>10").end(*[LOST] * 500)
    assert storm.watch.look(0.25)
    assert [it.verdict for it in storm.watch.judgements] == [Verdict.FAIL] * 2
    assert not any(it.at_end for it in storm.watch.judgements)


AT_END = (
    ("buy.indeterminate.share>20%", [SOLD] * 7 + [LOST] * 3, "30.00%"),
    ("buy.sold.count>=7", [SOLD] * 7, "7"),
    ("buy.max>9ms", [SOLD], "10.0 ms"),
    ("rate<1000/s", [SOLD] * 5, "500/s"),
    ("error.share>20%", [LOST] * 3 + [SOLD] * 12, ""),
)


@pytest.mark.parametrize(("condition", "answers", "found"), AT_END)
def test_what_comes_true_after_the_last_look_is_judged_on_the_final_figures(
    condition: str, answers: Sequence[Answer], found: str
) -> None:
    storm = Storm(condition)
    assert not storm.watch.look(0.0)
    storm.end(*answers)
    storm.watch.end(0.01)
    (judgement,) = storm.watch.judgements
    if not found:
        assert (judgement.verdict, judgement.detail) == (Verdict.PASS, "did not become true")
        return
    assert judgement.verdict is Verdict.FAIL
    assert judgement.detail == f"{found} when the storm was over"
    assert judgement.at_end


def test_what_ended_the_storm_early_is_not_judged_again_at_its_end() -> None:
    storm = Storm("buy.indeterminate.share>20%", "buy.unsent.share>20%").end(*[LOST] * 500)
    assert storm.watch.look(0.25)
    storm.end(*[unsent("aborted")] * 1_500).watch.end(0.5)
    met, other = storm.watch.judgements
    assert (met.at_end, other.verdict) == (False, Verdict.PASS)


def test_a_rate_is_not_judged_when_the_barrier_opens() -> None:
    storm = Storm("rate<1000/s")
    assert not storm.watch.look(0.9)
    assert storm.watch.look(1.2)


def test_a_small_plan_needs_a_tenth() -> None:
    storm = Storm("buy.error.share>20%", planned=50).end(*[LOST] * 4)
    assert not storm.watch.look(0.25)
    assert storm.end(LOST).watch.look(0.5)


def test_without_conditions_nothing_is_counted() -> None:
    storm = Storm().end(*[LOST] * 500)
    assert not storm.watch.look(1.0)
    assert storm.watch.judgements == []


def test_the_figures_so_far_are_at_last_the_figures_of_the_run() -> None:
    storm = Storm(planned=700)
    record, asks = storm.record, [Step.BUY] * 700
    so_far = RunningFigures(record, asks, list(metrics().values()))
    for elapsed_s in range(7):
        storm.end(*[SOLD] * 40, *[GONE] * 40, LOST, LATE, *[unsent("connect")] * 18)
        so_far.take_new(elapsed_s)
    whole = Figures(record, asks)
    for name in ("", "buy"):
        one, other = (so_far, whole) if not name else (so_far.of(name), whole.of(name))
        assert one.planned == other.planned == 700
        assert one.outcomes == other.outcomes
        for clock in ("response", "service") if name else ():
            for outcome in (None, Outcome.SOLD, Outcome.INDETERMINATE):
                pair = one.latency(clock, outcome), other.latency(clock, outcome)
                assert pair[0].count == pair[1].count
                assert pair[0].spectrum() == pair[1].spectrum()
    assert so_far.start_lag.spectrum() == whole.start_lag.spectrum()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("database.loads>5", "'database.loads' is known only when the storm is over"),
        ("buy.sold.count<5", "a count is too small when a storm begins"),
        ("buy.sold.count==5", "a count is too small when a storm begins"),
        ("buy.p98>5ms", "no metric 'buy.p98'"),
        ("buy", "expected such as"),
    ],
)
def test_a_condition_that_says_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^--abort-if: .*{message}"):
        parse_abort(text, "--abort-if")
