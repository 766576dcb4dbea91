"""docs/scaling.md reckons with the figures of docs/benchmarks.md, and reckons right."""

import re

import pytest
from rig.documents import ROOT

SCALING = (ROOT / "docs/scaling.md").read_text()
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text()
NEAR = 0.1
"""A benchmark that is run again is a little off; a page need not follow each."""


def measured() -> dict[str, float]:
    """CPU a claim in µs, by part."""
    names, figures = re.findall(r"\| CPU per claim of ([^|]+) \| ([^|]+) µs \|", BENCHMARKS)[0]
    found = dict(zip(names.split(" / "), map(float, figures.split(" / ")), strict=True))
    (replica,) = re.findall(r"\| replica CPU per claim[^|]*\| ([\d.]+) µs", BENCHMARKS)
    return found | {"replica": float(replica)}


def rows() -> dict[str, list[float]]:
    """The table of the page: µs, claims/s a core, cores for 10,000 and for 50,000."""
    found = re.findall(
        r"^\| (\w+) \| ([\d.]+) µs \| ([\d,]+) \w+/s \| ([\d.]+) \| ([\d.]+) \|$", SCALING, re.M
    )
    return {name: [float(f.replace(",", "")) for f in figures] for name, *figures in found}


def test_each_part_that_a_claim_passes_has_a_row() -> None:
    assert set(rows()) == set(measured()) - {"storm"}


@pytest.mark.parametrize("part", rows())
def test_a_row_is_what_was_measured(part: str) -> None:
    assert rows()[part][0] == pytest.approx(measured()[part], rel=NEAR)


@pytest.mark.parametrize("part", rows())
def test_a_row_reckons_right(part: str) -> None:
    cpu_us, per_core, ten, fifty = rows()[part]
    assert per_core == pytest.approx(1e6 / cpu_us, rel=0.005)
    assert ten == pytest.approx(10_000 * cpu_us / 1e6, abs=0.006)
    assert fifty == pytest.approx(50_000 * cpu_us / 1e6, abs=0.006)


def test_parts_are_in_the_order_in_which_they_fill_a_core() -> None:
    costs = [figures[0] for figures in rows().values()]
    assert costs == sorted(costs, reverse=True)
