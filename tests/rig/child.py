"""`python -m flashsale …` as a process of its own, ended with the test whatever happens."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flashsale.stack.port import Port
from flashsale.stack.process import tether
from rig.command_line import Started, start_flashsale

START_TIMEOUT_S = 30.0


class Child:
    """A running command; its output goes to a file."""

    def __init__(self, log: Path, arguments: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = start(log.parent, arguments, output.fileno(), env)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text()

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, within_s: float = 20.0) -> int:
        """Its exit code."""
        return self.process.wait(within_s)


def start(
    folder: Path, arguments: tuple[str, ...], output: int, env: Mapping[str, str]
) -> "subprocess.Popen[bytes] | Started":
    """With its modules loaded already, unless Python itself is told something (PYTHONPATH)."""
    if all(name.startswith("FLASHSALE_") for name in env):
        return start_flashsale(
            folder, *arguments, stdout=output, stderr=output, warnings=["ResourceWarning"], **env
        )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FLASHSALE_")}
    return subprocess.Popen(
        [sys.executable, "-W", "always::ResourceWarning", "-m", "flashsale", *arguments],
        env={**clean, **env},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        preexec_fn=tether(),
    )


@contextmanager
def child(log: Path, *arguments: str, **env: str) -> Iterator[Child]:
    """Run `flashsale <arguments>` with these variables, and kill it at the end."""
    running = Child(log, arguments, env)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait(10)
        if isinstance(running.process, Started):
            running.process.close()


@contextmanager
def free_port() -> Iterator[int]:
    """A port that is nobody else's for as long as the block runs."""
    port = Port.free()
    try:
        yield port.number
    finally:
        port.close()


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def speak(port: int, request: bytes, timeout_s: float = 10.0) -> bytes:
    """Everything that comes back for these bytes until the other side closes or is silent."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as wire:
        wire.sendall(request)
        try:
            while part := wire.recv(65_536):
                heard += part
                head, _, body = heard.partition(b"\r\n\r\n")
                if f"content-length: {len(body)}".encode() in head.lower():
                    break
        except (TimeoutError, ConnectionResetError):
            pass
    return heard
