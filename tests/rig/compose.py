"""deploy/compose.yaml as Compose would see it, and as plain processes on free ports of loopback."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::-([^}]*))?\}")

Service = Mapping[str, Any]


def load(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file with its anchors resolved and its variables filled in, as Compose does both."""
    filled: dict[str, Any] = _filled(_document(), environment or {})
    return filled


@cache
def _document() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of an --env-file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, environment) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, environment) for inner in value]
    return _interpolated(value, environment) if isinstance(value, str) else value


def _interpolated(text: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        found = environment.get(match[1]) or match[2]
        assert found is not None, f"{match[1]} has no default"
        return found

    return _VARIABLE.sub(value, text)


def environment(service: Service) -> dict[str, str]:
    """What a service finds in its environment."""
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def networks(service: Service) -> dict[str, dict[str, str]]:
    """A service's networks, with its settings in each."""
    given = service.get("networks", {})
    return {name: {} for name in given} if isinstance(given, list) else dict(given)


def own(compose: Mapping[str, Any]) -> dict[str, Service]:
    """The services that run our image."""
    return {n: s for n, s in compose["services"].items() if s["image"].startswith("flashsale:")}


def mounts(service: Service) -> list[tuple[str, str]]:
    """What is mounted, and where."""
    return [tuple(volume.split(":")[:2]) for volume in service.get("volumes", ())]  # type: ignore[misc]


def seconds(duration: str) -> float:
    """A duration of Compose in seconds."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"(\d+)(ms|s|m|h)", duration)
    assert "".join(n + u for n, u in parts) == duration, duration
    return sum(int(number) * units[unit] for number, unit in parts)


class OnLoopback:
    """Compose's addresses and paths, each replaced by one of this machine.

    `ports` has the port of each service by its name and the port it has in Compose.
    """

    def __init__(
        self, ports: Mapping[tuple[str, int], int], paths: Mapping[str, Path | str]
    ) -> None:
        self._ports = ports
        self._paths = paths

    def of(self, service: str, text: str) -> str:
        """A word of that service's command, environment, health check or configuration."""
        for (name, port), here in self._ports.items():
            text = re.sub(rf"(?<![\w-]){re.escape(name)}:{port}\b", f"127.0.0.1:{here}", text)
            if name == service:
                text = re.sub(rf"\b127\.0\.0\.1:{port}\b", f"127.0.0.1:{here}", text)
                text = text.replace("0.0.0.0", "127.0.0.1")  # no container, so nobody else's
                text = str(here) if text == str(port) else text
        for there, path in self._paths.items():
            text = text.replace(there, str(path))
        return text

    def command(self, service: str, words: Sequence[str]) -> list[str]:
        """A whole command line."""
        return [self.of(service, str(word)) for word in words]

    def environment(self, service: str, variables: Mapping[str, str]) -> dict[str, str]:
        """A whole environment."""
        return {name: self.of(service, value) for name, value in variables.items()}
