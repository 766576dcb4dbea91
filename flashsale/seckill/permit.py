"""Is the ledger behind MySQL? It sells only under a permit, and only a comparison writes one.

A Redis can come back older than it was: an old file, a snapshot, a flush, a failover. Both stores
bear an *epoch* (random, drawn when the first permit is written and at every rebuild), and every
commit of a worker raises in MySQL, in the transaction that writes the rows, how far it has seen the
ledger's stream and the counters of its order ids. A ledger that has another epoch, a stream that
ends earlier or a counter that is lower sells nothing until `flashsale rebuild` has restored it.

No clock decides. The permit names the server process (its run id) and stands in the ledger:

1. A restart makes a new run id and ends every connection. A connection carries claims only after
   it has asked for both (`CLAIM_OPENING`), so a permit out of an older file lets nothing through.
2. A flush takes the permit away, and the script that sells compares it with the claim's own.
3. A replay carries the permit that is in force by then, or is not sent. Under another than its
   order ids were leased for it asks for receipts, and sells nothing.
4. Whoever compares reads the run id first, MySQL second, the ledger last, and lets a script write
   (permit_grant.lua) that sees all of it again: nothing can come back in between.
5. Before a new permit MySQL is read behind a new *generation* (`supersede`): what workers were
   writing has ended, and counts; what they have read before and not begun to write is refused
   (`write` in orders/persistence.py) and read again, from the ledger as it is by then, over new
   connections: those of before may lead to a primary that is none any more.
6. Order ids are leased from a server that has the permit they are to be used under: one that stood
   still while another took over counts on, over connections of then, until it is told.

Behind Sentinels the server is whom they name, and MySQL keeps the *term* (`primaries.py`) of the
one that was permitted last. A promoted replica has a run id of its own, so it is compared like any
ledger that was started anew; an old primary that goes on by itself, out of the Sentinels' sight,
is of a lower term, which whoever compares it sees: it loses its permit.

What MySQL never learned of cannot be missed by a comparison with it: orders that a ledger loses
before a worker has written them are found by `flashsale verify`, from the storm's own record.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, NamedTuple, NoReturn, cast

import structlog
from redis import Redis
from sqlalchemy import Connection, Engine, select

from flashsale.errors import Indeterminate, Unavailable
from flashsale.failpoints import reach
from flashsale.keys import WHOLE, Lane
from flashsale.lua.scripts import Call, Word, script
from flashsale.primaries import Followed, NoPrimary
from flashsale.storage.channel import Opening
from flashsale.storage.mysql import transaction
from flashsale.storage.roles import Rejected, call, call_all, evaluate
from flashsale.storage.tables import stream_position
from flashsale.store_urls import lane_of

log = structlog.get_logger(__name__)

_GRANT = script("permit_grant")
_RUN_ID = re.compile(r"^run_id:([0-9a-f]+)", re.MULTILINE)
_SUPERSEDING_S = 2
"""How long workers may take to end what they write before a new permit has to wait for it."""
_REFUSED_S = 0.25
"""How long a refusal is repeated without asking again: claims may come thick. It opens nothing."""
_TRIES = 3

Position = tuple[int, int]
"""A place in the stream: milliseconds and sequence."""


class Behind(Unavailable):
    """The ledger is behind MySQL, or closed: it sells nothing, and nothing was done."""


class Reason(NamedTuple):
    """In what the ledger is behind: `what` is one of `WHATS`, `told` is for a reader."""

    what: str
    told: str


WHATS = ("epoch", "stream", "counter", "term")
"""In what a ledger can be behind as a whole; beside these, single sales can be lost."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What MySQL knows of the ledger. The epoch is "" before the first permit."""

    epoch: str = ""
    position: Position = (0, 0)
    counters: Mapping[str, int] = field(default_factory=dict)
    """By day, of those that were asked for."""
    term: int = 0
    """Of the ledger that was permitted last; 0 without Sentinels."""


@dataclass(frozen=True, slots=True)
class LedgerMarks:
    """The same of the ledger itself, and who it is."""

    run_id: str
    epoch: str
    last: Position
    counters: Mapping[str, int]
    permit: str = ""
    closed: str = ""
    term: int | None = None  # None without Sentinels

    @property
    def is_permitted(self) -> bool:
        """Whether the permit in it is of this server process."""
        return names(self.permit, self.run_id)


def names(permit: str, run_id: str) -> bool:
    """Whether a permit is of the server process with this run id. Pure."""
    return bool(run_id) and permit.startswith(f"{run_id}:")


def behind(mysql: Marks, ledger: LedgerMarks) -> list[Reason]:
    """In what the ledger is behind what MySQL knows. Pure."""
    reasons = []
    if mysql.epoch and ledger.epoch != mysql.epoch:
        found = f"epoch {ledger.epoch}" if ledger.epoch else "no epoch: it was emptied, or is new"
        reasons.append(Reason("epoch", f"the ledger has {found}; MySQL knows {mysql.epoch}"))
    if ledger.last < mysql.position:
        reasons.append(
            Reason(
                "stream",
                f"the ledger's orders end at {moment(ledger.last)}; MySQL has rows of orders up to "
                f"{moment(mysql.position)}",
            )
        )
    for day, number in mysql.counters.items():
        counted = ledger.counters.get(day, 0)
        if counted < number:
            told = f"the ledger counted {counted} order ids on {day}, MySQL {number}"
            reasons.append(Reason("counter", told))
    if ledger.term is not None and ledger.term < mysql.term:
        told = (
            f"the Sentinels name a ledger of term {ledger.term}; one of term {mysql.term} has sold "
            "since"
        )
        reasons.append(Reason("term", told))
    return reasons


def moment(position: Position) -> str:
    """When an entry was added, for a reader; its id where that is no time of this age. Pure."""
    ms, seq = position
    if not 0 < ms < 253_402_300_800_000:
        return f"{ms}-{seq}"
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def read_marks(connection: Connection, days: Sequence[str] = (), lane: Lane = WHOLE) -> Marks:
    """What MySQL knows of a lane, of the counters of these days."""
    names = [lane.stream_orders, lane.epoch, lane.permit, *map(lane.order_counter, days)]
    rows = connection.execute(select(stream_position).where(stream_position.c.stream.in_(names)))
    found = {row.stream: (int(row.last_ms), int(row.last_seq)) for row in rows}
    epoch = found.get(lane.epoch)
    return Marks(
        epoch_text(*epoch) if epoch else "",
        found.get(lane.stream_orders, (0, 0)),
        {day: found[name][0] for day in days if (name := lane.order_counter(day)) in found},
        found.get(lane.permit, (0, 0))[1],
    )


def epoch_text(high: int, low: int) -> str:
    """An epoch as the ledger has it; MySQL has it as two numbers, in the columns of a position."""
    return f"{high:016x}{low:016x}"


def draw_epoch() -> tuple[int, int]:
    """A new epoch."""
    return secrets.randbits(63), secrets.randbits(63)


def read_server(ledger: Redis) -> tuple[str, Sequence[str]]:
    """The ledger's run id, and its days: today by its clock, and those beside it.

    Raises Unavailable or Indeterminate.
    """
    pipeline = ledger.pipeline(transaction=False)
    pipeline.info("server")
    pipeline.time()
    server, (seconds, _) = call_all(pipeline)
    today = datetime.fromtimestamp(seconds, UTC)
    return str(server["run_id"]), [
        f"{today + timedelta(days=beside):%Y:%m:%d}" for beside in (-1, 0, 1)
    ]


def read_ledger(ledger: Redis, days: Sequence[str] = ()) -> LedgerMarks:
    """The ledger's own marks. Raises Unavailable or Indeterminate."""
    lane = lane_of(ledger)
    pipeline = ledger.pipeline(transaction=True)
    pipeline.info("server")
    pipeline.mget(lane.epoch, lane.permit, lane.closed, *map(lane.order_counter, days))
    server, (epoch, permit, closed, *counts) = call_all(pipeline)
    counters = {
        day: int(count) if str(count).isdigit() else 0
        for day, count in zip(days, counts, strict=True)
    }
    last = last_entry(ledger)
    run_id = str(server["run_id"])
    return LedgerMarks(run_id, epoch or "", last, counters, permit or "", closed or "")


def last_entry(ledger: Redis) -> Position:
    """Where the stream of orders ends: the last id that it ever gave. Raises Unavailable."""
    try:
        about = call(ledger.xinfo_stream, lane_of(ledger).stream_orders)
    except Rejected:  # there is no stream
        return 0, 0
    ms, _, seq = str(about["last-generated-id"]).partition("-")
    return int(ms), int(seq)


class BooksComparison:
    """The comparison of one ledger with one MySQL, and the permit that follows from it. On a
    cluster it is of one lane: each has an epoch, a stream, counters and a permit of its own.

    Every call may raise Unavailable or Indeterminate where a store does not answer.
    """

    def __init__(self, ledger: Redis, pool: Engine) -> None:
        self.ledger = ledger
        self.pool = pool
        self.lane = lane_of(ledger)
        self.compared = (Marks(), LedgerMarks("", "", (0, 0), {}))
        """What the last comparison was of."""
        self._followed = Followed(ledger)

    def __repr__(self) -> str:
        return f"<BooksComparison {self.pool.url!r}>"

    def compare(self, *, superseding: bool = False) -> tuple[Marks, LedgerMarks]:
        """Both stores' marks: who the ledger is, then MySQL's, then the ledger's. It is ahead of
        MySQL at every moment, so what is read of it last is behind only if it is. Nothing is
        written, but for a new generation where asked for: then no order that a worker has read
        until now becomes a row after MySQL was read. Raises Unavailable, too, where the ledger was
        started anew in between.
        """
        term = self._term()
        run_id, days = read_server(self.ledger)
        if superseding:
            self.supersede()
        with transaction(self.pool) as connection:
            mysql = read_marks(connection, days, self.lane)
        ledger = replace(read_ledger(self.ledger, days), term=term)
        if ledger.run_id != run_id:
            raise Unavailable("the ledger was started anew while it was compared")
        self.compared = mysql, ledger
        return self.compared

    def permit(self) -> str:
        """The permit in force; where there is none, a new one if the ledger is not behind.

        Raises Behind.
        """
        found = read_ledger(self.ledger)
        return found.permit if found.is_permitted else self.confirm()

    def confirm(self) -> str:
        """The permit, after comparing, whether there was one or not; one that a ledger which is
        behind has is taken away. Raises Behind."""
        why = ""
        for attempt in range(_TRIES + 1):
            mysql, ledger = self.compare(superseding=attempt > 0)
            reasons = behind(mysql, ledger)
            if reasons:
                if ledger.permit:
                    self.revoke()
                raise Behind(reasons[0].told)
            if ledger.closed:
                raise Behind(ledger.closed)
            if ledger.is_permitted and mysql.epoch:
                return ledger.permit
            if not attempt:
                reach("permit.superseding")
                continue  # one is to be written: look again, with nothing under way
            reach("permit.granting")
            granted, told = self._grant(mysql if mysql.epoch else self._adopted(mysql), ledger)
            if granted:
                reach("permit.granted")
                log.info("the ledger may sell", permit=told)
                return str(told)
            why = str(told)  # something moved: look again
        raise Behind(f"the ledger did not hold still while it was compared ({why})")

    def _term(self) -> int | None:
        try:
            return self._followed.term()
        except NoPrimary as nobody:
            raise Unavailable(str(nobody)) from nobody

    def supersede(self, wait_s: int = _SUPERSEDING_S, *, forced: bool = False) -> None:
        """Draw a new generation, once every worker's transaction of an older one has ended, with
        the ledger's term, if that is higher or `forced`. Raises Unavailable where a transaction
        lasts longer than `wait_s`."""
        term = self._term() or 0
        with transaction(self.pool) as connection:
            connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {wait_s:d}")
            try:
                generation = (self.lane.permit, secrets.randbits(62) + 1, term)
                taking = _TAKE_ITS_PLACE if forced else _TAKE_ITS_PLACE_AND_RISE
                connection.exec_driver_sql(_NEW_MARK + taking, generation)
            finally:
                connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = DEFAULT")

    def revoke(self, why: str = "") -> None:
        """Let nothing be sold any more, by anybody; until it is lifted, where `why` is given."""
        if why:
            call(self.ledger.set, self.lane.closed, why)
        call(self.ledger.delete, self.lane.permit)
        log.error("the ledger may not sell", why=why or "it is behind MySQL")

    def _adopted(self, mysql: Marks) -> Marks:
        """Marks with the epoch that the two stores share from now on; where the ledger has one and
        MySQL none, that: a database that knows of no orders cannot be missing any."""
        epoch = draw_epoch()
        call(self.ledger.set, self.lane.epoch, epoch_text(*epoch), nx=True)
        held = str(call(self.ledger.get, self.lane.epoch) or "")
        with transaction(self.pool) as connection:
            if re.fullmatch("[0-9a-f]{32}", held):
                epoch = int(held[:16], 16), int(held[16:], 16)
            set_epoch(connection, epoch, only_new=True, lane=self.lane)
            return replace(mysql, epoch=read_marks(connection, lane=self.lane).epoch)

    def _grant(self, mysql: Marks, ledger: LedgerMarks) -> Sequence[Any]:
        lane = self.lane
        names = [lane.permit, lane.epoch, lane.closed, lane.stream_orders]
        names += map(lane.order_counter, mysql.counters)
        words: list[Word] = [secrets.token_hex(8), ledger.run_id, mysql.epoch, *mysql.position]
        words += mysql.counters.values()
        return cast("Sequence[Any]", evaluate(self.ledger, Call(_GRANT, names, words)))


_NEW_MARK = (
    "INSERT INTO tb_stream_position (stream, last_ms, last_seq) VALUES (%s, %s, %s) "
    "ON DUPLICATE KEY UPDATE stream = stream"
)
_TAKE_ITS_PLACE = ", last_ms = VALUES(last_ms), last_seq = VALUES(last_seq)"
_TAKE_ITS_PLACE_AND_RISE = (
    ", last_ms = VALUES(last_ms), last_seq = GREATEST(last_seq, VALUES(last_seq))"
)


def set_epoch(
    connection: Connection,
    epoch: tuple[int, int],
    *,
    only_new: bool = False,
    lane: Lane = WHOLE,
) -> None:
    """Write MySQL's epoch; with `only_new`, where there is none yet."""
    statement = _NEW_MARK if only_new else _NEW_MARK + _TAKE_ITS_PLACE
    connection.exec_driver_sql(statement, (lane.epoch, *epoch))


class Permits:
    """The permit as one replica knows it. `current` is "" while there is none."""

    def __init__(self, books: BooksComparison, *, interval_s: float = 1.0) -> None:
        self._books = books
        self._interval_s = interval_s
        self._asking: asyncio.Task[str] | None = None
        self._refused_until_s = 0.0
        self.current = ""
        self.why = ""  # there is none

    def __repr__(self) -> str:
        return f"<Permits current={self.current!r} why={self.why!r}>"

    async def obtain(self, timeout_s: float) -> str:
        """The permit, asked for once however many wait for it. Raises Behind where the stores were
        compared, or could not be; Unavailable where that takes longer than one may wait."""
        if monotonic() < self._refused_until_s:
            raise Behind(self.why)
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask(self._books.permit))
            self._asking.add_done_callback(_heard)
        try:
            return await asyncio.wait_for(asyncio.shield(self._asking), timeout_s)
        except TimeoutError:
            raise Unavailable("the comparison of the stores takes too long") from None

    def drop(self, permit: str) -> None:
        """`permit` is not in force any more."""
        if self.current == permit:
            self.current = ""

    async def keep(self) -> NoReturn:
        """Compare the books for as long as the replica lives."""
        while True:
            await asyncio.sleep(self._interval_s)
            with suppress(Unavailable):
                await self._ask(self._books.confirm)

    async def _ask(self, question: Callable[[], str]) -> str:
        try:
            self.current = await asyncio.to_thread(question)
            self.why = ""
        except Behind as reason:
            self._refuse(str(reason))
            raise
        except (Unavailable, Indeterminate) as trouble:
            if not self.current:
                self._refuse(f"the stores could not be compared: {trouble}")
            raise Behind(self.why or str(trouble)) from trouble
        finally:
            self._asking = None
        return self.current

    def _refuse(self, why: str) -> None:
        if why != self.why:
            log.error("nothing is sold", why=why)
        self.current, self.why = "", why
        self._refused_until_s = monotonic() + _REFUSED_S


def _heard(asking: asyncio.Task[str]) -> None:
    """Nobody may be left to hear what became of it."""
    if not asking.cancelled():
        asking.exception()


def check_opening(replies: Sequence[Any]) -> None:
    """Raises Behind unless a connection leads to a server process that has a permit of its own:
    it may be one that came back older, with a permit out of an older file."""
    server, permit = replies
    found = _RUN_ID.search(server if isinstance(server, str) else "")
    if found is None or not isinstance(permit, str) or not names(permit, found[1]):
        raise Behind("the ledger was started anew, and has not been compared with MySQL")


def claim_opening(lane: Lane) -> Opening:
    """What a connection asks before it carries claims on a lane's sales. Pure."""
    return Opening((("INFO", "server"), ("GET", lane.permit)), check_opening)


CLAIM_OPENING = claim_opening(WHOLE)
