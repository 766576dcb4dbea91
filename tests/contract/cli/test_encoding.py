"""A standard output that cannot encode a character: "?" stands for it, and no traceback."""

from pathlib import Path
from typing import Any

import pytest
import typer
from rig.command_line import run_flashsale
from rig.run_folders import GONE, SOLD, leave_run

from flashsale.cli.tree import tree

ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


def lines(command: Any, *words: str) -> list[tuple[str, ...]]:
    inner = getattr(command, "commands", {})
    return [words, *(line for name in inner for line in lines(inner[name], *words, name))]


@pytest.mark.parametrize("words", lines(typer.main.get_command(tree())), ids=" ".join)
def test_every_command_tells_what_it_does(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run_flashsale(tmp_path, *words, "--help", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout


def test_a_report_is_printed(tmp_path: Path) -> None:
    leave_run(tmp_path / "run", [SOLD] * 5 + [GONE] * 20, units=5)
    done = run_flashsale(tmp_path, "report", "run", **ASCII)
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout


def test_an_encoding_that_is_for_no_text_is_left(tmp_path: Path) -> None:
    leave_run(tmp_path / "run", [SOLD] * 5 + [GONE] * 20, units=5)
    done = run_flashsale(tmp_path, "report", "run", PYTHONIOENCODING="idna", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "verdict" in done.stdout


def test_a_message_too(tmp_path: Path) -> None:
    done = run_flashsale(tmp_path, "storm", "stämpede", **ASCII)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
