"""A port whose listen queue is full: handshakes get no answer."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def silent_port() -> Iterator[int]:
    """Such a port, for as long as this lasts; the kernel drops what comes."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port: int = listening.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect(("127.0.0.1", port))
        try:
            yield port
        finally:
            for each in waiting:
                each.close()
