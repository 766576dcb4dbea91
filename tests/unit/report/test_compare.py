from collections.abc import Sequence
from typing import Any

import pytest
from unit.run.test_summary import GONE, SHED, SOLD, concluded, judgement

from flashsale.errors import ExitCode
from flashsale.model import Verdict
from flashsale.report.compare import compare, ensure_comparable
from flashsale.run.parts import Health, Latency, Machine
from flashsale.run.summary import Change, Comparison, EndpointSummary, Summary

HERE = Machine(system="Linux 6", processor="a", cpus=2, python="3.11.2")
P = {"p50": 20.0, "p95": 40.0, "p99": 60.0}


def run(
    *,
    latency: dict[str, float | None] | None = None,
    rate: float = 1_000.0,
    shed: int = 0,
    answers: int = 2_000,
    **other: Any,
) -> Summary:
    """A run of 2,000 attempts."""
    summary = concluded(SOLD)
    statistics = {"mean": 20.0, "p90": 30.0, "p99.9": None, "max": 70.0, **P, **(latency or {})}
    response = Latency.model_validate({"count": answers, **statistics})
    load = {
        "planned": 2_000, "sent": 2_000, "rate_per_s": rate,
        "outcomes": {"sold": 2_000 - shed, "shed": shed},
    }  # fmt: skip
    return summary.model_copy(
        update={
            "endpoints": {},  # as runs of old
            "load": summary.load.model_copy(update=load),
            "latency_ms": summary.latency_ms.model_copy(update={"response": response}),
            **other,
        }
    )


def verdicts(changes: Sequence[Change]) -> dict[str, Verdict]:
    return {change.metric: change.verdict for change in changes}


def failing(before: Summary, after: Summary, max_regress: float = 0.15) -> set[str]:
    found = verdicts(compare(before, after, max_regress, "x").changes)
    return {metric for metric, verdict in found.items() if verdict is Verdict.FAIL}


def test_equal_runs_pass() -> None:
    found = compare(run(), run(), 0.15, "../old")
    assert set(verdicts(found.changes).values()) == {Verdict.PASS}
    assert (found.verdict, found.exit_code) == (Verdict.PASS, ExitCode.PASS)
    assert (found.folder, found.max_regress, found.warnings) == ("../old", 0.15, [])
    assert {change.change for change in found.changes} == {0.0, None}


@pytest.mark.parametrize("name", ["p50", "p95", "p99"])
def test_a_latency_may_grow_by_so_much(name: str) -> None:
    base = P[name]
    assert failing(run(), run(latency={name: base * 1.15})) == set()
    assert failing(run(), run(latency={name: base * 1.16})) == {f"buy.response.{name}"}
    assert failing(run(), run(latency={name: base * 0.5})) == set(), "better is no regression"
    assert failing(run(), run(latency={name: base * 1.16}), max_regress=0.2) == set()


@pytest.mark.parametrize(
    ("before", "after", "max_regress", "fails", "told"),
    [
        (100.0, 115.0, 0.15, False, "+15.0%"),
        (20.0, 21.4, 0.07, False, "+7.0%"),
        (100.0, 115.01, 0.15, True, "+15.01%"),
        (1000.0, 1000.8, 0.0, True, "+0.1%"),
        (1000.0, 1000.4, 0.0, True, "+0.04%"),
    ],
)
def test_a_change_is_compared_as_it_is_written_and_shown_as_it_is_judged(
    before: float, after: float, max_regress: float, fails: bool, told: str
) -> None:
    found = compare(run(latency={"p99": before}), run(latency={"p99": after}), max_regress, "x")
    (p99,) = (change for change in found.changes if change.metric == "buy.response.p99")
    assert (p99.verdict is Verdict.FAIL, p99.detail) == (fails, told)


def test_less_than_a_turn_of_the_scheduler_is_no_regression() -> None:
    before = run(latency={"p50": 0.2})
    assert failing(before, run(latency={"p50": 0.45})) == set()
    assert failing(before, run(latency={"p50": 0.46})) == {"buy.response.p50"}


def test_a_rate_may_fall_by_so_much() -> None:
    assert failing(run(), run(rate=850.0)) == set()
    assert failing(run(), run(rate=849.0)) == {"rate"}
    assert failing(run(), run(rate=5_000.0)) == set()


@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [(0, 9, False), (0, 10, True), (100, 114, False), (100, 116, True), (20, 28, False),
     (100, 0, False)],
)  # fmt: skip
def test_errors_may_not_grow_beyond_chance(before: int, after: int, fails: bool) -> None:
    assert failing(run(shed=before), run(shed=after)) == ({"buy.error.share"} if fails else set())


def test_too_few_samples_are_neither_better_nor_worse() -> None:
    found = compare(run(), run(latency={"p99": None}), 0.15, "x")
    (p99,) = (change for change in found.changes if change.metric == "buy.response.p99")
    assert (p99.verdict, p99.detail, p99.before, p99.after) == (
        Verdict.UNKNOWN, "too few samples now", 60.0, None,
    )  # fmt: skip
    few = compare(run(answers=99), run(answers=99), 0.15, "x")
    assert verdicts(few.changes)["rate"] is Verdict.UNKNOWN
    assert found.verdict is Verdict.PASS


def test_a_share_of_nothing_that_was_planned_is_unknown() -> None:
    """As of a shard for which no attempt was left."""
    some, none = run(), run()
    load = none.load.model_copy(update={"planned": 0})
    endpoints = {name: it.model_copy(update={"planned": 0}) for name, it in none.endpoints.items()}
    none = none.model_copy(update={"load": load, "endpoints": endpoints})
    for before, after in ((some, none), (none, some), (none, none)):
        (shares,) = (
            change
            for change in compare(before, after, 0.15, "x").changes
            if change.metric.endswith("error.share")
        )
        assert shares.verdict is Verdict.UNKNOWN


def test_a_comparison_of_nothing_is_no_pass() -> None:
    nothing = Comparison(run="x", folder="x", max_regress=0.1, warnings=[], changes=[])
    assert (nothing.verdict, nothing.exit_code) == (Verdict.UNKNOWN, ExitCode.NOTHING_JUDGED)
    assert concluded(SOLD, GONE).with_baseline(nothing).exit_code == ExitCode.NOTHING_JUDGED


def test_another_plan_and_another_machine_are_warned_of() -> None:
    before, after = run(machine=HERE), run(machine=HERE.model_copy(update={"cpus": 8}))
    assert compare(before, after, 0.1, "x").warnings == ["the machine: cpus 8, was 2"]
    assert compare(run(), after, 0.1, "x").warnings == [], "an older run does not say"
    (warning,) = compare(before, run(machine=HERE, plan_hash="other"), 0.1, "x").warnings
    assert warning.startswith("the plans differ")


def test_a_generator_in_doubt_is_warned_of() -> None:
    doubtful = {"verdict": Health.SUSPECT, "doubts": ["a busy core"]}
    before = run(generator=run().generator.model_copy(update=doubtful))
    told = ["the baseline's generator is SUSPECT: a busy core"]
    assert compare(before, run(), 0.1, "x").warnings == told


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scenario": "other"}, "it is a run of 'other', and this one is of 'tiny'"),
        ({"load": {"asked": "reads"}}, "it asked for browse, and this one asks for buy"),
        ({"load": {"interrupted_by": 130}}, "it was cut short"),
        (
            {"generator": {"verdict": Health.INVALID, "complaints": ["late"]}},
            r"it is INVALID \(late\)",
        ),
    ],
)
def test_runs_that_say_nothing_about_each_other_are_refused(
    change: dict[str, Any], reason: str
) -> None:
    before = run()
    for name, value in change.items():
        part = getattr(before, name)
        new = part.model_copy(update=value) if isinstance(value, dict) else value
        before = before.model_copy(update={name: new})
    with pytest.raises(ValueError, match=reason):
        ensure_comparable(before, "tiny", ["buy"])
    ensure_comparable(run(), "tiny", ["buy"])


def test_a_regression_is_the_least_of_all_failures() -> None:
    found = compare(run(), run(rate=1.0), 0.15, "x")
    assert concluded(SOLD, GONE).with_baseline(found).exit_code == ExitCode.REGRESSION
    assert concluded(SOLD, GONE).with_baseline(found).verdict is Verdict.FAIL
    threshold = concluded(SOLD, GONE, thresholds='"buy.sold.count" = "== 2"')
    assert threshold.with_baseline(found).exit_code == ExitCode.THRESHOLD
    assert concluded(SHED).with_baseline(found).exit_code == ExitCode.NOTHING_JUDGED
    verified = concluded(SOLD, GONE).with_baseline(found).with_verify(judgement("pass"))
    assert (verified.exit_code, verified.baseline) == (ExitCode.REGRESSION, found)


def test_each_endpoint_is_compared_by_itself() -> None:
    part = {"planned": 1_000, "sent": 1_000, "service": run().latency_ms.response, "by_outcome": {},
            "censored": 0}  # fmt: skip

    def both(buy_p50: float, shed: int) -> Summary:
        buy = run(latency={"p50": buy_p50}).latency_ms.response
        browse = run().latency_ms.response
        outcomes = {"hit": 1_000 - shed, "shed": shed}
        return run(
            endpoints={
                "buy": EndpointSummary(response=buy, outcomes={"sold": 1_000}, **part),
                "browse": EndpointSummary(response=browse, outcomes=outcomes, **part),
            }
        )

    assert failing(both(20.0, 0), both(30.0, 20)) == {"buy.response.p50", "browse.error.share"}
    with pytest.raises(ValueError, match="it asked for browse and buy, and this one asks for buy"):
        ensure_comparable(both(20.0, 0), "tiny", ["buy"])


def test_this_machine_is_told_apart() -> None:
    here = Machine.here()
    assert here.cpus > 0
    assert here.processor
    assert here.differences(here) == []
