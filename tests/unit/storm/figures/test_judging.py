from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

import pytest

from flashsale.model import Ending, Outcome, Reading, Verdict
from flashsale.run.histogram import Histogram
from flashsale.scenario.load import Stage
from flashsale.scenario.thresholds import metrics, parse_threshold
from flashsale.storm.figures.figures import Loads
from flashsale.storm.figures.judging import judge


@dataclass
class Figures:
    planned: int = 2000
    outcomes: Counter[Ending] = field(
        default_factory=lambda: Counter(
            {Outcome.SOLD: 100, Outcome.SOLD_OUT: 1899, Outcome.SHED: 1}
        )
    )
    rate_per_s: Fraction = Fraction(123_456, 10)
    start_lag: Histogram = field(default_factory=lambda: Histogram([10_000] * 1000))
    loads: Loads | None = field(default_factory=lambda: Loads(3, shops=2, unknown=0))

    def of(self, endpoint: str, stage: Stage | None = None) -> "Figures":
        return self if stage is None else Staged(stage.arrivals)

    def latency(self, clock: str, outcome: Ending | None) -> Histogram:
        if outcome is Outcome.SOLD:
            return Histogram([2_000] * 100)
        if outcome is not None:
            return Histogram()
        return Histogram([50_000 if clock == "response" else 5_000] * 2000)


@dataclass
class Staged(Figures):
    """Of a stage: as many answers as arrivals, each after as many ms."""

    def latency(self, clock: str, outcome: Ending | None) -> Histogram:
        return Histogram([self.planned * 1000] * self.planned)


STAGES = [Stage(0, 1, arrivals, Fraction(1), Fraction(1)) for arrivals in (100, 300, 0)]


@pytest.mark.parametrize(
    ("metric", "condition", "holds", "shown"),
    [
        ("stage2.buy.p90", "<= 3x stage1.buy.p90", True, "300.0 ms, beside 100.0 ms"),
        ("stage2.buy.p90", "<= 2.9x stage1.buy.p90", False, "300.0 ms, beside 100.0 ms"),
        ("stage2.buy.p90", "<= 6x buy.response.p90", True, "300.0 ms, beside 50.0 ms"),
        ("stage2.buy.sold.count", "> 2x stage1.buy.sold.count", False, "100, beside 100"),
        ("stage1.buy.p90", "<= 1x stage3.buy.p90", False, "stage3.buy.response.p90: no samples"),
        ("stage3.buy.p90", "<= 1x stage1.buy.p90", False, "no samples"),
        ("stage1.buy.p90", "< 101ms", True, "100.0 ms"),
        ("stage1.buy.sold.share", "== 100%", True, "100.00%"),
    ],
)
def test_a_stage_is_judged_by_itself_or_beside_another_figure(
    metric: str, condition: str, holds: bool, shown: str
) -> None:
    judgement = judge(parse_threshold(metric, condition), Figures(), STAGES)
    assert (judgement.verdict is Verdict.PASS, judgement.detail) == (holds, shown)


@pytest.mark.parametrize(
    ("metric", "condition", "holds", "shown"),
    [
        ("buy.response.p99", "< 51ms", True, "50.0 ms"),
        ("buy.response.p99", "<50ms", False, "50.0 ms"),
        ("buy.service.p50", " <= 5.003 ms ", True, "5.0 ms"),
        ("buy.response.max", "== 50000us", True, "50.0 ms"),
        ("buy.response.mean", "> 0.1s", False, "50.0 ms"),
        ("buy.sold.response.p90", "< 2.1ms", True, "2.0 ms"),
        ("buy.p99", "< 51ms", True, "50.0 ms"),
        ("buy.sold.p90", "< 2.1ms", True, "2.0 ms"),
        ("buy.error.count", "== 1", True, "1"),
        ("buy.error.share", "< 0.05%", False, "0.05%"),
        ("buy.sold.count", "== 100", True, "100"),
        ("buy.sold.count", "> 100", False, "100"),
        ("buy.sold.share", ">= 5%", True, "5.00%"),
        ("buy.unknown.share", "<= 0%", True, "0.00%"),
        ("buy.unknown.count", "== 0", True, "0"),
        ("rate", ">= 10000/s", True, "12,346/s"),
        ("rate", ">= 20000/s", False, "12,346/s"),
        ("start_lag.p95", "< 5ms", False, "10.0 ms"),
        ("error.share", "<= 10%", True, "0.05%"),
        ("error.count", "== 1", True, "1"),
        ("database.loads", "== 3", True, "3"),
        ("database.loads_per_shop", "== 100%", False, "150.00%"),
    ],
)
def test_a_threshold_is_compared_in_its_own_unit(
    metric: str, condition: str, holds: bool, shown: str
) -> None:
    judgement = judge(parse_threshold(metric, condition), Figures())
    assert judgement.verdict is (Verdict.PASS if holds else Verdict.FAIL)
    assert judgement.detail == shown


@pytest.mark.parametrize(
    ("metric", "detail"),
    [
        ("buy.duplicate.response.p50", "no samples"),
        ("buy.duplicate.service.max", "no samples"),
        ("buy.sold.response.p99", "100 samples, and p99 needs 1,000"),
        ("buy.response.p99.9", "2,000 samples, and p99.9 needs 10,000"),
        ("browse.hit.response.p50", "no samples"),
    ],
)
def test_silence_is_not_a_pass(metric: str, detail: str) -> None:
    judgement = judge(parse_threshold(metric, "< 1000s"), Figures())
    assert judgement.verdict is Verdict.FAIL
    assert judgement.value is None
    assert judgement.detail == detail


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_error_is_whatever_a_healthy_sale_does_not_answer(outcome: Outcome) -> None:
    figures = Figures(outcomes=Counter({Outcome.SOLD: 1800, Reading.HIT: 0, outcome: 200}))
    judgement = judge(parse_threshold("error.share", "<= 9.9%"), figures)
    sound = {"sold", "sold_out", "duplicate", "not_open", "ended", "paused", "rate_limited"}
    assert (judgement.verdict is Verdict.PASS) == (outcome in sound)


def test_loads_that_nobody_counted_are_no_pass() -> None:
    demanded = parse_threshold("database.loads", "< 10")
    judgement = judge(demanded, Figures(loads=None))
    assert judgement.verdict is Verdict.FAIL
    assert judgement.detail == "the database's own statistics were not to be had"
    for metric, condition in (("loads", "< 10"), ("loads_per_shop", "== 100%")):
        inexact = Figures(loads=Loads(None, 10, 10, "no history"))
        judgement = judge(parse_threshold(f"database.{metric}", condition), inexact)
        assert (judgement.verdict, judgement.detail) == (Verdict.FAIL, "unknown: no history")
    unknown = judge(parse_threshold("database.loads_per_unknown", "<= 1%"), Figures())
    assert (unknown.verdict, unknown.detail) == (Verdict.FAIL, "no unknown id was asked for")


def test_every_metric_can_be_demanded_and_judged() -> None:
    conditions = {"latency": "< 1ms", "count": "< 1", "share": "< 1%", "rate": "< 1/s"}
    for name, metric in metrics().items():
        assert judge(parse_threshold(name, conditions[metric.kind]), Figures()).verdict


def of_claims(**outcomes: int) -> Figures:
    counted: Counter[Ending] = Counter({Outcome(name): n for name, n in outcomes.items()})
    return Figures(planned=sum(outcomes.values()), outcomes=counted)


@pytest.mark.parametrize(
    ("sold", "of", "condition", "holds", "shown"),
    [
        (19, 20, ">= 95%", True, "95.00%"),
        (19, 20, "> 95%", False, "95.00%"),
        (7, 100, "<= 7%", True, "7.00%"),
        (29, 100, "== 29%", True, "29.00%"),
        (1149, 1000_00, "<= 1.149%", True, "1.149%"),
        (1, 1_000_000, "<= 0%", False, "0.0001%"),
        (1, 3, "> 33.333333333%", True, "33.3333333333%"),
        (999_999, 1_000_000, "== 100%", False, "99.9999%"),
        (999_999, 1_000_000, ">= 99%", True, "100.00%"),
    ],
)
def test_a_share_is_compared_as_it_is_written_and_shown_as_it_is_judged(
    sold: int, of: int, condition: str, holds: bool, shown: str
) -> None:
    judged = judge(
        parse_threshold("buy.sold.share", condition), of_claims(sold=sold, shed=of - sold)
    )
    assert (judged.verdict is Verdict.PASS, judged.detail) == (holds, shown)


@pytest.mark.parametrize("of", range(1, 101))
def test_each_share_of_a_hundredth_equals_the_per_cent_it_is(of: int) -> None:
    for sold in range(of + 1):
        if 100 * sold % of == 0:
            share = parse_threshold("buy.sold.share", f"== {100 * sold // of}%")
            assert judge(share, of_claims(sold=sold, shed=of - sold)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("metric", "condition", "holds", "shown"),
    [
        ("rate", "== 12345.6/s", True, "12,345.6/s"),
        ("rate", "> 12345.6/s", False, "12,345.6/s"),
        ("rate", ">= 12345.61/s", False, "12,345.6/s"),
        ("rate", "< 12345.59/s", False, "12,346/s"),
        ("rate", ">= 12346/s", False, "12,345.6/s"),
        ("buy.response.max", "<= 0.05s", True, "50.0 ms"),
        ("buy.response.max", "< 50ms", False, "50.0 ms"),
        ("buy.response.mean", "< 50ms", True, "49.9995 ms"),
    ],
)
def test_times_and_rates_are_compared_as_they_are_written(
    metric: str, condition: str, holds: bool, shown: str
) -> None:
    judged = judge(parse_threshold(metric, condition), Figures())
    assert (judged.verdict is Verdict.PASS, judged.detail) == (holds, shown)


@pytest.mark.parametrize(("us", "limit"), [(1005, "1.005ms"), (8003, "0.008003s"), (2300, "2.3ms")])
def test_a_time_in_the_record_equals_the_limit_that_is_written(us: int, limit: str) -> None:
    figures = Figures()
    figures.latency = lambda clock, outcome: Histogram([us])  # type: ignore[method-assign]
    for condition, holds in ((f"<= {limit}", True), (f"< {limit}", False), (f"== {limit}", True)):
        judged = judge(parse_threshold("buy.max", condition), figures)
        assert (judged.verdict is Verdict.PASS) is holds
