"""The tests of the library below a process find what might be wrong with it: each of many small
changes of its source fails one of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rig.mutated_shim import MUTATIONS, SOURCE_VARIABLE, mutated

from flashsale.faults import shim

SOURCE = Path(shim.__file__).with_name("shim.c").read_text(encoding="utf-8")
TESTS = Path(__file__).with_name("test_shim.py")

pytestmark = pytest.mark.skipif(shim.compiler() is None, reason="there is no C compiler")


def judged(folder: Path, source: str) -> "subprocess.CompletedProcess[str]":
    """The tests of the library that is made of this source."""
    (folder / "shim.c").write_text(source, encoding="utf-8")
    words = ("-m", "pytest", "-q", "-x", "-p", "rig.mutated_shim", "-p", "no:cacheprovider")
    return subprocess.run(
        [sys.executable, *words, "--basetemp", str(folder / "tests"), str(TESTS)],
        cwd=TESTS.parents[3],
        env={
            **os.environ,
            SOURCE_VARIABLE: str(folder / "shim.c"),
            "PYTHONPATH": str(TESTS.parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_change_fits_the_source(name: str) -> None:
    assert mutated(SOURCE, name) != SOURCE


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_the_source_as_it_is_passes(tmp_path: Path) -> None:
    done = judged(tmp_path, SOURCE)
    assert done.returncode == 0, done.stdout


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_change_is_found(tmp_path: Path, name: str) -> None:
    done = judged(tmp_path, mutated(SOURCE, name))
    if "skipped" in done.stdout and "undo file" in name:
        pytest.skip("this file system gave no inode to another file")
    assert done.returncode == 1, f"{name} passes all tests\n{done.stdout}"
    assert "could not be compiled" not in done.stdout
