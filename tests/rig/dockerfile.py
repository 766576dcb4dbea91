"""A Dockerfile, taken apart into its instructions."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
IGNORE = ROOT / "deploy/Dockerfile.dockerignore"


@dataclass(frozen=True)
class Instruction:
    """One instruction, on one line; `stage` counts from 0, -1 before the first FROM."""

    stage: int
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Its words, in either of the two forms, without the options before them."""
        text = re.sub(r"^(--\S+\s+)*(CMD\s+)?", "", self.text)
        return list(json.loads(text)) if text.startswith("[") else shlex.split(text)

    @property
    def copies_from_context(self) -> bool:
        return self.name == "COPY" and "--from=" not in self.text


def instructions(text: str) -> list[Instruction]:
    """Every instruction, in order."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[Instruction] = []
    stage = -1
    for line in joined.splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            stage += name == "FROM"
            found.append(Instruction(stage, name, rest.strip()))
    return found


def allowed(path: str) -> bool:
    """Whether .dockerignore lets the build see it: the last line that matches decides."""
    verdict = True
    for line in IGNORE.read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and _matches(pattern, path):
            verdict = line.startswith("!")
    return verdict


def _matches(pattern: str, path: str) -> bool:
    """A pattern matches a path or any folder above it; `**/` is any number of folders."""
    regex = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.match(rf"{regex}(?:/|$)", path) is not None
