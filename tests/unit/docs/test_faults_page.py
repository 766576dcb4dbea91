"""The page of faults tells every kind as the code has it."""

from pathlib import Path

import pytest

from flashsale.scenario.fault import KINDS, Kind

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "faults.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("what", "kind"), KINDS.items(), ids=list(KINDS))
def test_each_kind_has_its_row(what: str, kind: Kind) -> None:
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{what}` |"))
    _, _, meaning, whom, lasts, options, _ = (cell.strip() for cell in row.split("|"))
    assert meaning == kind.meaning
    assert whom == (", ".join(f"`{role}`" for role in kind.whom) or "a link")
    assert lasts == {"always": "yes", "may": "may", "never": "no"}[kind.lasts]
    assert options == ", ".join(f"`{name}`" for name in kind.options)
