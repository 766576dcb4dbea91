"""Is it there? One bounded question to a process on this machine, in its own protocol.

`python -m flashsale.stack.probe URL` ends with 0 where the answer is 200: a container's health
check, without the weight of the whole command line and with no other program in the image.
"""

import socket
import sys
import time
from urllib.parse import urlsplit

_HEAD_BYTES_MAX = 8_192
_TIMEOUT_S = 3.0


def http_status(host: str, port: int, path: str, timeout_s: float) -> int | None:
    """The status of `GET path`; None where no whole status line came within the time."""
    deadline = time.monotonic() + timeout_s
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(request.encode())
            return _status(_first_line(connection, deadline))
    except OSError:
        return None


def redis_reply(host: str, port: int, timeout_s: float) -> str:
    """What a Redis says to PING: `+PONG`, or an error while it loads; empty for no answer."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(b"PING\r\n")
            return connection.recv(64).decode(errors="replace").strip()
    except OSError:
        return ""


def _first_line(connection: socket.socket, deadline: float) -> bytes:
    head = b""
    while b"\r\n" not in head and len(head) < _HEAD_BYTES_MAX:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        received = connection.recv(1_024)
        if not received:
            break
        head += received
    line, end, _ = head.partition(b"\r\n")
    return line if end else b""


def _status(line: bytes) -> int | None:
    parts = line.split(b" ", 2)
    known = len(parts) >= 2 and parts[0].startswith(b"HTTP/1.") and len(parts[1]) == 3
    return int(parts[1]) if known and parts[1].isdigit() else None


def main(url: str) -> int:
    """The exit status of a health check of `url`."""
    address = urlsplit(url)
    status = http_status(address.hostname or "", address.port or 80, address.path, _TIMEOUT_S)
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
