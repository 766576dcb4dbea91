"""A private Redis in one of two roles: the ledger loses nothing, the cache may lose everything."""

from enum import StrEnum
from pathlib import Path

from flashsale.settings import Durability
from flashsale.stack import binaries, probe
from flashsale.stack.binaries import Binary
from flashsale.stack.port import Port
from flashsale.stack.process import CommandLine
from flashsale.stack.service import Service


class RedisRole(StrEnum):
    """What a Redis is for, which decides what it may forget."""

    LEDGER = "ledger"
    CACHE = "cache"


_SHARED = """\
bind {host}
port {port}
tcp-backlog 4096
tcp-keepalive 60
timeout 0
maxclients 10000
databases 1
daemonize no
dir .
logfile ""
save ""
maxmemory {memory_mb}mb
"""

_ROLES = {
    # The rewrite is put off so that a storm never shares its cores with a fork of the ledger.
    RedisRole.LEDGER: """\
maxmemory-policy noeviction
appendonly yes
appendfsync {durability}
no-appendfsync-on-rewrite no
auto-aof-rewrite-min-size 1gb
""",
    RedisRole.CACHE: """\
maxmemory-policy volatile-lru
appendonly no
""",
}

DEFAULT_MEMORY_MB = {RedisRole.LEDGER: 2048, RedisRole.CACHE: 256}


class RedisServer(Service):
    """A private Redis on loopback, in `directory`, with its role's policy.

    Data of the ledger survives a restart in the same directory.
    """

    def __init__(
        self,
        role: RedisRole,
        directory: Path,
        *,
        port: Port | None = None,
        log: Path | None = None,
        memory_mb: int | None = None,
        binary: Binary | None = None,
        durability: Durability = Durability.ALWAYS,
    ) -> None:
        super().__init__(str(role), directory, port=port, log=log)
        self.kind = f"redis-{role}"
        self.role = role
        self._memory_mb = memory_mb or DEFAULT_MEMORY_MB[role]
        self._binary = binary
        self._durability = durability

    @property
    def url(self) -> str:
        return f"redis://{self.port.host}:{self.port.number}/0"

    def prepare(self) -> CommandLine:
        binary = self._binary or binaries.find(binaries.REDIS)
        config = (_SHARED + _ROLES[self.role]).format(
            host=self.port.host,
            port=self.port.number,
            memory_mb=self._memory_mb,
            durability=self._durability,
        )
        # As arguments, and run in its folder: Redis takes a path with * or [ for a pattern, finds
        # nothing, and would run on its defaults.
        arguments = [
            word
            for line in config.splitlines()
            if not line.startswith("#")
            for word in _argument(*line.split(" ", 1))
        ]
        return CommandLine([binary.path, *arguments], binary.environment(), self.directory)

    def is_ready(self, timeout_s: float) -> bool:
        return probe.redis_reply(self.port.host, self.port.number, timeout_s) == "+PONG"

    def is_alive(self, timeout_s: float) -> bool:
        """A Redis that still loads its data answers with an error: alive, not ready."""
        return probe.redis_reply(self.port.host, self.port.number, timeout_s) != ""


def _argument(name: str, value: str) -> tuple[str, str]:
    return f"--{name}", value.strip('"')
