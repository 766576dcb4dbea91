"""A shop of any kind, as a test writes it: a function from what was asked to what is answered."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
    """One answer; `body` is sent as JSON unless it is bytes."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False


Answer = Callable[[Asked], Reply]


@dataclass
class ShopServer:
    """The shop at `base_url`; `asked` is what came, in order."""

    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    base_url: str = ""

    @contextmanager
    def open(self) -> Iterator["ShopServer"]:
        """Answer for as long as this lasts, one request at a time."""
        shop, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20
            disable_nagle_algorithm = True
            wbufsize = -1

            def _serve(self) -> None:
                length = int(self.headers.get("content-length", 0))
                names = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, names, self.rfile.read(length))
                with lock:
                    shop.asked.append(asked)
                    reply = shop.answer(asked)
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

            def handle_error(self, *_: object) -> None:
                """A visitor that hangs up is no news."""

        with Server(("127.0.0.1", 0), Handler) as server:
            self.base_url = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
