"""The worker process: its parts wired together, its health and metrics on a port of their own."""

import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

from flashsale import logs
from flashsale.errors import UnreachableError
from flashsale.locks.batch import BatchLocks
from flashsale.locks.counts import LockCollector
from flashsale.orders.metrics import QueueCollector, WorkerCollector
from flashsale.orders.stream import OrderStream
from flashsale.orders.sweeper import Sweeper
from flashsale.orders.worker import Worker
from flashsale.settings import ClaimSettings, LifecycleSettings, StoreSettings, WorkerSettings
from flashsale.storage.metrics import Metrics, MySQLPoolCollector
from flashsale.storage.mysql import engine
from flashsale.storage.roles import CALL_TIMEOUT_S, sync_client

_SWEEP_END_S = 5.0  # a sweep that takes longer is left: each of its steps happens once


def make_worker(name: str, stores: StoreSettings, settings: WorkerSettings) -> Worker:
    """A worker that consumes as `name`. Its ledger client waits longer than the stream blocks."""
    ledger = sync_client(stores.ledger_url, timeout_s=settings.block_ms / 1000 + CALL_TIMEOUT_S)
    locks = BatchLocks(
        sync_client(stores.cache_url),
        owner=name,
        lease_ms=settings.lock_lease_ms,
        renew_ms=settings.lock_renew_ms,
    )
    return Worker(OrderStream(ledger, name), engine(stores.mysql_url), locks, settings)


def make_sweeper(stores: StoreSettings) -> Sweeper:
    """A sweeper with connections of its own: the worker's batches do not wait for it."""
    return Sweeper(
        engine(stores.mysql_url, kept=1, at_most=1),
        sync_client(stores.ledger_url),
        LifecycleSettings.load(),
        claim_timeout_ms=ClaimSettings.load().timeout_ms,
    )


def run_worker(name: str, port: int, stores: StoreSettings, settings: WorkerSettings) -> None:
    """Work until SIGTERM or SIGINT; the batch in hand is finished first.

    Raises UnreachableError if `port` is taken; 0 serves no health and no metrics.
    """
    logs.configure(name)
    worker = make_worker(name, stores, settings)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    sweeper = make_sweeper(stores)
    metrics = _metrics(worker, sweeper, stores)
    server = _serve((settings.host, port), metrics) if port else None
    sweeping = threading.Thread(target=sweeper.run, args=(stop,), name="sweeper", daemon=True)
    sweeping.start()
    try:
        worker.run(stop.is_set)
    finally:
        stop.set()
        sweeping.join(_SWEEP_END_S)
        if server is not None:
            server.shutdown()


def _metrics(worker: Worker, sweeper: Sweeper, stores: StoreSettings) -> Metrics:
    """All that a scrape asks. It has connections of its own: no batch waits for a scrape."""
    watched = engine(stores.mysql_url, kept=1, at_most=1)
    return Metrics(
        WorkerCollector(worker, sweeper),
        QueueCollector(sync_client(stores.ledger_url), watched),
        LockCollector("order", worker.locks.counts, lambda: worker.locks.held),
        MySQLPoolCollector({"worker": worker.pool, "sweeper": sweeper.pool, "figures": watched}),
    )


def _serve(address: tuple[str, int], metrics: Metrics) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = 200, b"application/json", b'{"success":true}'
            if self.path == "/metrics":
                kind, body = metrics.content_type, metrics.render()
            elif self.path != "/healthz":
                status, body = 404, b'{"success":false,"errorMsg":"Not found"}'
            self.send_response(status)
            self.send_header("content-type", kind.decode())
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    try:
        server = ThreadingHTTPServer(address, Handler)
    except OSError as error:
        raise UnreachableError(f"port {address[1]} is taken; choose another with --port") from error
    threading.Thread(target=server.serve_forever, name="worker-http", daemon=True).start()
    return server
