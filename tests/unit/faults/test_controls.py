"""What is planted on purpose still fits the code that it is planted in."""

import sys
from pathlib import Path

import pytest

from flashsale.faults.controls import CONTROLS
from flashsale.lua import scripts
from flashsale.orders import persistence, watch, worker
from flashsale.seckill import claims

BUGS = Path(__file__).resolve().parents[2] / "e2e" / "chaos" / "planted"
TEXTS = {
    **{name: control.customized for name, control in CONTROLS.items() if control.customized},
    **{path.stem: path.read_text() for path in BUGS.glob("*.py")},
}
PLACES = (
    (scripts, "script"),
    (claims.Claims, "__init__"),
    (claims.Settlement, "start"),
    (persistence, "_positions"),
    (persistence, "_sifted"),
    (worker, "persist"),
    (watch.BooksWatch, "requeue_missing"),
    (worker.Worker, "_under_lock"),
)
"""Where something is planted."""


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_defect_fits_and_is_planted_in_its_own_process_alone(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [getattr(where, name) for where, name in PLACES]
    for (where, name), it in zip(PLACES, before, strict=True):
        monkeypatch.setattr(where, name, it)  # to be put back
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "flashsale", "serve"])
    exec(text, {})  # noqa: S102 - ours
    assert [getattr(where, name) for where, name in PLACES] == before
    monkeypatch.setattr(sys, "orig_argv", ["replica", "worker"])
    exec(text, {})  # noqa: S102 - ours
    planted = [getattr(where, name) for where, name in PLACES]
    assert planted != before
    scripts.script("seckill")  # says whether the text that it changes is there
