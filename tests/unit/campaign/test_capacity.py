"""Capacity around its trials: which rate is next, what holds, what is left behind."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from flashsale.campaign import capacity
from flashsale.campaign.capacity import (
    CapacityRequest,
    RateTrial,
    at_rate,
    found_by,
    next_rate,
    peak_of,
    run_capacity,
    verdict_of,
)
from flashsale.campaign.rehearsal import RehearsalRequest
from flashsale.campaign.storming import StoppedError
from flashsale.errors import ExitCode, UsageError
from flashsale.scenario.scenario import Scenario, load_scenario, parse_scenario

TEXT = """
schema = 1
name = "steps"
[sale]
units = 10
[load]
model = "rate"
stages = ["1s:10..100", "500ms:50"]
connections = 5
"""


def scenario() -> Scenario:
    return parse_scenario(TEXT, "steps.toml")


def request(folder: Path = Path("unused"), **given: object) -> CapacityRequest:
    return CapacityRequest(scenario(), "steps", folder, **given)  # type: ignore[arg-type]


class Stack:
    """Holds up to a rate, but for the trials that are counted out."""

    def __init__(self, carries: float, code: ExitCode = ExitCode.THRESHOLD, odd: int = 0) -> None:
        self.carries, self.code, self.odd = carries, code, odd
        self.tried: list[float] = []

    def __call__(
        self, request: CapacityRequest, per_s: float, before: Sequence[RateTrial]
    ) -> RateTrial:
        self.tried.append(per_s)
        holds = per_s <= self.carries and len(self.tried) != self.odd
        return RateTrial(per_s, ExitCode.PASS if holds else self.code, "" if holds else "too slow")


def found(stack: Stack, **given: object) -> capacity.Capacity:
    trials: list[RateTrial] = []
    asked = request(**given)
    while (rate := next_rate(asked, trials)) is not None:
        trials.append(stack(asked, rate, trials))
        assert len(trials) < 200
    return found_by(trials, asked.repeats)


@pytest.mark.parametrize("carries", [1.5, 99.0, 100.0, 101.0, 12_345.0])
@pytest.mark.parametrize("precision", [0.01, 0.1, 1.0])
def test_the_interval_holds_what_it_is_asked_for(carries: float, precision: float) -> None:
    it = found(Stack(carries), precision=precision)
    assert it.holds_per_s is not None
    assert it.fails_per_s is not None
    assert it.holds_per_s <= carries < it.fails_per_s
    assert it.fails_per_s <= it.holds_per_s * (1 + precision) + 0.01
    assert it.limit == "too slow"
    assert it.told.endswith("does not (too slow); more than half of 3 trials decide")


@pytest.mark.parametrize("odd", range(1, 12))
def test_one_odd_trial_of_three_changes_nothing(odd: int) -> None:
    assert found(Stack(1_000, odd=odd)) == found(Stack(1_000))


def test_a_rate_is_decided_by_more_than_half() -> None:
    holds, fails = RateTrial(1, ExitCode.PASS), RateTrial(1, ExitCode.THRESHOLD)
    assert verdict_of([holds, holds], 3) is True
    assert verdict_of([holds, fails], 3) is None
    assert verdict_of([fails, holds, fails], 3) is False
    assert verdict_of([fails], 1) is False
    assert verdict_of([holds, fails], 2) is False


def test_a_generator_that_cannot_be_believed_decides_nothing_until_it_does_so_too_often() -> None:
    holds, fails = RateTrial(1, ExitCode.PASS), RateTrial(1, ExitCode.THRESHOLD)
    unknown = RateTrial(1, ExitCode.INVALID_RUN)
    assert verdict_of([unknown, unknown, unknown], 3) is None
    assert verdict_of([unknown, holds, unknown, holds], 3) is True
    assert verdict_of([unknown, fails, unknown, unknown, fails], 3) is False
    assert verdict_of([unknown] * 4, 3) is False


def test_each_trial_has_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders: list[str] = []

    def run(asked: RehearsalRequest, teller: object) -> ExitCode:
        assert asked.storm.out is not None
        folders.append(asked.storm.out.name)
        return ExitCode.THRESHOLD

    monkeypatch.setattr(capacity, "rehearse", run)
    run_capacity(request(tmp_path, begin_per_s=10.0, repeats=2))
    assert folders == ["rate-10-1", "rate-5-1", "rate-2.5-1", "rate-1.25-1", "rate-1-1"]


def test_nothing_above_the_most_is_tried() -> None:
    stack = Stack(10_000)
    assert found(stack, most_per_s=300.0).told == (
        "capacity: at least 300/s; no higher rate was tried"
    )
    assert max(stack.tried) == 300


def test_what_never_holds_ends() -> None:
    assert found(Stack(0)).holds_per_s is None


def test_stages_are_scaled_to_their_peak() -> None:
    assert peak_of(scenario()) == 100
    scaled = at_rate(scenario(), 250, repeat=2)
    assert scaled.load.stages == ("1000ms:25.00..250.00", "500ms:125.00..125.00")
    assert scaled.load.seed == 3
    assert scaled.load.connections == 5
    assert peak_of(scaled) == 250


def test_a_scenario_without_a_rate_is_refused() -> None:
    with pytest.raises(UsageError, match=r"load\.model = 'rate'"):
        peak_of(load_scenario("stampede"))


def test_more_than_a_storm_can_have_is_refused_with_its_cure() -> None:
    with pytest.raises(UsageError, match="--from and --most"):
        at_rate(scenario(), 900_000_000)


def test_all_is_written_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(capacity, "_tried", Stack(150))
    it, code = run_capacity(request(tmp_path, repeats=1, precision=0.5))
    assert code is ExitCode.PASS
    written = json.loads((tmp_path / "capacity.json").read_text())
    assert written["holds_per_s"] == it.holds_per_s
    assert [trial["rate_per_s"] for trial in written["trials"]] == [100, 200, 141.42]
    assert "| 200/s | does not |" in (tmp_path / "capacity.md").read_text()


def test_a_violation_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stack = Stack(150, ExitCode.VIOLATION)
    monkeypatch.setattr(capacity, "_tried", stack)
    _, code = run_capacity(request(tmp_path, repeats=1))
    assert code is ExitCode.VIOLATION
    assert stack.tried == [100, 200]


def test_no_rate_that_holds_is_nothing_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(capacity, "_tried", Stack(0))
    it, code = run_capacity(request(tmp_path))
    assert code is ExitCode.NOTHING_JUDGED
    assert it.told == "no rate holds: too slow"


def test_who_stops_it_has_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stack = Stack(10_000)

    def stopped(request: CapacityRequest, per_s: float, before: Sequence[RateTrial]) -> RateTrial:
        if len(stack.tried) == 4:
            raise StoppedError("interrupted", ExitCode.INTERRUPTED)
        return stack(request, per_s, before)

    monkeypatch.setattr(capacity, "_tried", stopped)
    with pytest.raises(StoppedError):
        run_capacity(request(tmp_path))
    assert len(json.loads((tmp_path / "capacity.json").read_text())["trials"]) == 4
