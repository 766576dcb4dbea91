"""A real rehearsal fills every panel of every dashboard."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from rig.command_line import run_flashsale
from rig.observers import fetched

from flashsale.observe.panels import queries
from flashsale.stack.state import stop_stack

FLASHSALE = (sys.executable, "-m", "flashsale")


def _run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*FLASHSALE, *arguments],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a rehearsal runs; its stack is stopped whatever happens."""
    fetched()
    yield tmp_path
    stop_stack(tmp_path / "state")


@pytest.mark.slow
def test_a_rehearsal_fills_every_panel(folder: Path) -> None:
    state = ("--state-dir", str(folder / "state"))
    done = _run(folder, "rehearse", "mixed", "--observe", "--keep", "--quiet", *state)
    assert "Traceback" not in done.stderr
    told = _run(folder, "panels", "--json", *state)
    rows = orjson.loads(told.stdout)
    assert [row["query"]["expr"] for row in rows] == [query.expr for query in queries()]
    assert [row for row in rows if row["samples"] == 0] == []
    assert told.returncode == 0
    assert f"{len(rows)} queries: each found something" in done.stdout
    moved = {row["query"]["dashboard"] for row in rows if row["highest"]}
    assert moved == {query.dashboard for query in queries()}


def test_without_a_stack_it_is_one_line(tmp_path: Path) -> None:
    done = run_flashsale(tmp_path, "panels", "--state-dir", str(tmp_path / "none"))
    assert done.returncode == 7
    (line,) = done.stderr.strip().splitlines()
    assert "flashsale serve --observe" in line
