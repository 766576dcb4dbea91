"""Chaos around its trials: which seeds, what is tried with fewer faults, what is left behind."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from flashsale.campaign import chaos, rehearsal
from flashsale.campaign.chaos import ChaosRequest, Controlled, run_chaos
from flashsale.errors import ExitCode
from flashsale.faults.controls import CONTROLS
from flashsale.faults.seeds import EVERYTHING, Trial, compose
from flashsale.faults.shim import compiler
from flashsale.scenario.fault import PlannedFault
from flashsale.scenario.scenario import load_scenario

SCENARIO = load_scenario("chaos")


class Trials:
    """Trials without stacks: one is broken wherever this kind of fault is made."""

    def __init__(self, culprit: str = "") -> None:
        self.culprit = culprit
        self.made: list[tuple[int, list[str]]] = []

    def __call__(
        self, request: ChaosRequest, seed: int, faults: Sequence[PlannedFault], out: Path
    ) -> Trial:
        names = [f"{fault.what} {fault.place}" for fault in faults]
        self.made.append((seed, [fault.what for fault in faults]))
        broken = ["no_oversell"] * any(fault.what == self.culprit for fault in faults)
        return Trial(
            seed,
            names,
            str(out),
            broken,
            acknowledged=9,
            recovered_s=0.1,
            sent_after=5,
            drained=True,
        )


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    found = Trials()
    monkeypatch.setattr(chaos, "_tried", found)
    return found


def request(folder: Path, **given: object) -> ChaosRequest:
    return ChaosRequest(SCENARIO, "chaos", folder, **given)  # type: ignore[arg-type]


def drawn(seed: int) -> Sequence[PlannedFault]:
    """As it is drawn on this machine, which may have no C compiler."""
    asked = EVERYTHING if compiler() else EVERYTHING.without_compiler()
    return compose(seed, SCENARIO.last_s, asked)


def test_every_seed_is_tried_once_and_written_down(trials: Trials, tmp_path: Path) -> None:
    found = run_chaos(request(tmp_path, seeds=3, first=17))
    assert [seed for seed, _ in trials.made] == [17, 18, 19]
    assert found.exit_code is ExitCode.PASS
    written = json.loads((tmp_path / "chaos.json").read_text())
    assert [trial["fate"] for trial in written["trials"]] == ["held"] * 3
    assert "| all | 3 | 3 |" in (tmp_path / "chaos.md").read_text()


def test_no_time_left_begins_no_seed(trials: Trials, tmp_path: Path) -> None:
    found = run_chaos(request(tmp_path, seeds=None, minutes=0.0))
    assert trials.made == []
    assert found.exit_code is ExitCode.NOTHING_JUDGED


def test_a_failing_seed_is_shrunk_and_told_with_its_command(trials: Trials, tmp_path: Path) -> None:
    seed = next(s for s in range(100) if len(drawn(s)) == 2)
    first, second = drawn(seed)
    trials.culprit = second.what
    found = run_chaos(request(tmp_path, seeds=1, first=seed))
    assert [made for _, made in trials.made] == [
        [first.what, second.what],
        [],
        [first.what],
        [second.what],
    ]
    assert found.exit_code is ExitCode.VIOLATION
    assert f"repeat it with: flashsale chaos chaos --seeds 1 --from {seed} --only 2" in found.lines
    assert "[[fault]]" in found.lines
    assert f'what = "{second.what}"' in found.lines
    assert f'what = "{first.what}"' not in found.lines


def test_one_fault_alone_is_tried_as_it_is(trials: Trials, tmp_path: Path) -> None:
    seed = next(s for s in range(100) if len(drawn(s)) == 2)
    _, second = drawn(seed)
    run_chaos(request(tmp_path, seeds=1, first=seed, only_fault=2))
    assert trials.made == [(seed, [second.what])]


@pytest.mark.parametrize(
    ("broken", "is_found"),
    [(["accepted_persisted"], True), (["window"], False), ([], False)],
)
def test_a_control_is_found_by_a_rule_that_it_must_break(broken: list[str], is_found: bool) -> None:
    trial = Trial(1, [], "run", broken, acknowledged=9, drained=True)
    found = Controlled("ack_first", CONTROLS["ack_first"], trial)
    assert found.is_found is is_found
    assert ("NOT found" in str(found)) is not is_found


def test_orders_that_a_ledger_has_forgotten_are_told_apart() -> None:
    trial = Trial(1, ["flush ledger"], "run", acknowledged=9, gone=2, drained=True, sent_after=1)
    assert "2 forgotten by the ledger, each named" in chaos.told(trial)


def test_a_clean_up_gives_signals_back() -> None:
    """Chaos rehearses again and again: Ctrl-C has to end it after the first, too."""
    before = signal.getsignal(signal.SIGINT)
    with rehearsal._undisturbed():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before
