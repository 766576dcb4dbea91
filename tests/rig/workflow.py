"""The sample workflows as documents, and the commands in it as a shell would read them."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

from ruamel.yaml import YAML

PATH = Path(__file__).resolve().parents[2] / "deploy" / "github-actions.yml"


CHAOS = PATH.with_name("github-chaos.yml")
"""The nightly one."""


def load(path: Path = PATH) -> dict[str, Any]:
    """The workflow; by YAML 1.2, for which `on` is a word."""
    document: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return document


def job(workflow: dict[str, Any]) -> dict[str, Any]:
    """Its only job."""
    (only,) = workflow["jobs"].values()
    return dict(only)


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """Its steps, in order."""
    return list(job(workflow)["steps"])


def commands(workflow: dict[str, Any], program: str) -> Iterator[list[str]]:
    """The words of every line that runs `program`, with the job's variables put in."""
    variables = job(workflow)["env"]
    for step in steps(workflow):
        for line in step.get("run", "").splitlines():
            words = [Template(word).safe_substitute(variables) for word in shlex.split(line)]
            if program in words[:4]:
                yield words[words.index(program) + 1 :]


def of_container(workflow: dict[str, Any], container: str, program: str) -> Iterator[list[str]]:
    """The words after `docker exec "$CONTAINER" program`."""
    for step in steps(workflow):
        for line in step.get("run", "").splitlines():
            words = shlex.split(line)
            if words[:4] == ["docker", "exec", f"${container}", program]:
                yield words[4:]
