"""All processes of one stack: started in the order of their needs, stopped in reverse."""

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from flashsale.errors import UnreachableError
from flashsale.stack import binaries, policy
from flashsale.stack.exporter import Exporter, mysql_export, nginx_export, redis_export
from flashsale.stack.machine import insist_on_descriptors
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.member import Member
from flashsale.stack.nginx import Balancing, NginxServer
from flashsale.stack.nginx_conf import AddressLimits
from flashsale.stack.port import Port
from flashsale.stack.prometheus import PrometheusServer, Target
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.stack.sale import SaleCommands, SaleProcess
from flashsale.stack.schema import create_schema
from flashsale.stack.service import Service
from flashsale.stack.settings import ExternalStores, StackSettings
from flashsale.stack.state import SCHEMA, StackState, write_state

Say: TypeAlias = Callable[[str], None]


class Stack:
    """The stores that nobody else runs, the replicas, the workers, and nginx."""

    def __init__(
        self,
        settings: StackSettings,
        state_dir: Path,
        external: ExternalStores | None = None,
        commands: SaleCommands | None = None,
    ) -> None:
        self.settings = settings
        self.state_dir = state_dir.absolute()
        self.logs = self.state_dir / "logs"
        self.ready = False
        self.members: list[Member] = []
        self._external = external or ExternalStores()
        self._commands = commands or SaleCommands()
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._front_port: Port | None = None
        self._store_urls: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Stack({self.state_dir}, {len(self.members)} processes, ready={self.ready})"

    def start(self, say: Say) -> None:
        """Bring everything up, each after what it needs; returns when a claim can be answered.

        Raises UnreachableError for what does not come up; `stop` cleans up then as ever.
        """
        if self.settings.observe:
            for program in binaries.OBSERVERS:
                binaries.find(program)
        insist_on_descriptors()
        front = self._front_port = _front_port(self.settings)
        external = self._external
        policy.insist(policy.examine(external.ledger_url, external.cache_url, external.mysql_url))
        self._start_stores(say)
        say("creating the schema")
        create_schema(self._store_urls["FLASHSALE_MYSQL_URL"])
        self.write_state()
        replicas = [self._replica(number) for number in range(self.settings.replicas)]
        workers = [self._worker(number) for number in range(self.settings.workers)]
        say(f"starting replicas ({len(replicas)}) and order workers ({len(workers)})")
        self._bring_up([*replicas, *workers])
        say("starting nginx")
        nginx = self._nginx(front, [replica.port.number for replica in replicas])
        self._bring_up([nginx])
        if self.settings.observe:
            say("starting Prometheus and its exporters")
            self._observe(nginx, [*replicas, *workers])
        self.ready = True
        self.write_state()

    def stop(self) -> None:
        """Stop what runs: first the door, then those behind it, then the stores; all bounded."""
        stages = (
            ("nginx", "prometheus", "redis-exporter", "mysql-exporter", "nginx-exporter"),
            ("replica", "worker"),
            ("mariadb", "redis-ledger", "redis-cache"),
        )
        for kinds in stages:
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
        return StackState(
            schema=SCHEMA,
            pid=os.getpid(),
            started_at=self._started_at,
            ready=self.ready,
            base_url=self.base_url,
            ledger_url=self._store_urls["FLASHSALE_LEDGER_URL"],
            cache_url=self._store_urls["FLASHSALE_CACHE_URL"],
            mysql_url=self._store_urls["FLASHSALE_MYSQL_URL"],
            children=tuple(member.state for member in self.members),
        )

    def write_state(self) -> None:
        """Tell other commands how things are now."""
        write_state(self.state_dir, self.state)

    def _start_stores(self, say: Say) -> None:
        given = self._external
        self._store_urls = {
            "FLASHSALE_LEDGER_URL": given.ledger_url or self._redis(RedisRole.LEDGER, say),
            "FLASHSALE_CACHE_URL": given.cache_url or self._redis(RedisRole.CACHE, say),
            "FLASHSALE_MYSQL_URL": given.mysql_url or self._mariadb(say),
        }

    def _redis(self, role: RedisRole, say: Say) -> str:
        say(f"starting the {role} Redis")
        ledger = role is RedisRole.LEDGER
        memory_mb = self.settings.ledger_memory_mb if ledger else self.settings.cache_memory_mb
        server = RedisServer(role, self.state_dir / role, log=self._log(role), memory_mb=memory_mb)
        self._bring_up([server])
        return server.url

    def _mariadb(self, say: Say) -> str:
        say("starting MariaDB")
        server = MariaDBServer(
            self.state_dir / "mariadb",
            log=self._log("mariadb"),
            buffer_pool_mb=self.settings.mariadb_buffer_pool_mb,
            redo_log_mb=self.settings.mariadb_redo_log_mb,
            statistics=self.settings.mariadb_statistics,
        )
        self._bring_up([server])
        return server.url

    def _replica(self, number: int) -> SaleProcess:
        first = self.settings.replica_port
        port = Port.at(first + number, fixed=False) if first else None
        command = self._commands.replica
        return self._sale_process("replica", f"r{number + 1}", command, "/readyz", port)

    def _worker(self, number: int) -> SaleProcess:
        command = self._commands.worker
        return self._sale_process("worker", f"c{number + 1}", command, "/healthz", None)

    def _sale_process(
        self, kind: str, name: str, command: Sequence[str], ready_path: str, port: Port | None
    ) -> SaleProcess:
        process = SaleProcess(
            kind,
            name,
            self.state_dir,
            command=command,
            stores=self._store_urls,
            ready_path=ready_path,
            port=port,
            log=self._log(name),
        )
        process.stop_timeout_s = self.settings.drain_timeout_s
        return process

    def _nginx(self, port: Port, replica_ports: Sequence[int]) -> NginxServer:
        settings = self.settings
        balancing = Balancing(
            replica_ports=replica_ports,
            workers=settings.nginx_workers,
            worker_connections=settings.nginx_connections,
            upstream_keepalive=settings.nginx_upstream_keepalive,
            access_log=settings.nginx_access_log,
            limits=_address_limits(settings),
        )
        log = self._log("nginx")
        return NginxServer(self.state_dir / "nginx", balancing, port=port, log=log)

    def _observe(self, nginx: NginxServer, processes: Sequence[SaleProcess]) -> None:
        """Exporters first, then Prometheus, which finds everybody at home."""
        urls, folder = self._store_urls, self.state_dir / "observe"
        exports = (
            redis_export("ledger", urls["FLASHSALE_LEDGER_URL"]),
            redis_export("cache", urls["FLASHSALE_CACHE_URL"]),
            mysql_export(urls["FLASHSALE_MYSQL_URL"]),
            nginx_export(nginx.status_url),
        )
        exporters = [
            Exporter(export, folder / export.instance, log=self._log(f"{export.instance}-exporter"))
            for export in exports
        ]
        self._bring_up(exporters)
        own = [(each.kind, each.name, each.port) for each in processes]
        told = [(each.export.job, each.export.instance, each.port) for each in exporters]
        targets = [
            Target(job, instance, f"{port.reachable_host}:{port.number}")
            for job, instance, port in [*own, *told]
        ]
        interval_s = self.settings.observe_interval_s
        log = self._log("prometheus")
        self._bring_up(
            [PrometheusServer(folder / "prometheus", targets, interval_s=interval_s, log=log)]
        )

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _bring_up(self, services: Sequence[Service]) -> None:
        """Launch them side by side, then wait for each."""
        members = [Member(service) for service in services]
        self.members += members
        for service in services:
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
