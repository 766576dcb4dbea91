"""deploy/Dockerfile: not root, pinned, of files that exist, with commands that exist."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rig.dockerfile import DOCKERFILE, ROOT, Instruction, allowed, instructions

from flashsale.cli.tree import tree

ALL = instructions(DOCKERFILE.read_text())
FINAL = [one for one in ALL if one.stage == ALL[-1].stage]
LOCKS = ROOT / "deploy/image"


def _last(name: str) -> Instruction:
    return next(one for one in reversed(FINAL) if one.name == name)


def test_it_is_built_in_two_stages_and_the_last_holds_no_compiler() -> None:
    assert ALL[-1].stage == 1
    assert not [one for one in ALL if re.search(r"\b(apt|apt-get|gcc|curl|wget)\b", one.text)]
    assert not [one for one in FINAL if "pip" in one.text]


def test_it_starts_from_a_version() -> None:
    (argument,) = [one for one in ALL if one.name == "ARG"]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-\w+", argument.text)
    sources = [one.text.split()[0] for one in ALL if one.name == "FROM"]
    assert sources == ["${PYTHON_IMAGE}"] * 2


def test_it_runs_the_python_that_the_tests_run() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    version = re.search(r"python:(3\.\d+)-", DOCKERFILE.read_text())
    assert version
    assert f'requires-python = ">={version[1]}"' in pyproject


def test_nobody_in_it_is_root() -> None:
    assert _last("USER").text == "10001:10001"
    assert "--uid 10001 --gid 10001" in _last("RUN").text
    after = FINAL[FINAL.index(_last("USER")) :]
    assert not [one for one in after if one.name in ("RUN", "COPY", "ADD")]


def test_what_it_copies_exists_and_may_be_seen() -> None:
    copied = [source for one in ALL if one.copies_from_context for source in one.words[:-1]]
    assert {"pyproject.toml", "flashsale", "scenarios", "deploy/nginx.conf.j2"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert allowed(source), source
    assert not [one for one in ALL if one.name == "ADD"]


@pytest.mark.parametrize(
    "path",
    [
        ".secrets/ledger_password",
        ".git/config",
        "runs/latest/summary.json",
        ".flashsale/tokens.csv",
        "deploy/compose.yaml",
        "tests/conftest.py",
        "flashsale/__pycache__/keys.cpython-311.pyc",
        "requirements.lock",
    ],
)
def test_what_is_none_of_its_business_stays_out(path: str) -> None:
    assert not allowed(path)


def test_what_the_package_needs_gets_in() -> None:
    assert allowed("flashsale/lua/seckill.lua")
    assert allowed("scenarios/stampede.toml")


def test_its_command_exists_and_its_health_check_asks_it() -> None:
    commands = typer.main.get_command(tree()).commands  # type: ignore[attr-defined]
    assert _last("ENTRYPOINT").words == ["flashsale"]
    command, *arguments = _last("CMD").words
    context = commands[command].make_context("flashsale", list(arguments))
    asked = _last("HEALTHCHECK").words
    assert asked[:3] == ["python", "-m", "flashsale.stack.probe"]
    assert asked[3] == f"http://127.0.0.1:{context.params['port']}/healthz"
    assert _last("EXPOSE").text == str(context.params["port"])


# The packages in it ---------------------------------------------------------------------------


def _pins(lock: Path) -> dict[str, tuple[str, ...]]:
    """What is locked, by name: version, marker and hashes."""
    entries = re.split(r"\n(?=\w)", lock.read_text())
    pinned = (re.sub(r"^#.*\n", "", entry).split() for entry in entries)
    return {words[0].partition("==")[0]: tuple(w for w in words if w != "\\") for words in pinned}


@pytest.mark.parametrize("part", ["runtime", "build"])
def test_its_packages_are_those_that_are_tested(part: str) -> None:
    whole, locked = _pins(ROOT / "requirements.lock"), _pins(LOCKS / f"{part}.lock")
    for name, pin in locked.items():
        assert all(word.startswith("--hash=sha256:") for word in pin[-2:]), name
        mine, tested = _without_marker(pin), _without_marker(whole[name])
        assert mine == tested, f"{name}: run `make lock`"


def _without_marker(pin: tuple[str, ...]) -> tuple[str, ...]:
    """A part may need a package in fewer places than the whole."""
    return pin[0], *(word for word in pin if word.startswith("--hash="))


def _needed(wanted: list[Requirement]) -> set[str]:
    """Everything that these need on this machine, by what the installed packages say."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            every = [Requirement(text) for text in requires(name) or ()]
            wanted += [r for r in every if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


def test_it_runs_on_all_that_it_needs_and_on_nothing_else() -> None:
    """Read from pyproject.toml and the installed packages, not from the locks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = _needed([Requirement(text) for text in project["dependencies"]])
    pins = _pins(LOCKS / "runtime.lock")
    elsewhere = {name for name, pin in pins.items() if ";" in pin}
    assert needed <= set(pins), "run `make lock`"
    assert set(pins) - needed <= elsewhere, "run `make lock`"
    assert not {"pytest", "ruff", "mypy", "hypothesis"} & set(pins)


def test_it_is_built_with_what_the_build_asks_for() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    needed = _needed([Requirement(text) for text in asked])
    assert needed <= set(_pins(LOCKS / "build.lock"))
