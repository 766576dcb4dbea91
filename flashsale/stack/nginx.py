"""A private nginx in front of the replicas, rendered from deploy/nginx.conf.j2."""

import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flashsale.resources import resource as shipped
from flashsale.stack import binaries, probe
from flashsale.stack.port import Port
from flashsale.stack.process import CommandLine
from flashsale.stack.service import Service
from flashsale.stack.tether import raise_descriptor_limit

_DESCRIPTORS_SPARED = 512  # for logs, listening sockets and temporary files

_REFUSALS = (
    # nginx's own status, the one that leaves it, the text
    (400, 400, "Bad request"),
    (404, 404, "Not found"),
    (405, 405, "Method not allowed"),
    (408, 408, "Request timed out"),
    (413, 413, "Body too large"),
    (414, 414, "Address too long"),
    (494, 431, "Headers too large"),
    (502, 502, "No answer from the sale"),
    (504, 504, "No answer from the sale"),
)


@dataclass(frozen=True)
class Balancing:
    """How nginx spreads its load; ports are those of the replicas on this machine."""

    replica_ports: Sequence[int]
    workers: int = 1
    worker_connections: int = 16_384
    upstream_keepalive: int = 700
    access_log: bool = False


class NginxServer(Service):
    """A private nginx that balances over the replicas by their number of open requests."""

    kind = "nginx"

    def __init__(
        self,
        directory: Path,
        balancing: Balancing,
        *,
        port: Port | None = None,
        log: Path | None = None,
    ) -> None:
        super().__init__("nginx", directory, port=port, log=log)
        self._balancing = balancing

    @property
    def url(self) -> str:
        return f"http://{self.port.reachable_host}:{self.port.number}"

    def prepare(self) -> CommandLine:
        binary = binaries.find(binaries.NGINX)
        conf = self.directory / "nginx.conf"
        conf.write_text(self.render())
        return CommandLine(
            [binary.path, "-e", "stderr", "-p", self.directory, "-c", conf],
            binary.environment(),
            self.directory,
            stop_signal=signal.SIGQUIT,
            # A killed master leaves its workers behind; a terminated one takes them along.
            death_signal=signal.SIGTERM,
        )

    def is_ready(self, timeout_s: float) -> bool:
        """Whether a replica's health comes through it."""
        return (
            probe.http_status(self.port.reachable_host, self.port.number, "/healthz", timeout_s)
            == 200
        )

    def is_alive(self, timeout_s: float) -> bool:
        """Whether it answers at all: with every replica down, a new nginx would not help."""
        status = probe.http_status(
            self.port.reachable_host, self.port.number, "/healthz", timeout_s
        )
        return status is not None

    def render(self) -> str:
        """The whole configuration file."""
        import jinja2

        template = shipped("deploy/nginx.conf.j2").read_text()
        environment = jinja2.Environment(  # noqa: S701 - a configuration file, not a page
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        balancing = self._balancing
        return environment.from_string(template).render(
            as_root=os.geteuid() == 0,
            directory=self.directory,
            host=self.port.host,
            port=self.port.number,
            workers=balancing.workers,
            worker_connections=_connections(balancing.worker_connections),
            upstream_keepalive=balancing.upstream_keepalive,
            replica_ports=balancing.replica_ports,
            access_log=self.directory / "access.log" if balancing.access_log else None,
            log_level="warn",
            refusals=_REFUSALS,
        )


def _connections(wanted: int) -> int:
    """Connections of one nginx worker: never more than the descriptors it can have."""
    raise_descriptor_limit()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - _DESCRIPTORS_SPARED)
