"""Bugs that somebody might make, each planted in the running system, are found by chaos.

Each file in `planted/` is one, described in its first lines: Python runs it in the processes of a
stack before their own code, and nothing in the product knows of it.
"""

import time
from pathlib import Path

import pytest

from flashsale.campaign.chaos import ChaosRequest, run_chaos, told
from flashsale.faults.controls import Control
from flashsale.faults.seeds import Asked, Fate
from flashsale.scenario.scenario import load_scenario

PLANTED = sorted((Path(__file__).parent / "planted").glob("*.py"))
SEEDS, WITHIN_S = 30, 5_000
"""A seed takes half a minute to a minute; on a machine that needs longer, fewer are tried."""


@pytest.mark.nightly
@pytest.mark.timeout(WITHIN_S + 400)
@pytest.mark.parametrize("bug", PLANTED, ids=lambda path: path.stem)
def test_a_planted_bug_is_found(bug: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planted = Control(bug.stem, (), (), customized=bug.read_text())
    until_s = time.monotonic() + WITHIN_S
    for seed in range(1, SEEDS + 1):
        assert time.monotonic() < until_s, f"not found by seeds 1 to {seed - 1}, all in time"
        (trial,) = run_chaos(
            ChaosRequest(
                load_scenario("chaos"),
                "chaos",
                tmp_path / f"seed-{seed}",
                seeds=1,
                first=seed,
                asked=Asked(at_once=2),
                shrinks=False,
                planted=planted,
            )
        ).trials
        assert trial.fate is not Fate.UNJUDGED, told(trial)
        if trial.fate in (Fate.BROKEN, Fate.STUCK):
            return
    pytest.fail(f"{SEEDS} seeds of chaos have not found {bug.stem}")
