"""The worker process: its parts wired together, its health and metrics on a port of their own."""

import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

import structlog

from flashsale import telemetry
from flashsale.errors import FlashsaleError, UnreachableError
from flashsale.keys import WHOLE, Lane
from flashsale.locks.batch import BatchLocks, LockCollector
from flashsale.model import Durability
from flashsale.orders.metrics import BooksCollector, QueueCollector, WorkerCollector
from flashsale.orders.stream import OrderStream
from flashsale.orders.sweeper import Sweeper
from flashsale.orders.watch import BooksWatch
from flashsale.orders.worker import Worker
from flashsale.seckill.permit import BooksComparison
from flashsale.settings import ClaimSettings, LifecycleSettings, StoreSettings, WorkerSettings
from flashsale.storage.metrics import Metrics, MySQLPoolCollector
from flashsale.storage.mysql import engine
from flashsale.storage.roles import CALL_TIMEOUT_S, Confirmation, Ledgers, sync_client
from flashsale.store_urls import layout_of

log = structlog.get_logger(__name__)
_BATCH_END_S = 30.0
_SWEEP_END_S = 5.0  # a sweep that takes longer is left: each of its steps happens once


def make_worker(
    name: str, stores: StoreSettings, settings: WorkerSettings, lane: Lane = WHOLE
) -> Worker:
    """A worker that consumes as `name`, of a cluster's ledger one lane. Its ledger client waits
    longer than the stream blocks. Those of several lanes rest longer after a small batch: each of
    the batches is smaller than that of all, and costs as much."""
    timeout_s = settings.block_ms / 1000 + CALL_TIMEOUT_S
    ledger = sync_client(stores.ledger_url, lane=lane, timeout_s=timeout_s)
    locks = BatchLocks(
        sync_client(stores.cache_url),
        owner=f"{name}@{lane.tag}" if lane.tag else name,
        lease_ms=settings.lock_lease_ms,
        renew_ms=settings.lock_renew_ms,
    )
    stream = OrderStream(ledger, name, Confirmation.wanted(ClaimSettings.load()))
    linger_ms = settings.linger_ms * max(1, lane.lanes // 2)
    rested = settings.model_copy(update={"linger_ms": linger_ms})
    return Worker(stream, engine(stores.mysql_url), locks, rested)


def make_sweeper(stores: StoreSettings) -> Sweeper:
    """A sweeper with connections of its own: the worker's batches do not wait for it."""
    return Sweeper(
        engine(stores.mysql_url, kept=1, at_most=1),
        Ledgers.at(stores.ledger_url),
        LifecycleSettings.load(),
        claim_timeout_ms=ClaimSettings.load().timeout_ms,
        confirmation=Confirmation.wanted(ClaimSettings.load()),
    )


def make_watch(stores: StoreSettings, settings: WorkerSettings, lane: Lane = WHOLE) -> BooksWatch:
    """A watch over the books, with connections of its own as well. Those of several lanes look the
    less often the more there are: together as often as one."""
    pool = engine(stores.mysql_url, kept=1, at_most=2)
    return BooksWatch(
        BooksComparison(sync_client(stores.ledger_url, lane=lane), pool),
        interval_s=settings.books_interval_s * lane.lanes,
        claim_timeout_ms=ClaimSettings.load().timeout_ms,
    )


def run_worker(name: str, port: int, stores: StoreSettings, settings: WorkerSettings) -> None:
    """Work until SIGTERM or SIGINT; the batch in hand is finished first.

    Raises UnreachableError if `port` is taken; 0 serves no health and no metrics.
    """
    telemetry.configure(name)
    lanes = layout_of(stores.ledger_url).lanes
    workers = [make_worker(name, stores, settings, lane) for lane in lanes]
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    sweeper = make_sweeper(stores)
    watches = [make_watch(stores, settings, lane) for lane in lanes]
    for worker, watch in zip(workers, watches, strict=True):
        worker.doubt = watch.doubt
        worker.locks.counts = workers[0].locks.counts  # those of the process
    metrics = _metrics(workers, sweeper, watches, stores, settings.durability)
    server = _listen((settings.host, port), metrics) if port else None
    ended = Lasting(stop)
    sweeping = ended.start("sweeper", lambda: sweeper.run(stop))
    watching = [ended.start("books", partial(watch.run, stop)) for watch in watches]
    if server is not None:
        ended.start("worker-http", server.serve_forever)
    others = [ended.start("worker", partial(one.run, stop.is_set)) for one in workers[1:]]
    try:
        workers[0].run(stop.is_set)
    finally:
        stop.set()
        for other in others:  # each ends its batch
            other.join(settings.block_ms / 1000 + _BATCH_END_S)
        for watch in watches:
            watch.doubt.set()  # it need not wait for its next look
        for thread in (sweeping, *watching):
            thread.join(_SWEEP_END_S)
        if server is not None:
            server.shutdown()
            server.server_close()
    if ended.early:
        raise FlashsaleError(f"the worker's thread {ended.early[0]} ended by itself")


class Lasting:
    """Starts threads that have to last as long as the process: one that ends sooner, for whatever
    reason, is counted, and ends the process, which its supervisor then starts anew."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.early: list[str] = []  # those that ended too soon

    def __repr__(self) -> str:
        return f"<Lasting early={self.early}>"

    def start(self, name: str, work: Callable[[], object]) -> threading.Thread:
        """A thread at `work`, until `stop`."""

        def run() -> None:
            try:
                work()
            except Exception:
                log.exception("a thread failed", thread=name)
            finally:
                if not self._stop.is_set():
                    log.error("a thread ended by itself; the process ends", thread=name)
                    self.early.append(name)
                    self._stop.set()

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


def _metrics(
    workers: Sequence[Worker],
    sweeper: Sweeper,
    watches: Sequence[BooksWatch],
    stores: StoreSettings,
    durability: Durability,
) -> Metrics:
    """All that a scrape asks. It has connections of its own: no batch waits for a scrape."""
    watched = engine(stores.mysql_url, kept=1, at_most=1)
    locks = workers[0].locks.counts
    pools = {
        f"worker_{lane.tag}" if lane.tag else "worker": worker.pool
        for lane, worker in zip(layout_of(stores.ledger_url).lanes, workers, strict=True)
    }
    return Metrics(
        WorkerCollector(workers, sweeper),
        BooksCollector(*watches),
        QueueCollector(Ledgers.at(stores.ledger_url), watched, durability),
        LockCollector("order", locks, lambda: sum(worker.locks.held for worker in workers)),
        MySQLPoolCollector({**pools, "sweeper": sweeper.pool, "figures": watched}),
    )


def _listen(address: tuple[str, int], metrics: Metrics) -> ThreadingHTTPServer:
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
        return ThreadingHTTPServer(address, Handler)
    except OSError as error:
        raise UnreachableError(f"port {address[1]} is taken; choose another with --port") from error
