"""What deploy/Dockerfile does, done here: its RUN steps, on what it may see, without an engine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rig.dockerfile import DOCKERFILE, ROOT, allowed, instructions

BUILD = [one for one in instructions(DOCKERFILE.read_text()) if one.stage == 0]


def _see(context: Path) -> None:
    """The build's context: what .dockerignore lets through of what the Dockerfile copies."""
    for one in BUILD:
        if one.copies_from_context:
            for source in one.words[:-1]:
                _copy(ROOT / source, context)


def _copy(source: Path, context: Path) -> None:
    files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    for path in files:
        name = path.relative_to(ROOT)
        if allowed(str(name)):
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, context / name)


def _environment(tmp_path: Path) -> dict[str, str]:
    """Nothing of the tests' own Python; pip as the build's base image has it."""
    binaries = tmp_path / "base"
    binaries.mkdir()
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    (binaries / "python").symlink_to(base if base.exists() else sys.executable)
    pip = binaries / "pip"
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')
    pip.chmod(0o755)
    kept = {name: os.environ[name] for name in ("HOME",) if name in os.environ}
    proxies = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "http", "no_proxy"))}
    path = f"{binaries}:/usr/bin:/bin"
    quick = {"PIP_NO_COMPILE": "1"}  # nothing here is started twice
    return {**kept, **proxies, **quick, "PATH": path, "PIP_ONLY_BINARY": ":all:"}


def _run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_its_steps_bring_about_a_flashsale_that_runs(tmp_path: Path) -> None:
    """Packages by hash, as wheels, into a fresh environment; then our wheel; then it runs."""
    context, opt = tmp_path / "src", tmp_path / "opt"
    context.mkdir()
    _see(context)
    environment = _environment(tmp_path)
    for one in BUILD:
        if one.name == "RUN":
            here = one.text.replace("/opt/", f"{opt}/").replace("/tmp/wheel", str(tmp_path / "whl"))
            _run(["sh", "-ec", here], environment, context)
    flashsale = opt / "flashsale/bin/flashsale"
    elsewhere = tmp_path / "work"
    elsewhere.mkdir()
    for command in ([], ["replica"], ["worker"]):
        assert "Usage: flashsale" in _run([flashsale, *command, "--help"], environment, elsewhere)  # type: ignore[list-item]
    python = opt / "flashsale/bin/python"
    ask = "from flashsale.files import resource as r; print(r('scenarios/stampede.toml'))"
    shipped = _run([str(python), "-c", ask], environment, elsewhere).strip()
    assert Path(shipped).is_file()
    assert shipped.startswith(str(opt)), "out of the wheel, not of the checkout"
    installed = _run([str(python), "-c", _INSTALLED], environment, elsewhere).split()
    assert "flashsale" in installed
    assert not {"pip", "pytest", "ruff", "mypy", "hatchling"} & set(installed)


_INSTALLED = """\
import importlib.metadata as m
print(*sorted(d.metadata["Name"].lower() for d in m.distributions()))
"""
