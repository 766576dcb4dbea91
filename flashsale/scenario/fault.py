"""A fault that `rehearse` makes on purpose, on its own stack: the table `[[fault]]`, and every
`what` there is, with whom it can befall.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from flashsale.scenario.table import Table, shown, suggestion

STORES, SALE = ("ledger", "cache", "mysql"), ("replica", "worker")
ROLES = (*STORES, *SALE, "nginx")
"""What a process of a stack can be. `r1`, `r2`, … is one of the replicas, `c1`, … of the workers;
`replica` and `worker` are all of them. Of a ledger on a cluster `ledger-1`, `ledger-2`, … is one of
the nodes, and `ledger` the one that is the master of the first sale when it befalls it; behind
Sentinels `ledger` is the primary when it befalls it, and `ledger-2` the second node."""

LINKS = frozenset(
    {
        ("storm", "nginx"),
        ("nginx", "replica"),
        *((one, store) for one in SALE for store in STORES),
    }
)
"""Who speaks to whom."""

_ONE = re.compile(r"(r|c|ledger-)[1-9][0-9]?")
_ARROW = re.compile(r"\s*(?:->|→)\s*")
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|s|m)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_FOR_MAX_S = 600.0

Lasting = Literal["always", "may", "never"]


class LedgerForm(StrEnum):
    """What the ledger of a stack is: the flags of `serve` that make it so."""

    SERVER = ""
    PAIR = "--ha"
    CLUSTER = "--cluster"


_OF_NODES = (LedgerForm.PAIR, LedgerForm.CLUSTER)


@dataclass(frozen=True)
class Kind:
    """One `what`.

    `whom` are the roles that it can befall, none for a fault of a link. `lasts` says whether it
    has a `for`. `breaks` are rules of `verify` that the system does not promise to keep under it.
    One that `needs_compiler` is made by a library that is compiled where it is used. One of `data`
    befalls all of a ledger, on a cluster each node or lane of it. `forms` are those of a ledger
    that can have it.
    """

    meaning: str
    whom: tuple[str, ...] = ()
    lasts: Lasting = "always"
    options: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    needs_compiler: bool = False
    of_data: bool = False
    forms: tuple[LedgerForm, ...] = tuple(LedgerForm)

    @property
    def is_of_links(self) -> bool:
        """Whether it befalls a link, and no process."""
        return not self.whom


_FORGOTTEN = (
    *("accepted_persisted", "one_per_user", "duplicate_truthful", "sold_out_truthful"),
    *("no_undersell", "linearizable", "queue_empty"),
)
"""What is broken for those orders that a ledger has forgotten before a worker made rows of them. No
rebuild brings them back; it names them, and their users can buy again."""

KINDS: Mapping[str, Kind] = {
    # processes
    "kill": Kind("ended by SIGKILL; its supervisor starts it again", ROLES, "never"),
    "stop": Kind("stopped by SIGSTOP, and continued", ROLES),
    "restart": Kind("told to end; its supervisor starts it again", ROLES, "never"),
    "pause_past_lease": Kind(
        "stopped until its locks and its entries are others'", ("worker",), "never"
    ),
    "memory_limit": Kind("gets no more memory than it has", (*SALE, *STORES)),
    "power_cut": Kind(
        "killed, and what it had not fsynced is gone",
        ("ledger", "mysql"),
        "never",
        needs_compiler=True,
    ),
    "slow_fsync": Kind(
        "every fsync comes later", ("ledger", "mysql"), options=("latency_ms",), needs_compiler=True
    ),
    "failing_fsync": Kind("every fsync fails", ("ledger", "mysql"), needs_compiler=True),
    "disk_full": Kind("none of its files gets longer", ("ledger", "mysql"), needs_compiler=True),
    "clock": Kind(
        "its time of day is another",
        (*SALE, "ledger", "cache"),
        options=("shift_ms",),
        needs_compiler=True,
    ),
    "older_copy": Kind(
        "begun again from a copy made at the storm's beginning; rebuilt in the end",
        ("ledger",),
        "may",
        breaks=_FORGOTTEN,
        of_data=True,
    ),
    # nodes of a ledger
    "fail_over": Kind(
        "killed, and kept away until its replica has taken its place",
        ("ledger",),
        "never",
        forms=_OF_NODES,
    ),
    "cut_replica": Kind(
        "its replica hears no more of it, and is not let in again", ("ledger",), forms=_OF_NODES
    ),
    "isolate": Kind(
        "replica and Sentinels hear no more of it until another is primary; its clients still do",
        ("ledger",),
        "may",
        forms=(LedgerForm.PAIR,),
    ),
    # links
    "latency": Kind("every byte comes later", options=("latency_ms", "jitter_ms")),
    "bandwidth": Kind("no more bytes a second than that", options=("kb_per_s",)),
    "slice": Kind("bytes come a few at a time", options=("slice_bytes",)),
    "reset": Kind("connections are reset, also new ones while it lasts", lasts="may"),
    "refuse": Kind("connections are reset, and new ones refused"),
    "stall": Kind("nothing passes; what was sent comes when it is over"),
    "timeout": Kind("nothing passes; what was sent is lost, and its connections in the end"),
    "half_open": Kind("the server's end is gone, and the client is not told"),
    "lose_requests": Kind("what clients send is lost, and its connections in the end"),
    "lose_replies": Kind("what the server answers is lost, and its connections in the end"),
    "cut_reply": Kind("requests go through; their connection is reset in place of the reply"),
    # stores
    "kill_connections": Kind("the server closes every connection", STORES, "never"),
    "pause_clients": Kind("the server answers nobody (CLIENT PAUSE)", ("ledger", "cache")),
    "out_of_memory": Kind("the server takes no writes for want of memory", ("ledger", "cache")),
    "read_only": Kind("the server takes no writes: it says that it is a replica", STORES),
    "lock_rows": Kind("another transaction holds every sale's row", ("mysql",)),
    "drop_group": Kind(
        "the workers' consumer group is destroyed", ("ledger",), "never", of_data=True
    ),
    "wrong_type": Kind("the stream's key holds a text", ("ledger",), of_data=True),
    "flush": Kind(
        "every key is deleted; the ledger is rebuilt in the end",
        ("cache", "ledger"),
        "may",
        breaks=_FORGOTTEN,
        of_data=True,
    ),
    "trim": Kind(
        "the stream is emptied, also of what is unread; rebuilt in the end",
        ("ledger",),
        "may",
        of_data=True,
    ),
    "delete": Kind(
        "a key of every sale is deleted; rebuilt in the end",
        ("ledger",),
        "may",
        ("key",),
        of_data=True,
    ),
    "poison": Kind(
        "entries that are no orders come into the stream",
        ("ledger",),
        "never",
        breaks=("queue_empty",),
        of_data=True,
    ),
}


@dataclass(frozen=True)
class Whom:
    """A process of a stack, all of a role, or the link from one to another."""

    client: str
    server: str | None = None

    def __str__(self) -> str:
        return self.client if self.server is None else f"{self.client}->{self.server}"


class PlannedFault(Table):
    """What is done to whom, when, and for how long."""

    at: str = Field(description="when, after the storm's beginning, such as '2s'")
    for_: str | None = Field(
        default=None, alias="for", description="how long, such as '500ms'; then it is healed"
    )
    what: str = Field(description="what is done, such as 'kill'")
    whom: str = Field(description="to whom, such as 'ledger', 'r1', 'worker' or 'r1->ledger'")
    latency_ms: int = Field(
        default=200, ge=1, le=60_000, description="of 'latency' and 'slow_fsync'"
    )
    jitter_ms: int = Field(
        default=0, ge=0, le=60_000, description="of 'latency': up to this more, at random"
    )
    kb_per_s: int = Field(default=16, ge=1, le=1_000_000, description="of 'bandwidth'")
    slice_bytes: int = Field(default=7, ge=1, le=4_096, description="of 'slice'")
    shift_ms: int = Field(
        default=60_000, ge=-86_400_000, le=86_400_000, description="of 'clock': so much later"
    )
    key: Literal["stock", "order", "receipt", "sale"] = Field(
        default="receipt", description="of 'delete': which of a sale's keys"
    )

    def __str__(self) -> str:
        lasting = "" if self.for_ is None else f" for {self.for_}"
        return f"{self.what} of {self.place} at {self.at}{lasting}"

    @classmethod
    def made(cls, **keys: object) -> Self:
        """The fault that a file describes with these keys; those of None are left out."""
        return cls.model_validate({k: v for k, v in keys.items() if v is not None})

    @property
    def kind(self) -> Kind:
        """What is known of its `what`."""
        return KINDS[self.what]

    @property
    def at_s(self) -> float:
        """Its beginning, in seconds after the storm's."""
        return _seconds("at", self.at)

    @property
    def for_s(self) -> float:
        """How long it lasts; 0 for what happens in an instant."""
        return 0.0 if self.for_ is None else _seconds("for", self.for_)

    @property
    def place(self) -> Whom:
        """`whom`, read. Raises ValueError with one line."""
        client, *more = _ARROW.split(self.whom.strip())
        if len(more) > 1:
            raise ValueError(f"fault.whom: found {shown(self.whom)}, expected such as 'r1->ledger'")
        return Whom(client, more[0] if more else None)

    @property
    def expects(self) -> frozenset[str]:
        """Rules that are not promised under it: those of the ledger for faults of the ledger."""
        return frozenset(self.kind.breaks if self.is_of_ledger else ())

    @property
    def is_of_ledger(self) -> bool:
        """Whether it befalls the ledger, or a node of it, and no link."""
        place = self.place
        return place.server is None and role_of(place.client) == "ledger"

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if self.what not in KINDS:
            raise ValueError(
                f"fault.what: found {shown(self.what)}{suggestion(self.what, list(KINDS))}; "
                f"expected one of {', '.join(KINDS)}"
            )
        self._check_whom()
        self._check_time()
        given = {
            name
            for name in ("latency_ms", "jitter_ms", "kb_per_s", "slice_bytes", "shift_ms", "key")
            if name in self.model_fields_set
        }
        for name in sorted(given - set(self.kind.options)):
            raise ValueError(f"fault.{name}: this is not for {self.what!r}; leave it out")
        return self

    def _check_whom(self) -> None:
        place, kind = self.place, self.kind
        if place.server is None:
            if kind.is_of_links:
                raise ValueError(
                    f"fault.whom: found {shown(self.whom)}, expected a link for {self.what!r}, "
                    f"one of {_links()}"
                )
            if role_of(place.client) not in kind.whom:
                raise ValueError(
                    f"fault.whom: found {shown(self.whom)}, expected for {self.what!r} one of "
                    f"{_named(kind.whom)}"
                )
            if kind.of_data and place.client not in kind.whom:
                raise ValueError(
                    f"fault.whom: found {shown(self.whom)}; {self.what!r} befalls all of the "
                    "ledger: name 'ledger'"
                )
        elif not kind.is_of_links:
            raise ValueError(
                f"fault.whom: found {shown(self.whom)}, a link; {self.what!r} befalls one of "
                f"{_named(kind.whom)}"
            )
        elif (role_of(place.client), role_of(place.server)) not in LINKS:
            raise ValueError(f"fault.whom: found {shown(self.whom)}, expected one of {_links()}")

    def _check_time(self) -> None:
        if self.for_ is None and self.kind.lasts == "always":
            raise ValueError(f"fault.for: missing, expected how long {self.what!r} lasts: '2s'")
        if self.for_ is not None and self.kind.lasts == "never":
            raise ValueError(f"fault.for: {self.what!r} happens in an instant; leave it out")
        self.at_s  # noqa: B018 - raises where it cannot be read
        if self.for_ is not None and not 0 < self.for_s <= _FOR_MAX_S:
            raise ValueError(f"fault.for: found {self.for_!r}, expected more than 0s, at most 10m")


def role_of(name: str) -> str:
    """What a process of this name is; an unknown name is its own."""
    if name == "storm" or name in ROLES:
        return name
    match = _ONE.fullmatch(name)
    return name if match is None else _ROLE[match[1]]


def trouble_with(what: str, whom: str, form: LedgerForm) -> str:
    """Why a fault of this kind cannot befall `whom` where the ledger is of this form, and what to
    do; "" where it can. Pure."""
    kind = KINDS[what]
    if form not in kind.forms:
        flags = " or ".join(kind.forms)
        if form:
            return f"{what!r} is of a ledger behind Sentinels; use {flags} in place of {form}"
        return f"{what!r} is of a ledger whose nodes take over from one another; add {flags}"
    if form and what == "read_only" and role_of(whom) == "ledger":
        whose = "a cluster's nodes do not take" if form is LedgerForm.CLUSTER else "Sentinels undo"
        return (
            f"{what!r} makes a replica by REPLICAOF, which {whose}; 'out_of_memory' refuses "
            "writes, too"
        )
    return ""


_ROLE = {"r": "replica", "c": "worker", "ledger-": "ledger"}


@dataclass(frozen=True)
class Processes:
    """The processes of a stack: so many replicas and workers, and the `nodes` of its ledger where
    that is of several."""

    replicas: int
    workers: int
    nodes: tuple[str, ...] = ()
    form: LedgerForm = LedgerForm.SERVER

    def of(self, whom: str) -> tuple[str, ...]:
        """Those that `whom` can stand for: every one of its role, or the one of its name. Pure."""
        many = {
            "replica": tuple(f"r{n + 1}" for n in range(self.replicas)),
            "worker": tuple(f"c{n + 1}" for n in range(self.workers)),
            "ledger": self.nodes,
        }
        return many.get(whom) or (whom,)


def _seconds(field: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"fault.{field}: found {shown(text)}, expected such as '2s' or '500ms'")
    return float(match[1]) * _SECONDS[match[2]]


def _named(roles: tuple[str, ...]) -> str:
    ones = {"replica": "replica (or r1, r2, …)", "worker": "worker (or c1, c2, …)"}
    return ", ".join(ones.get(role, role) for role in roles)


def _links() -> str:
    return ", ".join(f"{client}->{server}" for client, server in sorted(LINKS))
