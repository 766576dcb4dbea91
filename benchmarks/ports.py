"""A free loopback port, and waiting until somebody listens on it."""

import socket
import time

_WAIT_S = 20.0


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int) -> None:
    """Return once something listens. Raises TimeoutError after 20 s."""
    give_up = time.monotonic() + _WAIT_S
    while time.monotonic() < give_up:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port}")
