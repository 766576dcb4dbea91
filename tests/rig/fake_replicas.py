"""Stand-ins for replicas: small HTTP servers that answer, hang, break off, or die on demand."""

import io
import socket
import sys
import threading
from types import TracebackType
from typing import Self

from flashsale.stack.stack import SaleCommands

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s"
_ORDER = b"x-outcome: sold\r\nx-order-id: 515385561440059393\r\n"

_CHILD = """\
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    do_POST = do_GET
    def log_message(self, *_):
        pass
print("up", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

CHILD = (sys.executable, "-S", "-c", _CHILD, "{port}")
"""A process that is healthy as soon as it listens; its log says `up`."""

DYING = (sys.executable, "-S", "-c", "print('no luck'); raise SystemExit(3)")
MUTE = (sys.executable, "-S", "-c", "import time; time.sleep(60)")

COMMANDS = SaleCommands(replica=CHILD, worker=CHILD)


class FakeReplica:
    """Serves every request in `mode`: answer it, or read it and break off without an answer."""

    def __init__(self, mode: str = "answer") -> None:
        self.mode = mode
        self.requests: list[str] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for opened in (self._listener, *self._open):
            with opened:
                try:
                    opened.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        self.connections += 1
        try:
            with connection, connection.makefile("rb") as reader:
                while self._answer(connection, reader):
                    pass
        except OSError:
            pass

    def _answer(self, connection: socket.socket, reader: io.BufferedReader) -> bool:
        line = reader.readline().decode().strip()
        while reader.readline().strip():
            pass
        if not line:
            return False
        if "/healthz" not in line:
            self.requests.append(line)
            if self.mode == "break off":
                return False
        body = b"x" * 5_000 if "/page" in line else b'{"success":true}'
        order = _ORDER if "/order" in line else b""
        if "/personal" in line:
            order = b"X-Content-Type-Options: nosniff\r\nServer: framework/1.2\r\n"
        connection.sendall(_ANSWER % (len(body), order, body))
        return True
