"""A server that answers every request with the same bytes, at once, in pieces, or without end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def answering(
    first: bytes, then: bytes = b"", *, pause_s: float = 0.0, requests: list[bytes] | None = None
) -> Iterator[str]:
    """The base URL of a server that sends `first`, then `then` for ever with pauses; without
    `then` it closes. The requests' heads are noted in `requests`."""
    over = threading.Event()

    def serve(visitor: socket.socket) -> None:
        with visitor, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                received = visitor.recv(65_536)
                if not received:
                    return
                head += received
            if requests is not None:
                requests.append(head)
            visitor.sendall(first)
            while then and not over.wait(pause_s):
                visitor.sendall(then)

    def accept() -> None:
        while not over.is_set():
            with suppress(TimeoutError, OSError):
                visitor, _ = listening.accept()
                visitor.settimeout(5)
                served.append(threading.Thread(target=serve, args=(visitor,)))
                served[-1].start()

    served: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            for thread in (accepting, *served):
                thread.join()


def http(status: str, body: bytes, *lines: str) -> bytes:
    """A whole response."""
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, f"content-length: {len(body)}", "", ""])
    return head.encode() + body
