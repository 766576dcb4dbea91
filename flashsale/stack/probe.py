"""Is it there? One bounded question to a process on this machine, in its own protocol.

`python -m flashsale.stack.probe URL` ends with 0 where the answer is 200: a container's health
check, without the weight of the whole command line and with no other program in the image.
"""

import socket
import sys
import time
from typing import Protocol
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
            return _status(_line(connection, deadline))
    except OSError:
        return None


class RedisAddress(Protocol):
    """Where a Redis is, by host and port or by socket, and who asks it: a store's URL, read."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def socket(self) -> str | None: ...
    @property
    def user(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...


def redis_reply(account: RedisAddress, timeout_s: float) -> str:
    """What a Redis says to PING: `+PONG`, or an error, as while it loads; empty for no answer."""
    asked = [_packed("PING")]
    if account.password is not None:
        asked.insert(0, _packed("AUTH", account.user or "default", account.password))
    deadline = time.monotonic() + timeout_s
    try:
        with _connected(account, timeout_s) as connection:
            connection.sendall(b"".join(asked))
            return _line(connection, deadline, len(asked)).decode(errors="replace")
    except OSError:
        return ""


def _connected(account: RedisAddress, timeout_s: float) -> socket.socket:
    if account.socket is None:
        return socket.create_connection((account.host, account.port), timeout_s)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(account.socket)
    except BaseException:
        connection.close()
        raise
    return connection


def _packed(*words: str) -> bytes:
    texts = [word.encode() for word in words]
    return b"*%d\r\n%b" % (len(texts), b"".join(b"$%d\r\n%b\r\n" % (len(t), t) for t in texts))


def _line(connection: socket.socket, deadline: float, number: int = 1) -> bytes:
    """A whole line of the answer; empty where it did not come."""
    head = b""
    while head.count(b"\r\n") < number and len(head) < _HEAD_BYTES_MAX:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        received = connection.recv(1_024)
        if not received:
            break
        head += received
    lines = head.split(b"\r\n")
    return lines[number - 1] if len(lines) > number else b""


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
