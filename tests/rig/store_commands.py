"""The main job on stores that are named by URL, step by step as a user runs it."""

import csv
from collections.abc import Mapping
from pathlib import Path

from rig.command_line import run_flashsale

_SMALL = ("--users", "300", "--shops", "20", "--units", "20")
_SCENARIO = """\
schema = 1
name = "small"
[sale]
units = 20
[load]
model = "stampede"
users = 300
connections = 100
"""


def main_job(folder: Path, urls: Mapping[str, str]) -> None:
    """doctor, serve, seed, warm, storm, verify: each has to end with 0. Leaves nothing running."""
    steps = (
        ("doctor",),
        ("serve", "--detach", "--port", "0", "--replicas", "1"),
        ("seed", *_SMALL),
        ("warm",),
        ("storm", "small.toml", "--quiet", "--no-calibrate", "--out", "run"),
        ("verify", "run"),
    )
    (folder / "small.toml").write_text(_SCENARIO)
    try:
        for step in steps:
            done = run_flashsale(folder, *step, **urls, FLASHSALE_REPLICA_NICENESS="0")
            assert done.returncode == 0, (step, done.stdout[-3000:], done.stderr[-3000:])
    finally:
        run_flashsale(folder, "stop")
    with (folder / ".flashsale" / "tokens.csv").open() as tokens:
        assert len(list(csv.reader(tokens))) == 301
