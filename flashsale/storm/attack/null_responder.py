"""A server that costs next to nothing: whatever comes on a connection, it sends one fixed answer.

Calibration starts it as a process of its own, by path and with nothing but the standard library.
It prints its port, serves until its standard input ends (so it never outlives who started it), and
for LIFE_S at most.
"""

import os
import select
import socket
import sys
import time

LIFE_S = 10.0
_BODY = b'{"success":true,"data":{"id":1}}'
ANSWER = b"HTTP/1.1 200 OK\r\nx-cache: hit\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


def serve() -> None:
    """Answer until standard input ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        listening.setblocking(False)
        poll = select.epoll()
        for number in (listening.fileno(), sys.stdin.fileno()):
            poll.register(number, select.EPOLLIN)
        os.write(sys.stdout.fileno(), b"%d\n" % listening.getsockname()[1])
        _answer(poll, listening, time.monotonic() + LIFE_S)


def _answer(poll: select.epoll, listening: socket.socket, until_s: float) -> None:
    clients: dict[int, socket.socket] = {}
    while time.monotonic() < until_s:
        for number, _ in poll.poll(1.0):
            client = clients.get(number)
            if client is not None:
                if not _answered(client):
                    poll.unregister(number)
                    clients.pop(number).close()
            elif number == listening.fileno():
                client, _ = listening.accept()
                clients[client.fileno()] = client
                poll.register(client.fileno(), select.EPOLLIN)
            else:
                return


def _answered(client: socket.socket) -> bool:
    try:
        if client.recv(65_536):
            client.sendall(ANSWER)
            return True
    except OSError:
        pass
    return False


if __name__ == "__main__":
    serve()
