"""This suite under its own settings: tests that pass leave nothing in the temporary folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TEST = """import pytest

@pytest.fixture(scope="session")
def server(tmp_path_factory):
    data = tmp_path_factory.mktemp("server")
    (data / "redo").write_bytes(bytes(100_000))
    return data

@pytest.mark.parametrize("n", range(4))
def test_one(n, server, tmp_path):
    (tmp_path / "data").write_bytes((server / "redo").read_bytes())
    assert n < {limit}
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize("limit", [4, 3])
def test_what_passes_leaves_nothing(tmp_path: Path, processes: str, limit: int) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "test_it.py").write_text(TEST.replace("{limit}", str(limit)))
    settings = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *settings, "-n", processes, tmp_path],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_DEBUG_TEMPROOT": str(temporary)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (limit < 4), done.stdout + done.stderr
    left = [path for path in temporary.rglob("*") if path.is_file() and path.stat().st_size > 0]
    if limit == 4:
        assert left == []
    else:  # what failed is there to be looked at
        assert any(path.match("test_one_3_*/data") for path in left)
