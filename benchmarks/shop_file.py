"""What a shop's own file costs a storm: CPU per request, beside the built-in target.

Two storms that follow one another differ by more than what is looked for, on a machine that does
something else as well. So they are short, in pairs, each pair in the other order than the one
before, and what counts is the ratio within a pair.
"""

import os
import tempfile
from pathlib import Path

from benchmarks.generator import Size, storm_cost, write_stampede
from benchmarks.null_target import null_target
from benchmarks.table import Section, median, spread

RATIO_LIMIT = 1.05
SHORT = Size(requests=50_000)
_PAIRS_A_RUN = 3
_HEAD = """\
[target.buy]
path = "/voucher-order/seckill/{voucher}"
headers = { authorization = "{token}" }
"""
_BY_HEADER = """\
order = "header:x-order-id"
outcomes = [
    { status = 200, header = { x-outcome = "sold" }, outcome = "sold" },
    { outcome = "sold_out" },
]
"""
_BY_JSON = """\
order = "/data"
outcomes = [
    { status = 200, json = { "/success" = true }, outcome = "sold" },
    { outcome = "sold_out" },
]
"""
_WAYS = (
    ("answers that are alike, by headers", "", _BY_HEADER),
    ("answers that each differ, by JSON", "/plain", _BY_JSON),
)
"""How answers are read, below which path of the target, and what the file says of it."""


def measure(runs: int, size: Size = SHORT) -> Section:
    """Three pairs of storms a run, for each way in which a file can read an answer."""
    section = Section(
        f"shop_file: {size.requests:,} claims over {size.connections:,} connections, in pairs"
    )
    with tempfile.TemporaryDirectory(prefix="flashsale-bench-") as name, null_target() as target:
        folder = Path(name)
        write_stampede(folder, size)
        for way, (what, below, rules) in enumerate(_WAYS):
            (folder / "shop.toml").write_text(_HEAD + rules)
            built_in, by_file = [], []
            for number in range(_PAIRS_A_RUN * runs):
                run, turned = f"way-{way}-{number}", bool(number % 2)
                pair = _pair(folder, target.url + below, run, size, turned)
                built_in.append(pair[0])
                by_file.append(pair[1])
            ratios = [theirs / ours for ours, theirs in zip(built_in, by_file, strict=True)]
            section.add(f"{what}: built in, CPU µs a request", spread(built_in, 1))
            section.add("… of a shop that a file describes", spread(by_file, 1))
            section.add("… as a multiple, pair by pair", spread(ratios, 2))
            section.add_ratio("… the median of these", median(ratios), RATIO_LIMIT)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    section.notes.append(f"load average at the end {load}, on {os.cpu_count()} cores")
    return section


def _pair(folder: Path, url: str, run: str, size: Size, turned: bool) -> tuple[float, float]:
    """What the built-in target cost and what the file did, CPU µs a request."""
    options = {"in": (), "file": ("--target", str(folder / "shop.toml"))}
    costs = {
        name: storm_cost(folder, url, f"{run}-{name}", size, options[name])[0]
        for name in (("file", "in") if turned else ("in", "file"))
    }
    return costs["in"], costs["file"]
