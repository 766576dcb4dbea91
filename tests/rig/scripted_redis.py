"""A Redis at the other end of connections that a script decides about: a ledger, and its network.

Whatever comes over a connection has a fate, drawn from the seed: executed or not, sooner or later,
and its reply whole, late, in pieces, cut off, garbled or lost.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from hiredis import Reader

from rig.scripted_ledger import Ledger, Refusal, encoded
from rig.virtual_loop import VirtualLoop


class Fate(StrEnum):
    """What becomes of one write."""

    FINE = "is answered"
    SLOW = "is answered late"
    LATE = "is executed late"
    PIECES = "is answered in pieces"
    CUT = "is answered in part, then the connection is reset"
    UNSENT = "is lost with its connection"
    TORN = "is executed after its connection was reset"
    REPLY_LOST = "is executed, and its reply lost with its connection"
    SILENT = "is executed, and never answered"
    IGNORED = "is swallowed"
    GARBLED = "is executed, and its reply is no RESP"
    EXTRA = "is answered, and more follows that nobody asked for"
    REFUSED = "is refused, in part or as a whole"
    BROKEN = "is answered with an error that says nothing"
    FORGOTTEN = "finds its script forgotten"


class Greeting(StrEnum):
    """What becomes of who connects."""

    FINE = "is connected"
    SLOW = "is connected late"
    REFUSED = "is refused"
    SWALLOWED = "is never answered"
    SPOKEN_TO = "is spoken to by something else"


REFUSALS = (
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots, but it is not able to persist on disk",
    "BUSY Redis is busy running a script.",
    "CLUSTERDOWN The cluster is down",
    "MASTERDOWN Link with MASTER is down",
    "NOAUTH Authentication required.",
    "NOREPLICAS Not enough good replicas to write.",
)


class Link(asyncio.Transport):
    """The client's end of one connection."""

    def __init__(self, server: "ScriptedRedis", protocol: Any, number: int) -> None:
        super().__init__()
        self._server = server
        self._protocol = protocol
        self._is_closing = False
        self.number = number
        self.process = server.ledger.process
        self.reader = Reader(encoding="utf-8")
        self.free_s = 0.0  # what came earlier over it is done by then
        protocol.connection_made(self)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: Any) -> None:
        if not self._is_closing:
            self._server.receive(self, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def abort(self) -> None:
        if not self._is_closing:
            self._server.loop.call_soon(self._protocol.connection_lost, None)
            self._end("closes")

    def close(self) -> None:
        self.abort()

    def deliver(self, data: bytes) -> None:
        """Bytes of the server, if anybody is there yet."""
        if data and not self._is_closing:
            self._protocol.data_received(data)

    def lose(self) -> None:
        """The server, or what lies between, ends it."""
        if not self._is_closing:
            self._end("is reset")
            self._protocol.connection_lost(ConnectionResetError("reset by peer"))

    def pause_reading(self) -> None:
        """It never has so much to say."""

    def resume_reading(self) -> None:
        """It never has so much to say."""

    def _end(self, how: str) -> None:
        self._is_closing = True
        self._server.links.discard(self)
        self._server.note(f"connection {self.number} {how}")


class ScriptedRedis:
    """One ledger, and everything between it and its clients.

    `weights` are those of fates; `scale_s` is what takes long: the clients' time-out, say.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        ledger: Ledger,
        draw: random.Random,
        weights: Mapping[Fate, float],
        greetings: Mapping[Greeting, float],
        scale_s: float,
        note: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.ledger = ledger
        self.note = note
        self.links: set[Link] = set()
        self.sent: Counter[str] = Counter()  # by order id
        self.intact: Counter[str] = Counter()  # of these, how many had their reply
        self.claim_of: dict[str, set[str]] = {}  # order id: sessions that it was sent for
        self._draw = draw
        self._weights = weights
        self._greetings = greetings
        self._scale_s = scale_s
        self._down_until_s = 0.0
        self._frozen_until_s = 0.0
        self._connections = 0
        self.moment_s = 0.004
        """What takes no longer than it has to takes up to so long."""

    # What happens to the server -------------------------------------------------------------------

    @property
    def is_down(self) -> bool:
        """Whether nobody listens."""
        return self.loop.time() < self._down_until_s

    def restart(self, down_s: float, *, older: bool) -> None:
        """End the process and all its connections, and start another one."""
        self.note(f"the ledger is started anew, {'older' if older else 'as it was'}, {down_s:.3f}")
        self._down_until_s = self.loop.time() + down_s
        self.ledger.start(older=older)
        for link in sorted(self.links, key=lambda link: link.number):
            self.loop.call_later(self._draw.random() * 0.005, link.lose)

    def freeze(self, for_s: float) -> None:
        """Nothing is executed for so long."""
        self.note(f"the ledger stands still for {for_s:.3f}")
        self._frozen_until_s = self.loop.time() + for_s

    def heal(self) -> None:
        """From now on every write and every connection is fine."""
        self._weights, self._greetings = {Fate.FINE: 1.0}, {Greeting.FINE: 1.0}
        self._down_until_s = self._frozen_until_s = 0.0

    # What happens to who speaks to it -------------------------------------------------------------

    async def connect(self, factory: Callable[[], Any]) -> tuple[asyncio.Transport, Any]:
        """A connection, or not. Raises OSError."""
        greeting = self._drawn(self._greetings)
        self._connections += 1
        number = self._connections
        if greeting is not Greeting.FINE or self.is_down:
            self.note(f"connection {number} {'finds nobody' if self.is_down else greeting}")
        if greeting is Greeting.SWALLOWED:
            await asyncio.sleep(3600)
        await asyncio.sleep(self._soon(greeting is Greeting.SLOW))
        if greeting is Greeting.REFUSED or self.is_down:
            raise ConnectionRefusedError("connection refused")
        protocol = factory()
        link = Link(self, protocol, number)
        self.links.add(link)
        if greeting is Greeting.SPOKEN_TO:
            self.loop.call_later(self._draw.random() * 0.002, link.deliver, b"220 hello\r\n")
        return link, protocol

    def receive(self, link: Link, data: bytes) -> None:
        """Take one write, and draw what becomes of it."""
        link.reader.feed(data)
        commands: list[list[str]] = []
        while (command := link.reader.gets()) is not False:
            commands.append(command)
        fate = self._drawn(self._weights)
        if commands[0][0] == "CLIENT" and (fate is Fate.EXTRA or self._draw.random() < 0.7):
            # Who connects speaks thrice, and is soon in trouble; and what follows an answer that
            # nobody asked for could not be told from the answer to what is asked next.
            fate = Fate.FINE
        for command in commands:
            for session, order_id in claims_in(command):
                self.sent[order_id] += 1
                self.claim_of.setdefault(order_id, set()).add(session)
        names = " + ".join(_short(command) for command in commands)
        if fate is not Fate.FINE or any(map(claims_in, commands)):
            self.note(f"over {link.number}: {names} {fate}")
        if fate in (Fate.UNSENT, Fate.TORN):
            self.loop.call_later(self._soon(), link.lose)
        if fate not in (Fate.UNSENT, Fate.IGNORED):
            wait_s = self._soon(fate in (Fate.LATE, Fate.TORN))
            at_s = max(link.free_s + 1e-6, self.loop.time() + wait_s)
            link.free_s = at_s
            self.loop.call_at(at_s, self._execute, link, commands, fate)

    def _execute(self, link: Link, commands: Sequence[list[str]], fate: Fate) -> None:
        now_s = self.loop.time()
        if link.process != self.ledger.process or now_s < self._down_until_s:
            return  # it died with the process
        if now_s < self._frozen_until_s:
            self.loop.call_at(self._frozen_until_s, self._execute, link, commands, fate)
            return
        replies = [self._reply(command, fate) for command in commands]
        chunks = [encoded(reply) for reply in replies]
        ends = [sum(map(len, chunks[: n + 1])) for n in range(len(chunks))]
        known = [
            (end, command)
            for end, command, reply in zip(ends, commands, replies, strict=True)
            if not (isinstance(reply, Refusal) and str(reply).startswith("ERR"))
        ]
        self._deliver(link, b"".join(chunks), known, fate)

    def _reply(self, command: list[str], fate: Fate) -> Any:
        draw = self._draw.random()
        if fate is Fate.REFUSED and draw < 0.7:
            return Refusal(self._draw.choice(REFUSALS))
        if fate is Fate.FORGOTTEN and draw < 0.5:
            self.ledger.scripts.clear()
        broken = Refusal("ERR it may have happened") if fate is Fate.BROKEN else None
        if broken and draw < 0.5:
            return broken
        try:
            reply = self.ledger.answer(command)
        except Refusal as error:
            reply = error
        return broken or reply

    def _deliver(
        self, link: Link, data: bytes, known: Sequence[tuple[int, list[str]]], fate: Fate
    ) -> None:
        """Have the bytes arrive as the fate will have it."""
        if fate is Fate.SILENT:
            return
        cuts = [len(data)]
        if fate in (Fate.PIECES, Fate.CUT):
            cuts = sorted({self._draw.randrange(len(data) + 1) for _ in range(3)} | {len(data)})
        if fate is Fate.CUT:
            cuts.pop()
        if fate is Fate.REPLY_LOST:
            cuts = []
        begin, at_s = 0, max(link.free_s, self.loop.time())
        for cut in cuts:
            at_s += self._soon(fate in (Fate.SLOW, Fate.PIECES))
            piece = data[begin:cut]
            if fate is Fate.GARBLED:
                piece = b"what?\r\n" + piece
            if fate is Fate.EXTRA and cut == len(data):
                piece += b":1\r\n"
            whole = [command for end, command in known if begin < end <= cut]
            self.loop.call_at(at_s, self._arrive, link, piece, whole, fate is Fate.GARBLED)
            begin = cut
        if fate in (Fate.CUT, Fate.REPLY_LOST):
            at_s += self._soon()
            self.loop.call_at(at_s, link.lose)
        link.free_s = at_s

    def _arrive(self, link: Link, piece: bytes, whole: Sequence[list[str]], garbled: bool) -> None:
        if not link.is_closing() and not garbled:
            self.intact.update(order for command in whole for _, order in claims_in(command))
        link.deliver(piece)

    def _soon(self, is_long: bool = False) -> float:
        """How long something takes: a moment, or about as long as anybody waits."""
        draw = self._draw.random()
        return draw * 2.5 * self._scale_s if is_long else 0.0001 + draw * draw * self.moment_s

    def _drawn(self, weights: Mapping[Any, float]) -> Any:
        return self._draw.choices(list(weights), list(weights.values()))[0]


def claims_in(command: Sequence[str]) -> list[tuple[str, str]]:
    """Session and order id of every claim in a command."""
    if command[0] != "EVALSHA":
        return []
    count = int(command[2])
    names, args = command[3 : 3 + count], command[3 + count :]
    ids = args[2 : len(args) - 3 - (len(args) % 2 == 0)][1::2]
    return list(zip(names[5 : 5 + len(ids)], ids, strict=True))


def _short(command: Sequence[str]) -> str:
    """A command for a reader of the schedule."""
    claims = claims_in(command)
    if claims:
        told = ", ".join(f"{session}={order_id}" for session, order_id in claims)
        return f"sell({told})"
    return " ".join(command[:2])[:24].lower()
