"""A private ledger that outlives its server: a primary, a replica of it, and three Sentinels that
make the replica the primary where the other is gone.

All of them listen on loopback and let in accounts by password: Sentinels know no Unix sockets.
Which of the two is the primary is the Sentinels' word, while they run and from one run of the
stack to the next: their own files say whom they followed last, and of what term.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from flashsale.errors import UnreachableError
from flashsale.files import private_folder, write_private
from flashsale.model import Durability
from flashsale.primaries import NoPrimary, Sentinels
from flashsale.stack import binaries, probe
from flashsale.stack.port import LOOPBACK, Port
from flashsale.stack.process import CommandLine
from flashsale.stack.redis import REPLICATION, RedisRole, RedisServer, account_line, new_passwords
from flashsale.stack.service import Account, Service
from flashsale.stack.settings import StackSettings
from flashsale.storage.roles import sync_client
from flashsale.store_urls import StoreUrl, read_redis_url

NODES = ("ledger", "ledger-2")
"""Their names, which are their folders', too."""
_NAME = "ledger"
"""What the Sentinels call the primary."""
_SENTINELS, _QUORUM = 3, 2

LINK, WATCH, _ASK = "link", "sentinel", "reader"
_NODE_ACCOUNTS = {
    LINK: "resetkeys resetchannels -@all +psync +replconf +ping",
    WATCH: (
        "resetkeys allchannels -@all +multi +slaveof +replicaof +ping +exec +subscribe +publish "
        "+config|rewrite +role +info +client|setname +client|kill +script|kill"
    ),
}
"""Who comes to a node beside those who come to any ledger: its replica, and the Sentinels."""
_SENTINEL_ACCOUNT = (
    "resetkeys resetchannels -@all +ping +info +auth +hello "
    "+sentinel|masters +sentinel|master +sentinel|sentinels +sentinel|ckquorum"
)
"""Who may ask a Sentinel, and change nothing."""

_LINK_FILE, _CONF, _PORTS = "link.conf", "sentinel.conf", "nodes.json"
_SAFE = {"min-replicas-to-write": "1", "min-replicas-max-lag": "10"}
_DECISION_S = 15.0
"""How long a primary that died waits for the Sentinels' word before it is one again."""
_POLL_S = 0.05


class LedgerNode(RedisServer):
    """One of the two. It asks at each start whose replica it is to be."""

    def __init__(
        self, pair: "LedgerPair", name: str, directory: Path, *, log: Path, settings: StackSettings
    ) -> None:
        super().__init__(
            RedisRole.LEDGER,
            directory,
            port=_own_port(),
            log=log,
            memory_mb=settings.ledger_memory_mb,
            durability=settings.durability,
            name=name,
            passwords=pair.passwords,
        )
        self._pair = pair
        self._options = REPLICATION | (
            _SAFE if settings.durability is Durability.REPLICATED else {}
        )

    def prepare(self) -> CommandLine:
        command = super().prepare()
        lines = [f"masteruser {LINK}", f"masterauth {self._pair.words[LINK]}"]
        primary = self._pair.primary_port(self)
        if primary != self.port.number:
            lines.append(f"replicaof {LOOPBACK} {primary}")
        write_private(self.directory / _LINK_FILE, "\n".join([*lines, ""]))
        options = [word for name, value in self._options.items() for word in (f"--{name}", value)]
        told = [*command.arguments, *options, "--include", _LINK_FILE]
        return replace(command, arguments=told)

    def _accounts(self) -> list[str]:
        more = [
            account_line(name, self._pair.words[name], rules)
            for name, rules in _NODE_ACCOUNTS.items()
        ]
        return [*super()._accounts()[:-1], *more, ""]


class Sentinel(Service):
    """One of the three."""

    kind = "sentinel"

    def __init__(self, pair: "LedgerPair", number: int, directory: Path, *, log: Path) -> None:
        super().__init__(f"sentinel-{number}", directory, place=_own_port(), log=log)
        self.id = secrets.token_hex(20)
        self._pair = pair
        self._is_written = False  # from then on the file is the Sentinel's own

    @property
    def url(self) -> str:
        return f"redis://{_ASK}:{self._pair.words[_ASK]}@{LOOPBACK}:{self.port.number}/0"

    def prepare(self) -> CommandLine:
        if set("*?[") & set(str(self.directory)):
            raise UnreachableError(
                f"{self.name} cannot be started in {self.directory}: Redis takes a path with *, ? "
                "or [ for a pattern; choose another --state-dir"
            )
        if not self._is_written:
            private_folder(self.directory)
            write_private(self.directory / _CONF, self._pair.conf_of(self))
            self._is_written = True
        binary = binaries.find(binaries.REDIS)
        return CommandLine([binary.path, _CONF, "--sentinel"], binary.environment(), self.directory)

    def is_ready(self, timeout_s: float) -> bool:
        return probe.redis_reply(read_redis_url(self.url), timeout_s) == "+PONG"


class LedgerPair:
    """The five services of one ledger, to be brought up nodes first."""

    def __init__(
        self, state_dir: Path, settings: StackSettings, log: Callable[[str], Path]
    ) -> None:
        self._folder = state_dir / "sentinels"
        self._settings = settings
        self.passwords = new_passwords()
        self.words = {each: secrets.token_urlsafe(24) for each in (LINK, WATCH, _ASK, "")}
        first, self._term = last_known(state_dir)
        self.nodes = [
            LedgerNode(self, name, state_dir / name, log=log(name), settings=settings)
            for name in NODES
        ]
        self.sentinels = [
            Sentinel(self, number, self._folder / str(number), log=log(f"sentinel-{number}"))
            for number in range(1, _SENTINELS + 1)
        ]
        self._primary_port: int = next(n.port.number for n in self.nodes if n.name == first)
        self._undecided_since_s: float | None = None

    def __repr__(self) -> str:
        return f"<LedgerPair {self._folder} term={self._term}>"

    def url_for(self, account: Account) -> str:
        """Where an account reaches the primary."""
        places = ",".join(f"{LOOPBACK}:{each.port.number}" for each in self.sentinels)
        login = f"{account}:{self.passwords[account]}"
        asking = f"sentinel_user={_ASK}&sentinel_password={self.words[_ASK]}"
        return f"redis+sentinel://{login}@{places}/{_NAME}/0?{asking}"

    def primary_port(self, node: LedgerNode) -> int:
        """The primary's port, for a node that is about to be started: the Sentinels' word, or the
        last that they gave. Raises UnreachableError while they decide, for _DECISION_S at most:
        the node would be a second primary until they told it."""
        sentinels = Sentinels(read_redis_url(self.url_for(Account.OWNER)))
        try:
            self._primary_port = sentinels.ask().port
        except NoPrimary:
            now_s = time.monotonic()
            since_s = self._undecided_since_s = self._undecided_since_s or now_s
            is_theirs = any(each.serves() for each in self.sentinels)
            was_primary = node.port.number == self._primary_port
            if is_theirs and was_primary and now_s - since_s < _DECISION_S:
                raise UnreachableError("its Sentinels look for another primary") from None
        else:
            self._undecided_since_s = None
        return self._primary_port

    def await_link(self) -> None:
        """Wait until the replica has all that the primary has; then remember who is where, for the
        next run. Raises UnreachableError."""
        private_folder(self._folder)
        ports = {node.name: node.port.number for node in self.nodes}
        write_private(self._folder / _PORTS, json.dumps(ports))
        deadline_s = time.monotonic() + self._settings.start_timeout_s
        replica = next(n for n in self.nodes if n.port.number != self._primary_port)
        with sync_client(replica.url) as client:
            while not _is_linked(client):
                if time.monotonic() > deadline_s:
                    raise UnreachableError(
                        f"{replica.name} does not reach its primary; see {replica.log}"
                    )
                time.sleep(_POLL_S)

    def conf_of(self, sentinel: Sentinel) -> str:
        """What one Sentinel begins with: it knows the others and the replica already."""
        down_ms = self._settings.ha_down_after_ms
        replicas = [n.port.number for n in self.nodes if n.port.number != self._primary_port]
        others = [each for each in self.sentinels if each is not sentinel]
        lines = [
            f"bind {LOOPBACK}",
            f"port {sentinel.port.number}",
            "daemonize no",
            'logfile ""',
            f"requirepass {self.words['']}",
            account_line(_ASK, self.words[_ASK], _SENTINEL_ACCOUNT),
            f"sentinel myid {sentinel.id}",
            f"sentinel monitor {_NAME} {LOOPBACK} {self._primary_port} {_QUORUM}",
            f"sentinel auth-user {_NAME} {WATCH}",
            f"sentinel auth-pass {_NAME} {self.words[WATCH]}",
            f"sentinel down-after-milliseconds {_NAME} {down_ms}",
            f"sentinel failover-timeout {_NAME} {max(10_000, 5 * down_ms)}",
            f"sentinel config-epoch {_NAME} {self._term}",
            f"sentinel leader-epoch {_NAME} {self._term}",
            f"sentinel current-epoch {self._term}",
            *(f"sentinel known-replica {_NAME} {LOOPBACK} {port}" for port in replicas),
            *(
                f"sentinel known-sentinel {_NAME} {LOOPBACK} {each.port.number} {each.id}"
                for each in others
            ),
        ]
        return "\n".join([*lines, ""])


def last_known(state_dir: Path) -> tuple[str, int]:
    """The node that was the primary last, and its term, as the Sentinels of the last run wrote it;
    the first one where there was none."""
    folder = state_dir / "sentinels"
    texts = []
    for number in range(1, _SENTINELS + 1):
        with suppress(OSError):
            texts.append((folder / str(number) / _CONF).read_text(encoding="utf-8"))
    ports: Mapping[str, int] = {}
    with suppress(OSError, ValueError):
        ports = json.loads((folder / _PORTS).read_text(encoding="utf-8"))
    return followed_last(texts, ports)


def followed_last(confs: Iterable[str], ports: Mapping[str, int]) -> tuple[str, int]:
    """What files of Sentinels say of the primary's name, by its port, and its term. Pure."""
    found = (0, NODES[0])
    names: Mapping[int, str] = {port: name for name, port in ports.items() if name in NODES}
    for conf in confs:
        watched, term = _MONITOR.search(conf), _TERM.search(conf)
        if watched and term:
            name = names.get(int(watched[1]), NODES[0])
            found = max(found, (int(term[1]), name), key=lambda each: each[0])
    return found[1], found[0]


_MONITOR = re.compile(rf"^sentinel monitor {_NAME} \S+ (\d+) ", re.MULTILINE)
_TERM = re.compile(rf"^sentinel config-epoch {_NAME} (\d+)", re.MULTILINE)


def is_whole(place: StoreUrl, nodes: Sequence[str]) -> bool:
    """Whether all Sentinels that `place` names have the same of the `nodes`, by their URLs, as the
    primary, it is one, and each of the others has all that it has. Raises redis' errors."""
    named = {Sentinels(replace(place, sentinels=(each,))).ask() for each in place.sentinels}
    if len(named) != 1:
        return False
    (primary,) = named
    for url in nodes:
        with sync_client(url) as node:
            is_primary = read_redis_url(url).port == primary.port
            if is_primary != (node.info("replication")["role"] == "master"):
                return False
            if not (is_primary or _is_linked(node)):
                return False
    return True


def _is_linked(replica: Redis) -> bool:
    with suppress(RedisError):
        about: Mapping[str, object] = replica.info("replication")
        return about.get("master_link_status") == "up"
    return False


def _own_port() -> Port:
    """A port that stays the same for as long as the stack runs: others are told of it."""
    port = Port.free()
    port.fixed = True
    return port
