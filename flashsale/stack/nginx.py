"""A private nginx in front of the replicas, and the one template (`deploy/nginx.conf.j2`) that
makes its configuration and those of deploy/compose.yaml and deploy/kubernetes.

`make compose` writes their files, from COMPOSE and KUBERNETES. They are rendered beforehand and
checked in, not by the image's own substitution of variables when it starts: that knows no loops, so
it would take a second template, and nobody could read or test what runs.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

import jinja2

from flashsale.errors import UnreachableError
from flashsale.files import private_folder, resource, write_private
from flashsale.settings import PICTURE_FORM_BYTES, PICTURES_PATH, ReplicaSettings
from flashsale.stack import binaries, probe
from flashsale.stack.binaries import Binary
from flashsale.stack.port import Port
from flashsale.stack.process import CommandLine, raise_descriptor_limit
from flashsale.stack.service import Service
from flashsale.stack.settings import StackSettings

_REFUSALS = (
    # nginx's own status, the one that leaves it, the text
    (400, 400, "Bad request"),
    (404, 404, "Not found"),
    (405, 405, "Method not allowed"),
    (408, 408, "Request timed out"),
    (413, 413, "Body too large"),
    (414, 414, "Address too long"),
    (494, 431, "Headers too large"),
    (500, 500, "Internal error"),
    (501, 501, "Not implemented"),
    (502, 502, "No answer from the sale"),
    (504, 504, "No answer from the sale"),
    (505, 505, "HTTP version not supported"),
)


@dataclass(frozen=True)
class AddressLimits:
    """What one client address may do. More is answered 429.

    `exempt` are networks that may do as they like: a storm comes from one address.
    """

    requests_per_s: int
    requests_burst: int
    connections: int
    exempt: Sequence[str] = ()


@dataclass(frozen=True)
class NginxConf:
    """Everything that differs between one nginx of ours and another."""

    listen: str  # host:port, or a port of every address
    status_listen: str  # the same, for nginx's own counters (stub_status)
    replicas: Sequence[str]  # host:port of each, or unix: and a path
    workers: int = 1
    worker_connections: int = 16_384
    upstream_keepalive: int = 700  # idle connections to replicas, per worker
    upstream_keepalive_time: str = "24h"  # after which a connection to a replica is made anew
    access_log: str | None = None  # a file for one JSON object a request
    limits: AddressLimits | None = None
    as_root: bool = False
    log_level: str = "warn"
    pictures: str | None = None  # the folder that replicas keep them in
    pictures_path: str = PICTURES_PATH
    picture_form_bytes: int = 1_048_576 + PICTURE_FORM_BYTES  # as replicas have it by default

    def render(self) -> str:
        """The whole configuration file."""
        template = resource("deploy/nginx.conf.j2").read_text(encoding="utf-8")
        environment = jinja2.Environment(  # noqa: S701 - a configuration file, not a page
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        return environment.from_string(template).render(vars(self), refusals=_REFUSALS)


_CHECK_TIMEOUT_S = 30
_DESCRIPTORS_SPARED = 512  # for logs, listening sockets and temporary files


@dataclass(frozen=True)
class Balancing:
    """How nginx spreads its load over the replicas on this machine, by socket or by port."""

    replica_ports: Sequence[int] = ()
    replica_sockets: Sequence[Path] = ()
    workers: int = 1
    worker_connections: int = 16_384
    upstream_keepalive: int = 700
    access_log: bool = False
    limits: AddressLimits | None = None
    pictures: Path | None = None
    picture_form_bytes: int = NginxConf.picture_form_bytes


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
        binary: Binary | None = None,
    ) -> None:
        super().__init__("nginx", directory, place=port, log=log)
        self._balancing = balancing
        self._binary = binary
        self._status_port = Port.free()

    @property
    def url(self) -> str:
        return f"http://{self.port.reachable_host}:{self.port.number}"

    @property
    def status_url(self) -> str:
        """Its own counters (stub_status), on loopback whatever address the sale is on."""
        return f"http://{self._status_port.host}:{self._status_port.number}/stub_status"

    def prepare(self) -> CommandLine:
        binary = self._binary or binaries.find(binaries.NGINX)
        conf = write_private(self.directory / "nginx.conf", self.render())
        return CommandLine(
            [binary.path, "-e", "stderr", "-p", self.directory, "-c", conf],
            binary.environment(),
            self.directory,
            stop_signal=signal.SIGQUIT,
            # A killed master leaves its workers behind; a terminated one takes them along.
            death_signal=signal.SIGTERM,
        )

    def check(self) -> None:
        """Have nginx read what it would run on (`nginx -t`); raises UnreachableError if it balks.

        It needs no replica, which `start` waits for.
        """
        private_folder(self.directory)
        command = self.prepare()
        try:
            done = subprocess.run(
                [*command.arguments, "-t"],
                env=command.environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_CHECK_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnreachableError(f"nginx cannot be run: {error}") from None
        if done.returncode != 0:
            raise UnreachableError(f"nginx refuses its configuration:\n{done.stderr.strip()}")

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

    def stop(self) -> None:
        super().stop()
        self._status_port.close()

    def render(self) -> str:
        """The whole configuration file."""
        balancing = self._balancing
        return NginxConf(
            listen=f"{self.port.host}:{self.port.number}",
            status_listen=f"{self._status_port.host}:{self._status_port.number}",
            replicas=[
                *(f"127.0.0.1:{port}" for port in balancing.replica_ports),
                *(f"unix:{_escaped(path)}" for path in balancing.replica_sockets),
            ],
            workers=balancing.workers,
            worker_connections=_connections(balancing.worker_connections),
            upstream_keepalive=balancing.upstream_keepalive,
            access_log=str(self.directory / "access.log") if balancing.access_log else None,
            limits=balancing.limits,
            pictures=_escaped(balancing.pictures) if balancing.pictures else None,
            picture_form_bytes=balancing.picture_form_bytes,
            as_root=os.geteuid() == 0,
        ).render()


def _escaped(path: Path) -> str:
    """A path as it stands between double quotes."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _connections(wanted: int) -> int:
    """Connections of one nginx worker: never more than the descriptors it can have."""
    raise_descriptor_limit()
    soft, _ = getrlimit(RLIMIT_NOFILE)
    return wanted if soft == RLIM_INFINITY else min(wanted, soft - _DESCRIPTORS_SPARED)


def queues_hold(settings: StackSettings) -> bool:
    """Whether all that nginx can ask at once has room in the queues of the replicas' sockets.

    A full one refuses where that of a port lets its clients wait.
    """
    backlog = min(ReplicaSettings.load().backlog, _longest_queue())
    asked_at_once = settings.nginx_workers * settings.nginx_connections // 2
    return settings.replicas * backlog >= asked_at_once


def _longest_queue() -> int:
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_bytes())
    except (OSError, ValueError):
        return 128


COMPOSE = NginxConf(
    listen="8080",
    status_listen="8090",
    replicas=("replica1:8081", "replica2:8081", "replica3:8081"),
    workers=2,
    access_log="/dev/stdout",
    pictures="/srv/pictures",
    limits=AddressLimits(
        requests_per_s=50,
        requests_burst=200,  # people behind one address of a company or a carrier
        connections=200,
        exempt=("10.89.77.128/25",),  # a toolkit of the same compose.yaml
    ),
)

KUBERNETES = NginxConf(
    listen="8080",
    status_listen="8090",
    # One name, of a Service, behind which is another replica each time: what one try did not reach
    # is tried again under the same name.
    replicas=("replica:8081",) * 3,
    workers=2,
    upstream_keepalive_time="30s",  # so that a replica that was added gets its part
    access_log="/dev/stdout",
    limits=AddressLimits(
        requests_per_s=50,
        requests_burst=200,
        connections=200,
        exempt=("10.0.0.0/8",),  # the network of Pods: a storm, or a balancer in front
    ),
)

if __name__ == "__main__":
    chosen = KUBERNETES if sys.argv[1:] == ["kubernetes"] else COMPOSE
    sys.stdout.write(chosen.render())
