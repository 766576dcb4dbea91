"""What can be set about a stack, apart from the processes that sell."""

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flashsale.errors import UsageError
from flashsale.keys import SINGLE
from flashsale.model import Durability
from flashsale.settings import LedgerSettings, Settings
from flashsale.store_urls import layout_of


@dataclass(frozen=True)
class ExternalStores:
    """Stores that somebody else runs; None where the stack is to start a private one."""

    ledger_url: str | None = None
    cache_url: str | None = None
    mysql_url: str | None = None


class StackSettings(Settings):
    """One stack on this machine."""

    model_config = SettingsConfigDict(
        env_prefix="FLASHSALE_STACK_", frozen=True, extra="forbid", env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="The address that nginx listens on.")
    port: int = Field(8080, ge=0, le=65_535, description="nginx's port; 0 takes a free one.")
    replicas: int = Field(3, ge=1, le=64, description="HTTP processes behind nginx.")
    workers: int = Field(1, ge=1, le=64, description="Order workers.")
    replica_port: int = Field(
        8081, ge=0, le=65_000, description="The first replica's port, where it is free."
    )

    cluster: bool = Field(
        False,
        description="Whether the private ledger is a Redis Cluster: three masters, three replicas.",
    )

    observe: bool = Field(False, description="Whether Prometheus and its exporters run beside it.")
    observe_interval_s: float = Field(5.0, ge=0.1, le=60, description="How often they are asked.")

    links: dict[str, int] = Field(
        {},
        description='Ports of relays on links of the stack, in JSON: {"r1->ledger": 4711}, '
        'with a cluster {"r1->ledger-1": 4711, …}.',
    )

    shim: str = Field("", description="A library for faults below a process (docs/faults.md).")
    shims: dict[str, str] = Field(
        {}, description="Whom it is loaded into, with a control file each, in JSON, by name."
    )

    start_timeout_s: float = Field(
        60.0, ge=0.001, le=86_400, description="How long a child may take to start."
    )
    drain_timeout_s: float = Field(
        15.0, ge=0.001, le=86_400, description="How long a child may take to stop."
    )
    probe_interval_s: float = Field(
        30.0, ge=0.001, le=86_400, description="How often every child is asked."
    )
    probe_timeout_s: float = Field(
        5.0, ge=0.001, le=86_400, description="How long a child may take to answer."
    )
    probe_failures_max: int = Field(
        3, ge=1, le=1_000_000, description="A child that fails this often in a row is restarted."
    )
    restart_base_ms: int = Field(
        200, ge=1, le=3_600_000, description="First wait before a restart; it doubles."
    )
    restart_max_ms: int = Field(
        10_000, ge=1, le=3_600_000, description="Longest wait before a restart."
    )
    restart_reset_s: float = Field(
        30.0,
        ge=0.001,
        le=86_400,
        description="A child that ran this long starts over with the first wait.",
    )
    restart_warn_after: int = Field(
        5,
        ge=1,
        le=1_000_000,
        description="Quick deaths in a row after which the supervisor says so.",
    )
    log_bytes_max: int = Field(
        10_485_760, ge=4_096, le=1_099_511_627_776, description="A longer log is rolled."
    )
    log_files_max: int = Field(3, ge=1, le=100, description="Rolled logs that are kept.")

    durability: Durability = Field(
        Durability.ALWAYS,
        description="When the ledger acknowledges, be it private or external: its `appendfsync`, "
        "and whether its replicas are asked.",
    )
    ha: bool = Field(
        False, description="Whether the ledger has a replica, and Sentinels that fail over to it."
    )
    ha_down_after_ms: int = Field(
        2_000,
        ge=500,
        le=3_600_000,
        description="A primary that is silent for as long counts as down.",
    )
    ledger_memory_mb: int = Field(
        2_048, ge=16, le=1_048_576, description="The private ledger refuses beyond."
    )
    cache_memory_mb: int = Field(
        256, ge=16, le=1_048_576, description="The private cache evicts beyond."
    )
    mariadb_buffer_pool_mb: int = Field(
        256, ge=16, le=1_048_576, description="MariaDB's page cache."
    )
    mariadb_redo_log_mb: int = Field(256, ge=16, le=1_048_576, description="MariaDB's redo log.")
    mariadb_statistics: bool = Field(
        False, description="MariaDB counts its statements, for scenarios that ask how many."
    )

    nginx_workers: int = Field(1, ge=1, le=64, description="nginx's worker processes.")
    nginx_connections: int = Field(
        16_384,
        ge=64,
        le=1_000_000,
        description="Connections of one nginx worker, both sides counted.",
    )
    nginx_upstream_keepalive: int = Field(
        700,
        ge=1,
        le=1_000_000,
        description="Idle connections to replicas that one nginx worker keeps.",
    )
    nginx_access_log: bool = Field(False, description="Whether nginx logs every request.")
    nginx_address_requests_per_s: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Requests a second of one address, else 429; 0: no limits, as a storm wants.",
    )
    nginx_address_burst: int = Field(
        200, ge=1, le=1_000_000, description="Requests above that rate that are let through."
    )
    nginx_address_connections: int = Field(
        200, ge=1, le=65_535, description="Connections of one address, else 429."
    )


def stack_settings(external: ExternalStores, **given: Any) -> StackSettings:
    """The settings of one stack beside these stores: what is given, else the environment's.

    Raises UsageError for what is wrong, and for what no stack can combine.
    """
    if LedgerSettings.load().layout == "cluster":
        given["cluster"] = True
    settings = StackSettings.load(**given)
    _check_cluster(settings, external)
    _check_replicas(settings, external)
    return settings


def _check_cluster(settings: StackSettings, external: ExternalStores) -> None:
    is_clustered = layout_of(external.ledger_url or "") is not SINGLE
    if settings.cluster and external.ledger_url and not is_clustered:
        raise UsageError("--cluster starts a ledger of its own; leave --ledger-url out")
    if not (settings.cluster or is_clustered):
        return
    if settings.ha:
        raise UsageError("--ha: a cluster has replicas of its own; leave out one of the two")
    servers = {link.rpartition("->")[2] for link in settings.links}
    if "ledger" in servers:
        raise UsageError(
            "FLASHSALE_STACK_LINKS: a ledger on a cluster has a link for each node; name "
            "r1->ledger-1, r1->ledger-2, …"
        )
    if external.ledger_url and any(server.startswith("ledger-") for server in servers):
        raise UsageError(
            "FLASHSALE_STACK_LINKS: there are none to nodes of others; leave --ledger-url out, "
            "with --cluster"
        )


def _check_replicas(settings: StackSettings, external: ExternalStores) -> None:
    if settings.ha and external.ledger_url:
        raise UsageError("--ha: starts a ledger of its own; leave out --ledger-url")
    replicated = settings.durability is Durability.REPLICATED
    if replicated and not (settings.ha or settings.cluster or external.ledger_url):
        raise UsageError(
            "--durability replicated: the private ledger has no replica; add --ha or --cluster, or "
            "have `serve --ledger-url` name a ledger that has one"
        )
