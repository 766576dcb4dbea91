"""A private Redis in one of two roles: the ledger loses nothing, the cache may lose everything.
And who may do what in it.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from flashsale import keys
from flashsale.files import write_private
from flashsale.model import Durability
from flashsale.stack import binaries, probe
from flashsale.stack.binaries import Binary
from flashsale.stack.port import Port, Socket
from flashsale.stack.process import CommandLine
from flashsale.stack.service import Account, Service
from flashsale.store_urls import read_redis_url


class RedisRole(StrEnum):
    """What a Redis is for, which decides what it may forget."""

    LEDGER = "ledger"
    CACHE = "cache"


_SELLS = (
    "resetchannels -@all +@read +@write +@connection +@transaction -@dangerous -@scripting "
    "-scan -randomkey +eval +evalsha +script|load +time +info"
)
"""What sells reads and writes its own keys, runs our scripts and asks which server it speaks to. It
empties no store, lists no keys of others, and neither reads nor changes a server's settings."""

_IN_CLUSTER = "+command +cluster|slots"
"""On a cluster they ask who has which slots, in addition; who counts, how the cluster is."""

_WORKS = f"{_SELLS} +config|get"
"""A worker tells whether the ledger keeps its policy, too."""

_COUNTS = (
    "resetkeys resetchannels -@all +@connection -@dangerous "
    "+info +config|get +slowlog|get +slowlog|len"
)


def account_rules(role: RedisRole, *, in_cluster: bool = False) -> Mapping[Account, str]:
    """What each account may do in a Redis of this role, in Redis' own words. Pure."""
    of_ledger = role is RedisRole.LEDGER
    replica = keys.REPLICA_LEDGER if of_ledger else keys.REPLICA_CACHE
    worker = keys.WORKER_LEDGER if of_ledger else keys.WORKER_CACHE
    more = f" {_patterns(keys.LANES)} {_IN_CLUSTER}" if in_cluster else ""
    return {
        Account.OWNER: "~* &* +@all",
        Account.REPLICA: f"resetkeys {_patterns(replica)} {_SELLS}{more}",
        Account.WORKER: f"resetkeys {_patterns(worker)} {_WORKS}{more}",
        Account.EXPORTER: f"{_COUNTS} +cluster|info" if in_cluster else _COUNTS,
    }


def account_line(name: str, password: str, rules: str) -> str:
    """An account in the words of an ACL file, which has no password but its digest. Pure."""
    return f"user {name} on #{hashlib.sha256(password.encode()).hexdigest()} {rules}"


def new_passwords() -> Mapping[Account, str]:
    """One for each account, of letters that a URL takes as they are."""
    return {account: secrets.token_urlsafe(24) for account in Account}


def _patterns(names: Sequence[str]) -> str:
    return " ".join(f"~{name}" for name in names)


_ACCOUNTS_FILE, _TRUSTED_FILE = "accounts.acl", "trusted.conf"
_NOBODY = "user default off resetpass ~* &* +@all"
"""Lets nobody in. But it is who Redis is while it loads its append-only file: what that user is not
allowed, EXEC among it, is left out there, and with it whatever a script has written."""
_BY_PORT = """\
bind {host}
port {port}
"""
_BY_SOCKET = """\
port 0
unixsocket {path}
unixsocketperm 600
"""

REPLICATION = {"repl-diskless-sync-delay": "0", "repl-backlog-size": "64mb"}
"""Of a ledger that has a replica: one that comes back is made whole at once, and by what it missed
alone where that is at hand."""

_IN_A_CLUSTER = """\
cluster-enabled yes
cluster-port {bus}
cluster-config-file nodes.conf
cluster-node-timeout {timeout_ms}
cluster-require-full-coverage no
cluster-replica-validity-factor 0
cluster-migration-barrier 1
"""
_TRUSTED = """\
masteruser {user}
masterauth {password}
"""
"""In a file of this user's: what stands in a command line, others can see."""

NODE_TIMEOUT_MS = 2_000
"""A master that nobody has heard of for so long is replaced by its replica."""

_SHARED = """\
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


@dataclass(frozen=True)
class ClusterPart:
    """What makes a server a node of a cluster: the port that nodes speak to one another by, and the
    passwords that all of them have in common."""

    bus: Port
    passwords: Mapping[Account, str]


class RedisServer(Service):
    """A private Redis in `directory`, with its role's policy.

    By a socket it lets in the accounts, each with a password, and `url` is the owner's; so it does
    on a port for those whose `passwords` are given, and as a node of a cluster. On any other port
    of loopback it is open to everybody on this machine. Data of the ledger survives a restart in
    the same directory.
    """

    def __init__(
        self,
        role: RedisRole,
        directory: Path,
        *,
        name: str = "",
        port: Port | None = None,
        socket: Socket | None = None,
        log: Path | None = None,
        memory_mb: int | None = None,
        binary: Binary | None = None,
        durability: Durability = Durability.ALWAYS,
        passwords: Mapping[Account, str] | None = None,
        cluster: ClusterPart | None = None,
    ) -> None:
        super().__init__(name or str(role), directory, place=socket or port, log=log)
        self.kind = f"redis-{role}"
        self.role = role
        self._memory_mb = memory_mb or DEFAULT_MEMORY_MB[role]
        self._binary = binary
        self._durability = durability
        self.cluster = cluster
        passwords = cluster.passwords if cluster else passwords
        self._is_open = socket is None and passwords is None
        self._passwords = passwords or new_passwords()

    @property
    def url(self) -> str:
        return self.url_for(Account.OWNER)

    def url_for(self, account: Account) -> str:
        """Where an account reaches it."""
        login = "" if self._is_open else f"{account}:{self._passwords[account]}@"
        if isinstance(self.place, Socket):
            return f"unix://{login}{quote(str(self.place.path))}?db=0"
        return f"redis://{login}{self.place.host}:{self.place.number}/0"

    def prepare(self) -> CommandLine:
        binary = self._binary or binaries.find(binaries.REDIS)
        policy = _ROLES[self.role].format(durability=self._durability.appendfsync)
        config = self._way_in() + _SHARED.format(memory_mb=self._memory_mb) + policy
        # As arguments, and run in its folder: Redis takes a path with * or [ for a pattern, finds
        # nothing, and would run on its defaults.
        arguments = [
            word
            for line in config.splitlines()
            if not line.startswith("#")
            for word in _argument(*line.split(" ", 1))
        ]
        if self.cluster:
            owner = _TRUSTED.format(user=Account.OWNER, password=self._passwords[Account.OWNER])
            trusted = write_private(self.directory / _TRUSTED_FILE, owner).name
            more = [word for line in REPLICATION.items() for word in _argument(*line)]
            arguments = [trusted, *arguments, *more]
        return CommandLine([binary.path, *arguments], binary.environment(), self.directory)

    def _way_in(self) -> str:
        if isinstance(self.place, Socket):
            way = _BY_SOCKET.format(path=self.place.path)
        else:
            way = _BY_PORT.format(host=self.place.host, port=self.place.number)
        if self._is_open:
            return way
        if self.cluster:
            bus = self.cluster.bus.number
            way += _IN_A_CLUSTER.format(bus=bus, timeout_ms=NODE_TIMEOUT_MS)
        accounts = write_private(self.directory / _ACCOUNTS_FILE, "\n".join(self._accounts()))
        return f"{way}aclfile {accounts}\n"

    def _accounts(self) -> list[str]:
        """Who is let in, a line each, and an empty one."""
        rules = account_rules(self.role, in_cluster=self.cluster is not None)
        own = [account_line(each, word, rules[each]) for each, word in self._passwords.items()]
        return [_NOBODY, *own, ""]

    def stop(self) -> None:
        super().stop()
        if self.cluster:
            self.cluster.bus.close()

    def is_ready(self, timeout_s: float) -> bool:
        return probe.redis_reply(read_redis_url(self.url), timeout_s) == "+PONG"

    def is_alive(self, timeout_s: float) -> bool:
        """A Redis that still loads its data answers with an error: alive, not ready."""
        return probe.redis_reply(read_redis_url(self.url), timeout_s) != ""


def _argument(name: str, value: str) -> tuple[str, str]:
    return f"--{name}", value.strip('"')
