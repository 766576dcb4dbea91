"""The processes that sell, as children of a stack: replicas and order workers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flashsale.secret_file import STORE_PASSWORDS
from flashsale.stack import probe
from flashsale.stack.port import Port
from flashsale.stack.process import FLASHSALE, CommandLine
from flashsale.stack.service import Service


@dataclass(frozen=True)
class SaleCommands:
    """The command lines of the two kinds; `{port}` and `{name}` are filled in."""

    replica: tuple[str, ...] = (
        *(*FLASHSALE, "replica"),
        *("--port", "{port}", "--name", "{name}"),
    )
    worker: tuple[str, ...] = (
        *(*FLASHSALE, "worker"),
        *("--port", "{port}", "--name", "{name}"),
    )


class SaleProcess(Service):
    """A replica or a worker: a Python process with `/healthz` on its own port."""

    def __init__(
        self,
        kind: str,
        name: str,
        directory: Path,
        *,
        command: Sequence[str],
        stores: Mapping[str, str],
        ready_path: str,
        port: Port | None = None,
        log: Path | None = None,
    ) -> None:
        super().__init__(name, directory, port=port, log=log)
        self.kind = kind
        self._command = command
        self._stores = stores
        self._ready_path = ready_path

    @property
    def url(self) -> str:
        return f"http://{self.port.reachable_host}:{self.port.number}"

    def prepare(self) -> CommandLine:
        filled = [part.format(port=self.port.number, name=self.name) for part in self._command]
        # The URLs are whole: a password of some other store is none of theirs.
        password_files = {f"{name}_FILE" for name in STORE_PASSWORDS}
        inherited = {k: v for k, v in os.environ.items() if k not in password_files}
        return CommandLine(filled, inherited | dict(self._stores), Path.cwd())

    def is_ready(self, timeout_s: float) -> bool:
        return self._asks(self._ready_path, timeout_s)

    def is_alive(self, timeout_s: float) -> bool:
        """Its own health, not that of the stores behind it: no restart of ours would heal those."""
        return self._asks("/healthz", timeout_s)

    def _asks(self, path: str, timeout_s: float) -> bool:
        return probe.http_status(self.port.reachable_host, self.port.number, path, timeout_s) == 200
