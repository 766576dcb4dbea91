"""Exporters: what tells Prometheus how a Redis, a MySQL or an nginx does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flashsale.stack import binaries, probe
from flashsale.stack.process import CommandLine
from flashsale.stack.service import Service
from flashsale.store_urls import read_mysql_url, read_redis_url

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


def redis_export(role: str, url: str) -> Export:
    """Of the Redis in a role."""
    read = read_redis_url(url)
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
            (self.directory / name).touch(mode=0o600)
            (self.directory / name).write_text(text)
        listen = f"{self.export.listen_option}={self.port.host}:{self.port.number}"
        return CommandLine(
            [binary.path, listen, *self.export.arguments],
            binary.environment() | dict(self.export.environment) | {"GOMAXPROCS": "1"},
            self.directory,
        )

    def is_ready(self, timeout_s: float) -> bool:
        """Whether it answers; whether the server behind it does, its figures say."""
        return probe.http_status(self.port.host, self.port.number, "/", timeout_s) == 200
