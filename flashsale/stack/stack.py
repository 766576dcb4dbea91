"""All processes of one stack, those that sell among them: started in the order of their needs,
stopped in reverse.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeAlias

from flashsale.errors import UnreachableError
from flashsale.files import STORE_PASSWORDS
from flashsale.model import Durability
from flashsale.settings import PICTURES_PATH, ClaimSettings, PictureSettings, ReplicaSettings
from flashsale.stack import probe
from flashsale.stack.cluster import LedgerCluster, by_relays
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.nginx import AddressLimits, Balancing, NginxServer, queues_hold
from flashsale.stack.port import Port, Socket
from flashsale.stack.process import FLASHSALE, PROMPT_US, CommandLine
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.stack.sentinel import LedgerPair, Sentinel, last_known
from flashsale.stack.service import Account, Member, Service
from flashsale.stack.settings import ExternalStores, StackSettings
from flashsale.stack.state import SCHEMA, StackState, write_state
from flashsale.storage.tables import create_schema
from flashsale.store_urls import at_port


@dataclass(frozen=True)
class SaleCommands:
    """The command lines of the two kinds; `{port}`, `{name}` and, where it is to listen on one for
    nginx, `{socket}` are filled in."""

    replica: tuple[str, ...] = (
        *(*FLASHSALE, "replica"),
        *("--port", "{port}", "--name", "{name}", "--socket", "{socket}"),
    )
    worker: tuple[str, ...] = (
        *(*FLASHSALE, "worker"),
        *("--port", "{port}", "--name", "{name}"),
    )


_REPLICA, _WORKER = Account.REPLICA.value, Account.WORKER.value
_REPLICA_US = 200
"""A replica's slice: short beside strangers' (1.4 ms on two cores), longer than the workers'."""
_OPERATOR = "FLASHSALE_OPERATOR_"
"""What begins so is told to replicas alone: they know an operator by it."""


class SaleProcess(Service):
    """A replica or a worker: a Python process with `/healthz` on its own port."""

    def __init__(
        self,
        kind: str,
        name: str,
        directory: Path,
        *,
        command: Sequence[str],
        stores: Mapping[str, str],
        ready_path: str,
        port: Port | None = None,
        socket: Socket | None = None,
        log: Path | None = None,
    ) -> None:
        super().__init__(name, directory, place=port, log=log)
        self.kind = kind
        self.socket = socket
        self._command = command
        self._stores = stores
        self._ready_path = ready_path

    @property
    def url(self) -> str:
        return f"http://{self.port.reachable_host}:{self.port.number}"

    def prepare(self) -> CommandLine:
        told = {"port": self.port.number, "name": self.name}
        if self.socket:
            told["socket"] = str(self.socket.path)
        filled = [part.format_map(told) for part in self._command]
        # The URLs are whole: a password of some other store is none of theirs.
        password_files = {f"{name}_FILE" for name in STORE_PASSWORDS}
        inherited = {k: v for k, v in os.environ.items() if k not in password_files}
        if self.kind != _REPLICA:
            inherited = {k: v for k, v in inherited.items() if not k.startswith(_OPERATOR)}
        slice_us = _REPLICA_US if self.kind == _REPLICA else PROMPT_US
        return CommandLine(filled, inherited | dict(self._stores), Path.cwd(), slice_us=slice_us)

    def stop(self) -> None:
        super().stop()
        if self.socket:
            self.socket.close()

    def is_ready(self, timeout_s: float) -> bool:
        return self._asks(self._ready_path, timeout_s)

    def is_alive(self, timeout_s: float) -> bool:
        """Its own health, not that of the stores behind it: no restart of ours would heal those."""
        return self._asks("/healthz", timeout_s)

    def _asks(self, path: str, timeout_s: float) -> bool:
        return probe.http_status(self.port.reachable_host, self.port.number, path, timeout_s) == 200


Say: TypeAlias = Callable[[str], None]
UrlFor: TypeAlias = Callable[[Account], str]
"""Where an account reaches a store."""


@dataclass(frozen=True)
class Observed:
    """What there is to observe of a stack that is up, as the exporters' account; files and logs go
    into folders of it. `ledgers` are the servers of a private ledger, by name.
    """

    store_urls: Mapping[str, str]
    ledgers: Mapping[str, str]
    nginx_status_url: str
    processes: Sequence[SaleProcess]
    folder: Path
    log: Callable[[str], Path]


class Observers(Protocol):
    """Who watches a stack, run by it: `observe/prometheus.py` has them."""

    def ensure(self) -> None:
        """See that their programs are there. Raises UnreachableError."""

    def stages(self, observed: Observed) -> Iterator[Sequence[Service]]:
        """Services to bring up, each stage when the one before it is ready."""


class Stack:
    """The stores that nobody else runs, the replicas, the workers, and nginx.

    `insist` sees that the stores of others keep a sale's promises, and raises where they do not.
    """

    def __init__(
        self,
        settings: StackSettings,
        state_dir: Path,
        external: ExternalStores | None = None,
        commands: SaleCommands | None = None,
        insist: Callable[[ExternalStores], None] = lambda stores: None,
        observers: Observers | None = None,
    ) -> None:
        self.settings = settings
        self.state_dir = state_dir.absolute()
        self.logs = self.state_dir / "logs"
        self.ready = False
        self.members: list[Member] = []
        self._external = external or ExternalStores()
        self._commands = commands or SaleCommands()
        self._insist, self._observers = insist, observers
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._front_port: Port | None = None
        self._stores: dict[str, UrlFor] = {}

    def __repr__(self) -> str:
        return f"Stack({self.state_dir}, {len(self.members)} processes, ready={self.ready})"

    def start(self, say: Say) -> None:
        """Bring everything up, each after what it needs; returns when a claim can be answered.

        Raises UnreachableError for what does not come up; `stop` cleans up then as ever.
        """
        if self._observers:
            self._observers.ensure()
        front = self._front_port = _front_port(self.settings)
        self._insist(self._external)
        self._start_stores(say)
        say("creating the schema")
        create_schema(self._store_urls()["FLASHSALE_MYSQL_URL"])
        self.write_state()
        replicas = [self._replica(number) for number in range(self.settings.replicas)]
        workers = [self._worker(number) for number in range(self.settings.workers)]
        say(f"starting replicas ({len(replicas)}) and order workers ({len(workers)})")
        self._bring_up([*replicas, *workers])
        if self.settings.links:
            self.write_state()  # their relays read it: nginx is ready when it reaches a replica
        say("starting nginx")
        nginx = self._nginx(front, replicas)
        self._bring_up([nginx])
        if self._observers:
            say("starting Prometheus and its exporters")
            self._observe(self._observers, nginx, [*replicas, *workers])
        self.ready = True
        self.write_state()

    def stop(self) -> None:
        """Stop what runs: first the door, then those behind it, then the stores; all bounded."""
        behind, stores = (_REPLICA, _WORKER), ("mariadb", "redis-ledger", "redis-cache")
        watching = (Sentinel.kind,)  # before the primary, or they would look for another
        others = {m.service.kind for m in self.members}.difference(behind, watching, stores)
        for kinds in (others, behind, watching, stores):
            services = [m.service for m in self.members if m.service.kind in kinds]
            for service in services:
                service.ask_to_stop()
            for service in services:
                service.stop()
        if self._front_port:
            self._front_port.close()

    def kill(self) -> None:
        """End everything at once. What was acknowledged is on disk."""
        for member in self.members:
            if member.service.process:
                member.service.process.strike()

    @property
    def base_url(self) -> str:
        """Where the sale answers, once it is started."""
        assert self._front_port
        return f"http://{self._front_port.reachable_host}:{self._front_port.number}"

    @property
    def state(self) -> StackState:
        """The stack as `stack.json` tells it."""
        urls = self._store_urls()
        return StackState(
            schema=SCHEMA,
            pid=os.getpid(),
            started_at=self._started_at,
            ready=self.ready,
            base_url=self.base_url,
            ledger_url=urls["FLASHSALE_LEDGER_URL"],
            cache_url=urls["FLASHSALE_CACHE_URL"],
            mysql_url=urls["FLASHSALE_MYSQL_URL"],
            children=tuple(member.state for member in self.members),
        )

    def write_state(self) -> None:
        """Tell other commands how things are now."""
        write_state(self.state_dir, self.state)

    def _start_stores(self, say: Say) -> None:
        given = self._external
        self._stores = {
            "FLASHSALE_LEDGER_URL": _same(given.ledger_url) or self._ledger(say),
            "FLASHSALE_CACHE_URL": _same(given.cache_url) or self._redis(RedisRole.CACHE, say),
            "FLASHSALE_MYSQL_URL": _same(given.mysql_url) or self._mariadb(say),
        }

    def _store_urls(self, account: Account = Account.OWNER) -> dict[str, str]:
        return {name: url_for(account) for name, url_for in self._stores.items()}

    def _ledger(self, say: Say) -> UrlFor:
        if self.settings.cluster:
            cluster = LedgerCluster.of(self.state_dir, self.settings, self._log)
            say(f"starting the ledger's Redis Cluster ({len(cluster.nodes)} nodes)")
            self._bring_up(cluster.nodes)
            cluster.form()
            return cluster.url_for
        if not self.settings.ha:
            return self._redis(RedisRole.LEDGER, say)
        say("starting the ledger's Redis, its replica and their Sentinels")
        pair = LedgerPair(self.state_dir, self.settings, self._log)
        self._bring_up(pair.nodes)
        pair.await_link()
        self._bring_up(pair.sentinels)
        return pair.url_for

    def _redis(self, role: RedisRole, say: Say) -> UrlFor:
        say(f"starting the {role} Redis")
        ledger = role is RedisRole.LEDGER
        memory_mb = self.settings.ledger_memory_mb if ledger else self.settings.cache_memory_mb
        folder = self.state_dir / (last_known(self.state_dir)[0] if ledger else role)
        server = RedisServer(
            role,
            folder,
            socket=Socket.within(folder, "redis.sock"),
            log=self._log(role),
            memory_mb=memory_mb,
            durability=self.settings.durability,
        )
        self._bring_up([server])
        return server.url_for

    def _mariadb(self, say: Say) -> UrlFor:
        say("starting MariaDB")
        folder = self.state_dir / "mariadb"
        server = MariaDBServer(
            folder,
            socket=Socket.within(folder, "mysqld.sock"),
            log=self._log("mariadb"),
            buffer_pool_mb=self.settings.mariadb_buffer_pool_mb,
            redo_log_mb=self.settings.mariadb_redo_log_mb,
            statistics=self.settings.mariadb_statistics,
            plain_calls="mariadb" in self.settings.shims,
        )
        self._bring_up([server])
        return server.url_for

    def _replica(self, number: int) -> SaleProcess:
        first = self.settings.replica_port
        port = Port.at(first + number, fixed=False) if first else None
        command = self._commands.replica
        return self._sale_process(_REPLICA, f"r{number + 1}", command, "/readyz", port)

    def _worker(self, number: int) -> SaleProcess:
        command = self._commands.worker
        return self._sale_process(_WORKER, f"c{number + 1}", command, "/healthz", None)

    def _sale_process(
        self, kind: str, name: str, command: Sequence[str], ready_path: str, port: Port | None
    ) -> SaleProcess:
        socket = None
        if any("{socket}" in part for part in command):
            is_linked = f"nginx->{name}" in self.settings.links  # a relay asks by the port
            if queues_hold(self.settings) and not is_linked:
                socket = Socket.within(self.state_dir / "replicas", f"{name}.sock")
            else:
                command = [part for part in command if part not in ("--socket", "{socket}")]
        process = SaleProcess(
            kind,
            name,
            self.state_dir,
            command=command,
            socket=socket,
            stores=self._linked(name, Account(kind))
            | self._confirming
            | {
                "FLASHSALE_WORKER_DURABILITY": self.settings.durability,
                "FLASHSALE_PICTURES_FOLDER": str(self._pictures),
            },
            ready_path=ready_path,
            port=port,
            log=self._log(name),
        )
        process.stop_timeout_s = self.settings.drain_timeout_s
        return process

    @property
    def _confirming(self) -> dict[str, str]:
        """How many of the ledger's replicas are asked, where that was chosen: one, if not more."""
        if self.settings.durability is not Durability.REPLICATED:
            return {}
        return {"FLASHSALE_CLAIM_CONFIRM_REPLICAS": str(ClaimSettings.load().confirm_replicas or 1)}

    @property
    def _pictures(self) -> Path:
        given = PictureSettings.load().folder
        return Path(given).absolute() if given else self.state_dir / "pictures"

    def _linked(self, name: str, account: Account) -> dict[str, str]:
        """The stores' URLs as a process is told them: by a relay where its link has one."""
        links, urls = self.settings.links, self._store_urls(account)
        for store in ("ledger", "cache", "mysql"):
            variable, port = f"FLASHSALE_{store.upper()}_URL", links.get(f"{name}->{store}")
            if port is not None and not (store == "ledger" and self._has_nodes):
                urls[variable] = at_port(urls[variable], port)
        if self._has_nodes:
            urls |= by_relays(urls["FLASHSALE_LEDGER_URL"], self._ledgers, name, links)
        return urls

    def _nginx(self, port: Port, replicas: Sequence[SaleProcess]) -> NginxServer:
        settings = self.settings
        relays = {each.name: settings.links.get(f"nginx->{each.name}") for each in replicas}
        by_port = [each for each in replicas if relays[each.name] or not each.socket]
        balancing = Balancing(
            replica_ports=[relays[each.name] or each.port.number for each in by_port],
            replica_sockets=[
                each.socket.path for each in replicas if each.socket and not relays[each.name]
            ],
            workers=settings.nginx_workers,
            worker_connections=settings.nginx_connections,
            upstream_keepalive=settings.nginx_upstream_keepalive,
            access_log=settings.nginx_access_log,
            limits=_address_limits(settings),
            pictures=self._pictures,
            picture_form_bytes=ReplicaSettings.load().larger_bodies[PICTURES_PATH],
        )
        return NginxServer(self.state_dir / "nginx", balancing, port=port, log=self._log("nginx"))

    def _observe(
        self, observers: Observers, nginx: NginxServer, processes: Sequence[SaleProcess]
    ) -> None:
        folder = self.state_dir / "observe"
        urls = self._store_urls(Account.EXPORTER)
        own = {each.name: each.url_for(Account.EXPORTER) for each in self._ledgers}
        observed = Observed(urls, own, nginx.status_url, processes, folder, self._log)
        for services in observers.stages(observed):
            self._bring_up(services)

    @property
    def _ledgers(self) -> list[RedisServer]:
        """The servers of the ledger, where it is private."""
        servers = (it.service for it in self.members if isinstance(it.service, RedisServer))
        return [server for server in servers if server.role is RedisRole.LEDGER]

    @property
    def _has_nodes(self) -> bool:
        return self.settings.cluster or self.settings.ha

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _bring_up(self, services: Sequence[Service]) -> None:
        """Launch them side by side, then wait for each."""
        members = [Member(service) for service in services]
        self.members += members
        for service in services:
            if control := self.settings.shims.get(service.name):
                shim = {"LD_PRELOAD": self.settings.shim, "FLASHSALE_SHIM": control}
                service.more_environment = shim
            service.start_timeout_s = self.settings.start_timeout_s
            service.launch()
        for member in members:
            member.launched(time.monotonic())
            member.service.settle()
            member.answered(time.monotonic(), self.settings)


def _address_limits(settings: StackSettings) -> AddressLimits | None:
    if settings.nginx_address_requests_per_s == 0:
        return None
    return AddressLimits(
        requests_per_s=settings.nginx_address_requests_per_s,
        requests_burst=settings.nginx_address_burst,
        connections=settings.nginx_address_connections,
    )


def _same(url: str | None) -> UrlFor | None:
    """A store of somebody else's: whoever asks, its URL is the one that was given."""
    return (lambda account: url) if url else None


def _front_port(settings: StackSettings) -> Port:
    if settings.port == 0:
        return Port.free(settings.host)
    port = Port.at(settings.port, settings.host)
    if port is None:
        raise UnreachableError(
            f"port {settings.port} is taken on {settings.host}; "
            "choose another with --port, or any free one with --port 0"
        )
    return port
