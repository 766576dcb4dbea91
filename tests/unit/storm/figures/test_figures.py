from fractions import Fraction

import pytest

from flashsale.model import Outcome
from flashsale.run.attempts import Attempts
from flashsale.scenario.answer import Answer, indeterminate, unsent
from flashsale.scenario.load import Stage
from flashsale.storm.figures.figures import Figures

MS = 1_000_000
ORIGIN = 77 * MS


def record_of(*attempts: tuple[int, int | None, int, Answer]) -> Attempts:
    """A record of (due, sent, done) in ms after the barrier, and the answer."""
    record = Attempts(len(attempts))
    record.origin_ns = ORIGIN
    for i, (due, sent, _, _) in enumerate(attempts):
        record.due_ns[i] = ORIGIN + due * MS
        if sent is not None:
            record.sent_ns[i] = ORIGIN + sent * MS
    for i, (_, _, done, answer) in enumerate(attempts):
        record.settle(i, ORIGIN + done * MS, answer)
    return record


SOLD, GONE = Answer(Outcome.SOLD, 200, "1"), Answer(Outcome.SOLD_OUT, 200)
FIGURES = Figures(
    record_of(
        (0, 5, 20, SOLD),
        (0, 10, 40, GONE),
        (0, 15, 60, GONE),
        (50, 50, 150, Answer(Outcome.INDETERMINATE, 502, None, "http_502")),
        (50, 50, 1050, indeterminate("timeout")),
        (50, 50, 51, indeterminate("reset")),
        (60, None, 2000, unsent("connect")),
    )
)


def test_outcomes_and_errors_are_counted_apart() -> None:
    assert FIGURES.planned == 7
    assert FIGURES.sent == 6
    assert FIGURES.outcomes == {
        Outcome.SOLD: 1,
        Outcome.SOLD_OUT: 2,
        Outcome.INDETERMINATE: 3,
        Outcome.UNSENT: 1,
    }
    assert FIGURES.errors == {"http_502": 1, "timeout": 1, "reset": 1, "connect": 1}


def test_response_runs_from_the_plan_and_service_from_the_send() -> None:
    assert FIGURES.latency("response", Outcome.SOLD).max_us == 20_000
    assert FIGURES.latency("service", Outcome.SOLD).max_us == 15_000
    assert FIGURES.latency("service", Outcome.SOLD_OUT).max_us == 45_000
    assert FIGURES.start_lag.max_us == 15_000
    assert FIGURES.start_lag.count == 6


def test_a_stage_has_those_that_were_due_in_it() -> None:
    second = FIGURES.of("buy", Stage(50_000, 10_000, 3, Fraction(300), Fraction(300)))
    assert (second.planned, second.sent) == (3, 3)
    assert second.outcomes == {Outcome.INDETERMINATE: 3}
    assert second.censored == 1
    first = FIGURES.of("buy", Stage(0, 50_000, 3, Fraction(60), Fraction(60)))
    assert first.latency("response").max_us == 60_000
    assert first.latency("response", Outcome.SOLD).count == 1


def test_what_was_given_up_on_counts_as_long_as_it_was_waited_for() -> None:
    whole = FIGURES.latency("response")
    assert (whole.count, whole.max_us) == (5, 1_000_000)
    assert (FIGURES.censored, FIGURES.lost) == (1, 1)


def test_what_had_no_answer_is_in_no_outcomes_latency() -> None:
    # Of three indeterminate attempts one was answered (502), after 100 ms.
    indeterminate_ones = FIGURES.latency("response", Outcome.INDETERMINATE)
    assert (indeterminate_ones.count, indeterminate_ones.max_us) == (1, 100_000)
    assert FIGURES.latency("response", Outcome.UNSENT).count == 0
    assert FIGURES.latency("response", Outcome.DUPLICATE).count == 0


def test_the_rate_is_of_answers_until_the_last_outcome() -> None:
    assert FIGURES.duration_s == 2.0
    assert FIGURES.rate_per_s == 4 / 2.0


def test_arrivals_and_completions_fall_into_their_slots() -> None:
    timeline = FIGURES.timeline()
    assert timeline.slot_us == 50_000
    assert timeline.sent[:3] == [3, 3, 0]
    assert timeline.answered[:4] == [2, 1, 0, 1]
    assert (sum(timeline.sent), sum(timeline.answered)) == (6, 4)
    assert len(timeline.sent) == len(timeline.answered) == 41


def test_a_long_run_gets_wider_slots_and_loses_nobody() -> None:
    timeline = Figures(record_of((0, 0, 1, SOLD), (0, 600_000, 600_001, SOLD))).timeline()
    assert timeline.slot_us == 1_500_000
    assert (timeline.sent[0], timeline.sent[-1], len(timeline.sent)) == (1, 1, 401)
    assert sum(timeline.answered) == 2


def test_the_log_has_an_interval_for_each_second_label_and_clock() -> None:
    rows = [line.split(",")[:3] for line in FIGURES.hlog().splitlines() if line[:4] == "Tag="]
    assert ["Tag=buy.sold.response", "0.000", "1.000"] in rows
    assert ["Tag=buy.censored.service", "1.000", "1.000"] in rows
    assert len(rows) == 2 * 5


@pytest.mark.parametrize("record", [Attempts(3), record_of((0, None, 0, unsent("barrier")))])
def test_a_run_that_never_was_has_figures_of_nothing(record: Attempts) -> None:
    figures = Figures(record)
    assert (figures.sent, figures.rate_per_s, figures.latency("response").count) == (0, 0.0, 0)
    assert sum(figures.timeline().sent) == 0
