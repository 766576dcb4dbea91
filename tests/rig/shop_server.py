"""A shop of any kind, as a test writes it: a function from what was asked to what is answered."""

import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request, whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer, so long after; `body` is sent as JSON unless it is bytes."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False
    delay_s: float = 0.0


Answer = Callable[[Asked], Reply]


@dataclass
class ShopServer:
    """The shop at `base_url`; `asked` is what came, in order. It speaks `tls`, and notes in
    `spoken` which protocol was agreed on, or listens on the Unix socket `at`, where these are
    given."""

    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    base_url: str = ""
    tls: ssl.SSLContext | None = None
    at: Path | None = None
    spoken: list[str | None] = field(default_factory=list)

    @contextmanager
    def open(self) -> Iterator["ShopServer"]:
        """Answer for as long as this lasts, one request at a time."""
        shop, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20
            disable_nagle_algorithm = shop.at is None
            wbufsize = -1

            def _serve(self) -> None:
                length = int(self.headers.get("content-length", 0))
                names = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, names, self.rfile.read(length))
                with lock:
                    shop.asked.append(asked)
                    reply = shop.answer(asked)
                time.sleep(reply.delay_s)
                body = reply.body
                if not isinstance(body, bytes):
                    body = json.dumps(body).encode()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                if reply.close:
                    self.send_header("connection", "close")
                    self.close_connection = True
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 1_024

            address_family = socket.AF_UNIX if shop.at else socket.AF_INET

            def server_bind(self) -> None:
                socketserver.TCPServer.server_bind(self)  # HTTP's asks who an address is

            def finish_request(self, request: Any, client_address: Any) -> None:
                if shop.tls is None:
                    super().finish_request(request, client_address)
                    return
                # By the visitor's own thread: one may be slow.
                with shop.tls.wrap_socket(request, server_side=True) as secure:
                    shop.spoken.append(secure.selected_alpn_protocol())
                    super().finish_request(secure, client_address)

            def handle_error(self, *_: object) -> None:
                """A visitor that hangs up is no news."""

        where: Any = str(self.at) if self.at else ("127.0.0.1", 0)
        with Server(where, Handler) as server:
            scheme = "http" if self.tls is None else "https"
            port = server.server_address[1]
            self.base_url = f"unix:{self.at}" if self.at else f"{scheme}://127.0.0.1:{port}"
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
