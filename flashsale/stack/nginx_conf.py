"""nginx's configuration: one template for `serve` and for deploy/compose.yaml, filled in here."""

from collections.abc import Sequence
from dataclasses import dataclass

from flashsale.resources import resource

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
    replicas: Sequence[str]  # host:port of each
    workers: int = 1
    worker_connections: int = 16_384
    upstream_keepalive: int = 700  # idle connections to replicas, per worker
    access_log: str | None = None  # a file for one JSON object a request
    limits: AddressLimits | None = None
    as_root: bool = False
    log_level: str = "warn"

    def render(self) -> str:
        """The whole configuration file."""
        import jinja2

        template = resource("deploy/nginx.conf.j2").read_text()
        environment = jinja2.Environment(  # noqa: S701 - a configuration file, not a page
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        return environment.from_string(template).render(vars(self), refusals=_REFUSALS)
