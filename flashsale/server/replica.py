"""The replica process: its parts wired together, served by granian's embedded server."""

import asyncio
import gc
import signal
from typing import Any

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from flashsale.accounts.sessions import Sessions
from flashsale.errors import Indeterminate, Unavailable, UnreachableError
from flashsale.orders.lookup import OrderLookup
from flashsale.seckill.claims import Claims
from flashsale.server.app import App
from flashsale.server.metrics import Metrics
from flashsale.server.router import Router
from flashsale.server.routes import ProcessRoutes, SaleRoutes
from flashsale.settings import ClaimSettings, ReplicaSettings, SessionSettings, StoreSettings
from flashsale.storage.mysql import engine

log = structlog.get_logger(__name__)


class Replica:
    """One HTTP process of the sale; `run()` serves until SIGTERM or SIGINT."""

    def __init__(self, name: str, port: int, stores: StoreSettings) -> None:
        self._name = name
        self._port = port
        self._settings = ReplicaSettings.load()
        claim_settings = ClaimSettings.load()
        self._sessions = Sessions(stores.ledger_url, SessionSettings.load())
        self._claims = Claims(stores.ledger_url, claim_settings)
        self._orders = OrderLookup(
            engine(stores.mysql_url),
            stores.ledger_url,
            threads_max=self._settings.status_threads_max,
        )
        router = Router()
        self.app = App(router, self._settings)
        SaleRoutes(self._sessions, self._claims, self._orders, claim_settings).mount(router)
        metrics = Metrics(self.app, self._claims, self._sessions)
        ProcessRoutes(self._orders, metrics).mount(router)

    def __repr__(self) -> str:
        return f"<Replica {self._name} port={self._port} {self.app!r}>"

    async def run(self) -> None:
        """Serve until told to stop, then drain. Raises UnreachableError if the port is taken."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self._sync_clock()
        time_keeper = loop.create_task(self._claims.keep_time())
        server = self._server()
        # What is alive now lives as long as the process: keep it out of every later collection.
        gc.collect()
        gc.freeze()
        serving = loop.create_task(server.serve())
        stopping = loop.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            time_keeper.cancel()
            serving.result()
            raise UnreachableError(f"port {self._port} could not be served")
        await self._drain()
        server.stop()
        await serving
        time_keeper.cancel()
        stopping.cancel()
        await self._close()

    async def _sync_clock(self) -> None:
        try:
            await self._claims.clock.sync()
        except (Unavailable, Indeterminate) as trouble:
            log.warning("started without the ledger", trouble=str(trouble))

    def _server(self) -> Any:
        return Server(
            self.app,
            address=self._settings.host,
            port=self._port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=self._settings.backlog,
            http1_settings=HTTP1Settings(
                header_read_timeout=self._settings.header_timeout_ms,
                max_buffer_size=max(8192, 2 * self._settings.header_bytes_max),
            ),
            log_level=LogLevels.error,
        )

    async def _drain(self) -> None:
        self.app.draining = True
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._settings.drain_timeout_s
        quiet_checks = 0
        while quiet_checks < 3 and loop.time() < give_up:
            await asyncio.sleep(0.02)
            quiet_checks = quiet_checks + 1 if self.app.in_flight == 0 else 0
        await self._claims.drain()
        log.info("drained", in_flight=self.app.in_flight)

    async def _close(self) -> None:
        await self._sessions.aclose()
        await self._claims.aclose()
        await self._orders.aclose()
