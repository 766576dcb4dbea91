"""A private Prometheus and the exporters of a Redis, a MySQL and an nginx, beside one stack:
the jobs and instances of deploy/prometheus.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from flashsale.asking import UnansweredError, ask_once
from flashsale.errors import UnreachableError
from flashsale.files import resource, write_private
from flashsale.primaries import NoPrimary, Sentinels, topology
from flashsale.stack import binaries, probe
from flashsale.stack.process import CommandLine
from flashsale.stack.service import Service
from flashsale.stack.stack import Observed
from flashsale.store_urls import layout_of, of_node, read_mysql_url, read_redis_url, server_url

_MYSQL_FILES = ("ssl_ca", "ssl_cert", "ssl_key")


@dataclass(frozen=True)
class Export:
    """What one exporter runs with. Secrets go into the environment or a file, never into `ps`."""

    job: str  # the scrape job, which is also what it exports
    instance: str
    program: binaries.Program
    listen_option: str
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    file: tuple[str, str] | None = None  # name and text, written beside it for this user alone


def ledger_exports(url: str, servers: Mapping[str, str]) -> Sequence[Export]:
    """Of each server of the ledger at `url`: those of a private one by name, the nodes of somebody
    else's cluster by place, as they are now. Raises UnreachableError where none answers."""
    if not servers and not layout_of(url).is_whole:
        try:
            places = topology(url).nodes()
        except RedisError as error:
            raise UnreachableError(f"the ledger cannot be observed: {error}") from None
        servers = {f"ledger-{host}:{port}": of_node(url, (host, port)) for host, port in places}
    return [redis_export(name, its) for name, its in (servers or {"ledger": url}).items()]


def redis_export(role: str, url: str) -> Export:
    """Of the Redis in a role; behind Sentinels of who is the primary now, and stays the one that
    is looked at. Raises UnreachableError where they name none."""
    read = read_redis_url(url)
    if read.sentinels:
        try:
            primary = Sentinels(read).ask()
        except NoPrimary as nobody:
            raise UnreachableError(f"the {role} at {read} cannot be observed: {nobody}") from None
        read = read_redis_url(server_url(read, primary.host, primary.port))
    place = f"{read.scheme}://{read.socket or f'{read.host}:{read.port}'}"
    environment = {
        "REDIS_ADDR": place,
        "REDIS_USER": read.user or "",
        "REDIS_PASSWORD": read.password or "",
    }
    told = read.parameters
    tls = {
        "REDIS_EXPORTER_TLS_CA_CERT_FILE": told.get("ssl_ca_certs"),
        "REDIS_EXPORTER_TLS_CLIENT_CERT_FILE": told.get("ssl_certfile"),
        "REDIS_EXPORTER_TLS_CLIENT_KEY_FILE": told.get("ssl_keyfile"),
        "REDIS_EXPORTER_SKIP_TLS_VERIFICATION": (
            "true" if told.get("ssl_cert_reqs") == "none" else None
        ),
    }
    environment |= {name: value for name, value in tls.items() if value is not None}
    program, listen = binaries.REDIS_EXPORTER, "--web.listen-address"
    return Export("redis", role, program, listen, environment=environment)


def mysql_export(url: str) -> Export:
    """Of MySQL or MariaDB: global status and variables, which every user may read."""
    read = read_mysql_url(url)
    account = {"user": read.user or "", "password": read.password or ""}
    if read.socket:
        account["socket"] = read.socket
    else:
        account |= {"host": read.host, "port": str(read.port)}
    files = {name.replace("_", "-"): read.parameters.get(name) for name in _MYSQL_FILES}
    account |= {name: value for name, value in files.items() if value}
    lines = [f"{name} = `{value}`" for name, value in account.items()]
    arguments = [
        "--config.my-cnf=exporter.cnf",
        "--collect.global_status",
        "--collect.global_variables",
        "--no-collect.slave_status",
        "--no-collect.info_schema.innodb_cmp",
        "--no-collect.info_schema.innodb_cmpmem",
        "--no-collect.info_schema.query_response_time",
    ]
    cnf = "\n".join(["[client]", *lines, ""])
    program, listen = binaries.MYSQL_EXPORTER, "--web.listen-address"
    return Export("mysql", "mysql", program, listen, arguments, file=("exporter.cnf", cnf))


def nginx_export(status_url: str) -> Export:
    """Of nginx, by its own counters."""
    arguments = [f"--nginx.scrape-uri={status_url}"]
    return Export("nginx", "nginx", binaries.NGINX_EXPORTER, "--web.listen-address", arguments)


class Exporter(Service):
    """One exporter on loopback."""

    def __init__(self, export: Export, directory: Path, *, log: Path) -> None:
        super().__init__(f"{export.instance}-exporter", directory, log=log)
        self.kind = f"{export.job}-exporter"
        self.export = export

    @property
    def url(self) -> str:
        return f"http://{self.port.host}:{self.port.number}"

    def prepare(self) -> CommandLine:
        binary = binaries.find(self.export.program)
        if self.export.file is not None:
            name, text = self.export.file
            write_private(self.directory / name, text)
        listen = f"{self.export.listen_option}={self.port.host}:{self.port.number}"
        return CommandLine(
            [binary.path, listen, *self.export.arguments],
            binary.environment() | dict(self.export.environment) | {"GOMAXPROCS": "1"},
            self.directory,
        )

    def is_ready(self, timeout_s: float) -> bool:
        """Whether it answers; whether the server behind it does, its figures say."""
        return probe.http_status(self.port.host, self.port.number, "/", timeout_s) == 200


RULES = ("rules.yml", "alerts.yml")
RULES_EVERY_S = 2.0
"""How often rules are asked at the longest: an alert need not wait as long as a scrape."""
_RETENTION = "1d"
_TARGETS_BYTES_MAX = 4 * 1_048_576


@dataclass(frozen=True)
class ScrapeTarget:
    """Who is scraped, under which labels."""

    job: str
    instance: str
    address: str  # host:port


class PrometheusServer(Service):
    """Prometheus on loopback, with the rules and alerts that ship; data in its directory."""

    kind = "prometheus"

    def __init__(
        self, directory: Path, targets: Sequence[ScrapeTarget], *, interval_s: float, log: Path
    ) -> None:
        super().__init__("prometheus", directory, log=log)
        self._targets = targets
        self._interval_s = interval_s

    @property
    def url(self) -> str:
        return f"http://{self.port.host}:{self.port.number}"

    def prepare(self) -> CommandLine:
        binary = binaries.find(binaries.PROMETHEUS)
        own = ScrapeTarget("prometheus", "prometheus", f"{self.port.host}:{self.port.number}")
        conf = configuration([*self._targets, own], self._interval_s)
        write_private(self.directory / "prometheus.yml", json.dumps(conf, indent=2))
        arguments = [
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--storage.tsdb.retention.time={_RETENTION}",
            f"--web.listen-address={self.port.host}:{self.port.number}",
            "--log.level=warn",
        ]
        environment = binary.environment() | {"GOMAXPROCS": "1"}
        return CommandLine([binary.path, *arguments], environment, self.directory)

    def is_ready(self, timeout_s: float) -> bool:
        """Whether everybody was scraped once. It looks for its targets five seconds after its
        start, and a storm may be over by then: what nobody saw begin has no rate.
        """
        try:
            answer = ask_once(
                f"{self.url}/api/v1/targets?state=active",
                total_s=timeout_s,
                bytes_max=_TARGETS_BYTES_MAX,
            )
            targets = answer.json()["data"]["activeTargets"]
            seen = [target for target in targets if target["health"] != "unknown"]
        except (UnansweredError, LookupError, TypeError):
            return False
        return len(seen) == len(self._targets) + 1

    def is_alive(self, timeout_s: float) -> bool:
        return self._asks("/-/healthy", timeout_s)

    def _asks(self, path: str, timeout_s: float) -> bool:
        return probe.http_status(self.port.host, self.port.number, path, timeout_s) == 200


def configuration(targets: Sequence[ScrapeTarget], interval_s: float) -> Mapping[str, Any]:
    """Prometheus' configuration, as JSON, which is YAML too. Pure."""
    every, rules = (f"{round(s * 1000)}ms" for s in (interval_s, min(interval_s, RULES_EVERY_S)))
    jobs: dict[str, list[dict[str, Any]]] = {}
    for target in targets:
        entry = {"targets": [target.address], "labels": {"instance": target.instance}}
        jobs.setdefault(target.job, []).append(entry)
    return {
        "global": {
            "scrape_interval": every,
            "scrape_timeout": every,
            "evaluation_interval": rules,
        },
        "rule_files": [str(resource(f"deploy/prometheus/{name}")) for name in RULES],
        "scrape_configs": [
            {"job_name": job, "static_configs": entries} for job, entries in jobs.items()
        ],
    }


class PrivateObservers:
    """Prometheus and an exporter a store beside a stack, on loopback: what `--observe` runs."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s

    def ensure(self) -> None:
        """See that their programs are there. Raises UnreachableError with the cure."""
        for program in binaries.OBSERVERS:
            binaries.find(program)

    def stages(self, observed: Observed) -> Iterator[Sequence[Service]]:
        """Exporters first, then Prometheus, which finds everybody at home."""
        urls, folder = observed.store_urls, observed.folder
        exports = (
            *ledger_exports(urls["FLASHSALE_LEDGER_URL"], observed.ledgers),
            redis_export("cache", urls["FLASHSALE_CACHE_URL"]),
            mysql_export(urls["FLASHSALE_MYSQL_URL"]),
            nginx_export(observed.nginx_status_url),
        )
        exporters = [
            Exporter(each, folder / each.instance, log=observed.log(f"{each.instance}-exporter"))
            for each in exports
        ]
        yield exporters
        own = [(each.kind, each.name, each.port) for each in observed.processes]
        told = [(each.export.job, each.export.instance, each.port) for each in exporters]
        targets = [
            ScrapeTarget(job, instance, f"{port.reachable_host}:{port.number}")
            for job, instance, port in [*own, *told]
        ]
        log = observed.log("prometheus")
        folder = folder / "prometheus"
        yield [PrometheusServer(folder, targets, interval_s=self._interval_s, log=log)]
