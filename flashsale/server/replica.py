"""The replica process: its parts wired together, served by the HTTP server beside it; and what it
says of itself, health, readiness and metrics, of which nginx passes on the first alone."""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine

from flashsale.accounts.attendance import Attendance
from flashsale.accounts.login import Login, sender_for
from flashsale.accounts.sessions import ClaimBudget, Sessions
from flashsale.cache.client import CacheClient
from flashsale.catalog.pictures import Pictures
from flashsale.catalog.storefront import Storefront
from flashsale.errors import FlashsaleError, Indeterminate, Unavailable, UnreachableError
from flashsale.keys import SINGLE
from flashsale.locks.batch import LockCollector
from flashsale.locks.task import TaskLocks
from flashsale.orders.lifecycle import Lifecycle
from flashsale.orders.lookup import OrderLookup
from flashsale.seckill.claims import Claims
from flashsale.seckill.lane_claims import LaneClaims
from flashsale.seckill.permit import BooksComparison, Permits
from flashsale.server.app import UNKNOWN, App, Router
from flashsale.server.caller import Callers, ClientAddresses, parse_networks
from flashsale.server.http.server import Server, listen, listen_unix
from flashsale.server.metrics import (
    CacheCollector,
    ClaimCollector,
    HttpCollector,
    LoopLag,
    PictureCollector,
)
from flashsale.server.openapi import Document
from flashsale.server.request import Request
from flashsale.server.response import RETRY_SOON, Response, ok, rejected, respond
from flashsale.server.routes.orders import ClaimRoutes, OrderRoutes
from flashsale.server.routes.storefront import BlogRoutes, ShopRoutes, VoucherRoutes
from flashsale.server.routes.users import AccountRoutes, PeopleRoutes, PictureRoutes
from flashsale.settings import (
    BloomSettings,
    CacheSettings,
    CatalogSettings,
    ClaimSettings,
    LockSettings,
    LoginSettings,
    OperatorSettings,
    PictureSettings,
    ReplicaSettings,
    SessionSettings,
    StoreSettings,
)
from flashsale.storage.gate import Gate
from flashsale.storage.lanes import channels_of, ledger_channel
from flashsale.storage.metrics import ChannelCollector, GateCollector, Metrics, MySQLPoolCollector
from flashsale.storage.mysql import Database, engine
from flashsale.storage.roles import sync_client
from flashsale.store_urls import layout_of

log = structlog.get_logger(__name__)


class Replica:
    """One HTTP process of the sale; `run()` serves until SIGTERM or SIGINT."""

    def __init__(
        self,
        name: str,
        port: int,
        stores: StoreSettings,
        settings: ReplicaSettings,
        *,
        socket: Path | None = None,
    ) -> None:
        self._name = name
        self._port = port
        self._socket = socket
        self._settings = settings
        session_settings = SessionSettings.load()
        self._claim_settings = ClaimSettings.load()
        self._sessions = Sessions(stores.ledger_url, session_settings)
        pool = engine(stores.mysql_url)
        self._claims, self._keep_permits = self._make_claims(stores, session_settings, pool)
        self._database = Database(pool, threads_max=self._settings.mysql_threads_max)
        # Pages have connections and threads of their own: however dear they are made, orders,
        # claims and sign-ins do not wait behind them.
        page_pool = engine(stores.mysql_url)
        self._pages = Database(page_pool, threads_max=self._settings.mysql_page_threads_max)
        self._ledger = ledger_channel(stores.ledger_url, connections_max=8, timeout_s=2.0)
        cache = CacheClient(stores.cache_url, CacheSettings.load(), BloomSettings.load())
        self._storefront = Storefront(self._pages, cache, self._ledger, CatalogSettings.load())
        self._locks = TaskLocks(stores.cache_url, stores.ledger_url, LockSettings.load())
        self._pictures = Pictures(PictureSettings.load())
        self._lag = LoopLag()
        self._callers = Callers(self._sessions, OperatorSettings.load())
        router = Router()
        self.app = App(router, self._settings)
        self._mount_accounts(router, session_settings)
        self._mount_storefront(router)
        self._mount_sale(router, self._metrics({"replica": pool, "pages": page_pool}))
        if socket is not None:  # any user of this machine may come by the port, past any proxy
            self.app.by_address = router.only(_OWN_PATHS)

    def _make_claims(
        self, stores: StoreSettings, sessions: SessionSettings, pool: Engine
    ) -> tuple[Claims | LaneClaims, Callable[[], Coroutine[Any, Any, None]]]:
        """The claim service, and the duty that keeps its permits."""
        url, settings = stores.ledger_url, self._claim_settings
        if layout_of(url) is not SINGLE:
            lanes = LaneClaims(url, settings, sessions, self._sessions, pool)
            return lanes, lanes.keep_permits
        permits = Permits(BooksComparison(sync_client(url), pool))
        return Claims(url, settings, sessions, permits), permits.keep

    def _metrics(self, pools: Mapping[str, Engine]) -> Metrics:
        cache = self._storefront.cache
        gates: dict[str, Gate[Any, Any]] = {
            **self._claims.gates,
            **self._sessions.named_gates,
            "cache_read": cache.calls.reads,
            "cache_call": cache.calls.scripts,
        }
        channels = {
            **self._claims.channels,
            **self._sessions.named_channels,
            **channels_of("ledger", self._ledger),
            **cache.calls.channels,
        }
        return Metrics(
            HttpCollector(self.app),
            ClaimCollector(self._claims),
            GateCollector(gates),
            CacheCollector(cache),
            PictureCollector(self._pictures),
            LockCollector("task", self._locks.counts, lambda: self._locks.held),
            MySQLPoolCollector(pools),
            ChannelCollector(channels),
            self._lag,
        )

    def _mount_sale(self, router: Router, metrics: Metrics) -> None:
        orders = OrderLookup(self._database, self._ledger)
        lifecycle = Lifecycle(
            self._database,
            self._ledger,
            orders,
            self._claims.clock,
            self._claim_settings.timeout_ms,
            confirms=self._claim_settings.confirm_replicas > 0,
        )
        settings = self._claim_settings
        budget = ClaimBudget(
            self._sessions.user_of,
            claims_max=settings.user_claims_max,
            window_s=settings.user_window_s,
        )
        ClaimRoutes(self._sessions, self._claims, orders, settings, budget).mount(router)
        OrderRoutes(self._callers, orders, lifecycle).mount(router)
        _ProcessRoutes(orders, metrics).mount(router)

    def _mount_accounts(self, router: Router, sessions: SessionSettings) -> None:
        settings = LoginSettings.load()
        login = Login(self._database, self._ledger, settings, sessions, sender_for(settings))
        attendance = Attendance(self._ledger, self._claims.clock.now_s)
        trusted = parse_networks(self._settings.trusted_proxies)
        addresses = ClientAddresses(trusted, trusts_socket=self._socket is not None)
        AccountRoutes(self._callers, login, attendance, addresses).mount(router)

    def _mount_storefront(self, router: Router) -> None:
        parts = self._storefront
        ShopRoutes(self._callers, parts.shops, parts.types).mount(router)
        VoucherRoutes(self._callers, parts.vouchers).mount(router)
        BlogRoutes(self._callers, parts.blogs, parts.people).mount(router)
        PeopleRoutes(self._callers, parts.people).mount(router)
        PictureRoutes(self._callers, self._pictures).mount(router)

    def __repr__(self) -> str:
        return f"<Replica {self._name} port={self._port} {self.app!r}>"

    async def run(self) -> None:
        """Serve until told to stop, then drain. Raises UnreachableError if the port is taken."""
        _give_way(self._settings.niceness)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self._sync_clock()
        duties = self.start_duties()
        server = Server(self.app, self._settings, self._count_refusal)
        _calm_collector()
        stopping = loop.create_task(stop.wait())
        try:
            await self._listen(server)
            await asyncio.wait({stopping, *duties}, return_when=asyncio.FIRST_COMPLETED)
            trouble = _ended_duty(duties)
            await self._drain(server)
        finally:
            await server.aclose()
            stopping.cancel()
            await _cancelled(duties)
            await self._close()
        if trouble:
            raise FlashsaleError(trouble)

    def start_duties(self) -> list[asyncio.Task[None]]:
        """What runs beside the requests for as long as the process lives."""
        loop = asyncio.get_running_loop()
        return [
            loop.create_task(duty)
            for duty in (
                self._claims.keep_time(),
                self._keep_permits(),
                self._lag.keep(),
                *self._storefront.duties(self._locks),
            )
        ]

    async def _sync_clock(self) -> None:
        try:
            await self._claims.sync_clocks()
        except (Unavailable, Indeterminate) as trouble:
            log.warning("started without the ledger", trouble=str(trouble))

    async def _listen(self, server: Server) -> None:
        try:
            sockets = listen(self._settings.host, self._port)
        except OSError as error:
            raise UnreachableError(f"port {self._port} cannot be served: {error}") from error
        try:
            if self._socket is not None:
                sockets.append(listen_unix(self._socket))
        except OSError as error:
            raise UnreachableError(f"{self._socket} cannot be served: {error}") from error
        await server.start(sockets)

    def _count_refusal(self, status: int) -> None:
        self.app.answers[UNKNOWN, status] += 1

    async def _drain(self, server: Server) -> None:
        self.app.draining = True
        cut_off = await server.drain(self._settings.drain_timeout_s)
        await self._claims.drain()
        log.info("drained", in_flight=self.app.in_flight)
        if cut_off:
            log.warning("cut off clients that neither finished their request nor left", n=cut_off)

    async def _close(self) -> None:
        await self._sessions.aclose()
        await self._claims.aclose()
        await self._storefront.aclose()
        await self._locks.aclose()
        await self._ledger.aclose()
        self._database.close()
        self._pages.close()


def _give_way(niceness: int) -> None:
    """Let the stores and the order workers go first where there is not CPU enough for all.

    What was accepted is then written before more is accepted; otherwise the queue grows for as
    long as a storm lasts. A kernel that groups by session weighs the group, not the process.
    """
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(f"{os.nice(0)}\n")


def _ended_duty(duties: Sequence[asyncio.Task[None]]) -> str:
    """What is wrong where one of the duties, which last as long as the process, has ended."""
    for duty in duties:
        if duty.done():
            why = "cancelled" if duty.cancelled() else repr(duty.exception() or "it returned")
            name = getattr(duty.get_coro(), "__qualname__", duty.get_name())
            log.error("a background task ended by itself; the process ends", task=name, why=why)
            return f"the replica's task {name} ended by itself: {why}"
    return ""


async def _cancelled(duties: Sequence[asyncio.Task[None]]) -> None:
    """End them, and wait for their end: one may be in the middle of something."""
    for duty in duties:
        duty.cancel()
    await asyncio.gather(*duties, return_exceptions=True)


def _calm_collector() -> None:
    """Keep the garbage collector off the hot path.

    What is alive now lives as long as the process, so no later collection need look at it; a
    storm's requests die by reference count, so a young collection every 700 allocations (the
    default) finds nothing and costs a claim several microseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


# What it says of itself --------------------------------------------------------------------------

_OWN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})

_HEALTHY = ok()
_UNREADY = rejected("Not ready", 503, RETRY_SOON)


@dataclass(frozen=True)
class _ProcessRoutes:
    """What a supervisor and a Prometheus ask."""

    orders: OrderLookup
    metrics: Metrics

    def mount(self, router: Router) -> None:
        """Add the routes, after all others: one describes them."""
        document = Document()
        router.add("GET", "/healthz", self.healthz).gives()
        router.add("GET", "/readyz", self.readyz).gives(None, _UNREADY)
        router.add("GET", "/metrics", self.scrape).sends(self.metrics.content_type.decode())
        router.add("GET", "/openapi.json", document.send).sends("application/json")
        document.make(router.routes)

    async def healthz(self, request: Request, segment: str) -> Response:
        """The process answers."""
        return _HEALTHY

    async def readyz(self, request: Request, segment: str) -> Response:
        """Redis and MySQL can be written to, too."""
        try:
            await self.orders.ready()
        except (Unavailable, Indeterminate):
            return _UNREADY
        return _HEALTHY

    async def scrape(self, request: Request, segment: str) -> Response:
        """Prometheus' text format."""
        body = self.metrics.render()
        return respond(200, body, (b"content-type", self.metrics.content_type))
