"""A ledger in plain Python that speaks RESP: what a claim needs of a Redis, and who it is.

`Ledger` is what the server keeps; `answer` executes one command. Beside it stands what the server
does not know: all that was ever executed, and what MySQL has seen (`rows`).
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flashsale import keys
from flashsale.lua.scripts import BEHIND, NO_SESSION, REFUSED, script

SECKILL = script("seckill")


class Refusal(Exception):  # noqa: N818 - a reply, not a bug
    """An error reply."""


@dataclass
class Sale:
    """One voucher on sale."""

    left: int
    state: str = "open"
    receipts: dict[str, str] = field(default_factory=dict)
    digests: dict[str, tuple[str, str]] = field(default_factory=dict)

    def refusal(self, is_late: bool) -> int | None:
        """The code for whoever has no receipt; None where he may buy."""
        if is_late:
            return 7
        if self.state != "open":
            return {"paused": 6, "closed": 4}[self.state]
        return None if self.left else 1


class Order(NamedTuple):
    """An entry of the stream."""

    user: str
    voucher: str
    order_id: str


@dataclass
class Kept:
    """What survives a restart, if it is in the file."""

    sales: dict[str, Sale] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    stream: list[Order] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    permit: str = ""


class Execution(NamedTuple):
    """An order that came to be, for the claim with this session."""

    order: Order
    session: str
    at_s: float


class Ledger:
    """One server process after the other, with one memory."""

    def __init__(self, now_s: Callable[[], float], draw: random.Random) -> None:
        self._now_s = now_s
        self._draw = draw
        self.kept = Kept()
        self.snapshot = Kept()
        self.rows: dict[str, Order] = {}  # in MySQL, by id
        self.seen = 0  # entries of the stream that MySQL has seen
        self.counted: dict[str, int] = {}
        self.executed: list[Execution] = []
        self.violations: list[str] = []
        self.process = 0
        self.scripts: set[str] = set()
        self.start()

    # Its lives ------------------------------------------------------------------------------------

    def start(self, *, older: bool = False) -> None:
        """Another process: another run id, no scripts, and what the file has."""
        self.process += 1
        self.run_id = f"{self._draw.getrandbits(160):040x}"
        self.scripts = set()
        if older:
            self.kept = copy.deepcopy(self.snapshot)

    def save(self) -> None:
        """What a file out of this instant would have."""
        self.snapshot = copy.deepcopy(self.kept)

    def work(self) -> None:
        """A worker writes all that the stream has."""
        if not self.behind:
            self.rows |= {order.order_id: order for order in self.kept.stream}
            self.seen, self.counted = len(self.kept.stream), dict(self.kept.counters)

    @property
    def behind(self) -> str:
        """In what it is behind what MySQL has seen."""
        if len(self.kept.stream) < self.seen:
            return "stream"
        short = [day for day, n in self.counted.items() if self.kept.counters.get(day, 0) < n]
        return "counter" if short else ""

    def rebuild(self) -> None:
        """All that MySQL has seen, in the ledger again; whoever has a permit has none now."""
        kept = self.kept
        for order in self.rows.values():
            sale = kept.sales[order.voucher]
            if order.user not in sale.receipts:
                sale.receipts[order.user] = order.order_id
                sale.left -= 1
        known = {order.order_id for order in kept.stream}
        kept.stream += [order for order in self.rows.values() if order.order_id not in known]
        for day, count in self.counted.items():
            kept.counters[day] = max(count, kept.counters.get(day, 0))
        kept.permit = ""

    def grant(self) -> str:
        """The permit that a comparison at this instant ends in; "" where it is behind."""
        if self.behind:
            self.kept.permit = ""
            return ""
        if not self.kept.permit.startswith(f"{self.run_id}:"):
            self.kept.permit = f"{self.run_id}:{self._draw.getrandbits(64):016x}"
        return self.kept.permit

    # Its commands ---------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Unix milliseconds by the server's clock."""
        return int(self._now_s() * 1000)

    def stands(self, one: Execution) -> bool:
        """Whether either store has it, or a ledger that came back older has forgotten it."""
        order = one.order
        is_receipt = self.kept.sales[order.voucher].receipts.get(order.user) == order.order_id
        is_there = is_receipt or self.rows.get(order.order_id) == order
        return is_there and one is [each for each in self.executed if each.order == order][-1]

    def answer(self, words: Sequence[str]) -> Any:
        """The reply to one command, executed now. Raises Refusal."""
        kept = self.kept
        match [words[0].upper(), *words[1:]]:
            case ["CLIENT", *_]:
                return "OK"
            case ["INFO", "server"]:
                return f"# Server\r\nrun_id:{self.run_id}\r\n"
            case ["GET", keys.PERMIT]:
                return kept.permit or None
            case ["TIME"]:
                seconds, micros = divmod(int(self._now_s() * 1e6), 1_000_000)
                return [str(seconds), str(micros)]
            case ["INCRBY", key, count]:
                kept.counters[key] = kept.counters.get(key, 0) + int(count)
                return kept.counters[key]
            case ["SCRIPT", "LOAD", text]:
                assert text == SECKILL.text
                self.scripts.add(SECKILL.sha)
                return SECKILL.sha
            case ["EVALSHA", sha, count, *rest]:
                if sha not in self.scripts:
                    raise Refusal("NOSCRIPT No matching script. Please use EVAL.")
                return self._sell(rest[: int(count)], rest[int(count) :])
        raise AssertionError(f"nobody taught this ledger {words}")

    def _sell(self, names: Sequence[str], args: Sequence[str]) -> list[Any]:
        """seckill.lua, for claims by session."""
        by_permit = len(args) % 2 == 0
        pairs = args[2 : len(args) - 3 - by_permit]
        ids, digests = pairs[1::2], pairs[::2]
        if by_permit and self.kept.permit != args[-1]:
            return [BEHIND, "permit"] * len(ids)
        sessions = names[5 : 5 + len(ids)]
        if len(names) != 5 + len(ids) + any(digests) + by_permit:
            raise Refusal(f"{REFUSED} keys and pairs do not agree")
        sale, is_late = self.kept.sales.get(args[0]), self.now_ms() > int(args[1])
        replies: list[Any] = []
        for name, order_id, digest in zip(sessions, ids, digests, strict=True):
            user = self.kept.sessions.get(name)
            if user is None:
                replies += [NO_SESSION, ""]
            elif sale is None:
                replies += [5, ""]
            else:
                order = Order(user, args[0], order_id)
                replies += self._one(sale, order, name, digest, is_late)
        return replies

    def _one(self, sale: Sale, order: Order, session: str, digest: str, is_late: bool) -> list[Any]:
        won_with, won = sale.digests.get(order.user, ("", ""))
        if digest and digest == won_with:
            return [0, won]
        if held := sale.receipts.get(order.user):
            return [2, held]
        code = sale.refusal(is_late)
        if code is not None:
            return [code, ""]
        if self.behind:
            self.violations.append(f"{order} was sold by a ledger that is behind: {self.behind}")
        sale.left -= 1
        sale.receipts[order.user] = order.order_id
        if digest:
            sale.digests[order.user] = digest, order.order_id
        self.kept.stream.append(order)
        self.executed.append(Execution(order, session, self._now_s()))
        return [0, order.order_id]


def encoded(reply: Any) -> bytes:
    """A reply as RESP2."""
    if isinstance(reply, Refusal):
        return f"-{reply}\r\n".encode()
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, list):
        return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))
    data = str(reply).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)
