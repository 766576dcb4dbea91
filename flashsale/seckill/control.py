"""Changing a sale while it runs: opened, paused, resumed, closed, restocked.

A sale's state and units are data in the ledger, in the hash that every claim reads, so a change is
true for all replicas at once. Each is made in three steps, one sale one change at a time:

1. MySQL: a line in the journal, under the lock of the sale's row; units that come, with it.
2. the ledger: `sale_change.lua`, which makes the change of a line once, however often it is asked.
3. MySQL: the line that ends it; units that go, with it.

Units that come are in MySQL's books first, units that go leave the ledger first: between the steps
the ledger never has more to sell than MySQL has to give. A change that was cut short is finished
by the next command on the sale or by any worker's sweeper, whichever comes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from redis import Redis
from sqlalchemy import Connection, Engine, select, update

from flashsale.errors import (
    Indeterminate,
    Unavailable,
    UnreachableError,
    UsageError,
    ViolationError,
)
from flashsale.failpoints import reach
from flashsale.keys import WHOLE, Lane
from flashsale.lua.scripts import Call, script
from flashsale.model import parse_id
from flashsale.seckill import journal
from flashsale.seckill.journal import Action, ChangeStep, Line
from flashsale.seckill.sale import CLOSED, OPEN, PAUSED, load_sale, read_terms
from flashsale.storage.mysql import Duplicate, transaction
from flashsale.storage.roles import Ledgers, Rejected, call, call_each, evaluate, ledgers
from flashsale.storage.tables import seckill_voucher
from flashsale.store_urls import lane_of

log = structlog.get_logger(__name__)

UNITS_MAX = 2**31 - 1
"""What the column of a sale's units holds."""

_CHANGE = script("sale_change")
_CHANGED, _REFUSED, _LATER, _NOT_LOADED = 1, 0, 2, -1  # what it replies
_AT_ONCE = 100

_FROM: Mapping[Action, tuple[str, ...]] = {
    Action.OPEN: (CLOSED,),
    Action.PAUSE: (OPEN,),
    Action.RESUME: (PAUSED,),
    Action.CLOSE: (OPEN, PAUSED),
}
_TO = {
    Action.OPEN: OPEN,
    Action.PAUSE: PAUSED,
    Action.RESUME: OPEN,
    Action.CLOSE: CLOSED,
}
_INSTEAD = {
    (Action.OPEN, PAUSED): "`flashsale sale resume`",
    (Action.RESUME, CLOSED): "`flashsale sale open`",
    (Action.PAUSE, CLOSED): "`flashsale sale open`",
}
_sale = seckill_voucher.c


@dataclass(frozen=True, slots=True)
class LedgerUnits:
    """One sale in the ledger at one moment: None where the ledger does not say."""

    voucher_id: int
    state: str | None = None
    offered: int | None = None
    left: int | None = None
    held: int = 0
    begin_ms: int | None = None
    end_ms: int | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether claims find a sale."""
        return self.state is not None and self.left is not None

    @property
    def imbalance(self) -> str:
        """What does not add up, "" where all does, or where there is no sale."""
        if self.offered is None or self.left is None or self.left + self.held == self.offered:
            return ""
        return f"{self.left:,} left + {self.held:,} held = {self.left + self.held:,}, but " + (
            f"{self.offered:,} offered"
        )


def read_units(ledger: Redis | Ledgers, vouchers: Sequence[int]) -> list[LedgerUnits]:
    """The sales of these vouchers, each as of one moment; a key of another type tells nothing.
    Raises Unavailable or Indeterminate."""
    every = ledgers(ledger)
    found = {
        units.voucher_id: units
        for client, lane in zip(every.clients, every.layout.lanes, strict=True)
        for units in _units_in(client, [each for each in vouchers if lane.sells(each)])
    }
    return [found[voucher] for voucher in vouchers]


def _units_in(ledger: Redis, vouchers: Sequence[int]) -> list[LedgerUnits]:
    lane = lane_of(ledger)
    found: list[LedgerUnits] = []
    for start in range(0, len(vouchers), _AT_ONCE):
        some = vouchers[start : start + _AT_ONCE]
        pipeline = ledger.pipeline(transaction=True)
        for voucher in some:
            pipeline.hmget(lane.seckill_sale(voucher), "state", "initial", "begin", "end")
            pipeline.get(lane.seckill_stock(voucher))
            pipeline.scard(lane.seckill_order(voucher))
        known = (None if isinstance(r, Rejected) else r for r in call_each(pipeline))
        for voucher, sale, left, held in zip(some, known, known, known, strict=True):
            state, *numbers = sale or [None] * 4
            offered, begin_ms, end_ms, stock = (_whole(text) for text in (*numbers, left))
            found.append(LedgerUnits(voucher, state, offered, stock, held or 0, begin_ms, end_ms))
    return found


def loaded_sales(ledger: Redis | Ledgers) -> list[int]:
    """The vouchers of all sales in the ledger. Raises Unavailable or Indeterminate."""
    every = ledgers(ledger)
    listed = [
        name
        for client, lane in zip(every.clients, every.layout.lanes, strict=True)
        for name in call(client.smembers, lane.loaded_sales)
    ]
    return sorted(voucher_id for name in listed if (voucher_id := parse_id(str(name))))


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of a request. `line` is None where the sale was so before."""

    voucher_id: int
    was: str
    becomes: str
    line: int | None = None


class UnfinishedError(UnreachableError):
    """A change is in the journal and not known to be finished."""

    def __init__(self, line: Line, trouble: object) -> None:
        super().__init__(
            f"{line.action} of voucher {line.voucher_id} is line {line.number} of the journal and "
            f"not finished ({trouble}); a worker or the next command on this sale finishes it: "
            f"do not repeat it, look with `flashsale sale show {line.voucher_id}`"
        )


class SaleControl:
    """Changes sales, in the name of `actor`.

    Calls raise UsageError for what cannot be asked of this sale, ViolationError where it would
    break the books, UnfinishedError for trouble with a store halfway, Unavailable or Indeterminate
    for trouble before.
    """

    def __init__(self, pool: Engine, ledger: Redis | Ledgers, actor: str) -> None:
        self._pool = pool
        self._ledger = ledgers(ledger)
        self._actor = actor

    def __repr__(self) -> str:
        return f"<SaleControl actor={self._actor!r}>"

    def open(self, voucher_id: int, reason: str = "") -> Changed:
        """Put a sale on sale that was closed, or that the ledger does not have yet."""
        if not self._look(voucher_id).is_loaded:
            self._load_closed(voucher_id)
        return self._change(Action.OPEN, voucher_id, reason)

    def pause(self, voucher_id: int, reason: str = "") -> Changed:
        """Refuse every claim as paused until the sale is resumed. A paused sale stays so."""
        return self._change(Action.PAUSE, voucher_id, reason)

    def resume(self, voucher_id: int, reason: str = "") -> Changed:
        """Let claims on a paused sale go on."""
        return self._change(Action.RESUME, voucher_id, reason)

    def close(self, voucher_id: int, reason: str = "") -> Changed:
        """Refuse every claim as ended. The queue is closing.py's matter."""
        return self._change(Action.CLOSE, voucher_id, reason)

    def restock(self, voucher_id: int, units: int, reason: str = "") -> Changed:
        """Offer `units` more, or fewer where they are negative, but never fewer than are sold."""
        if units == 0 or abs(units) > UNITS_MAX:
            raise UsageError(f"expected units from 1 to {UNITS_MAX:,}, got {abs(units):,}")
        return self._change(Action.RESTOCK, voucher_id, reason, units)

    def unfinished(self) -> list[int]:
        """The vouchers of all sales that have a change which was cut short."""
        with transaction(self._pool) as connection:
            return [line.voucher_id for line in journal.unended(connection)]

    def finish(self, voucher_id: int) -> bool:
        """Finish the change of a sale that was cut short; True where there was one and it could
        be: False where the ledger has no such sale."""
        with transaction(self._pool) as connection:
            lines = journal.unended(connection, voucher_id)
        return sum(self._carried_out(line) is not None for line in lines) > 0

    def pause_unbalanced(self) -> list[int]:
        """Pause every open sale whose units do not add up in the ledger; their vouchers."""
        paused = []
        for units in read_units(self._ledger, loaded_sales(self._ledger)):
            if units.imbalance and units.state == OPEN:
                log.error("the books disagree: paused", voucher=units.voucher_id)
                self.pause(units.voucher_id, f"the books disagree: {units.imbalance}")
                paused.append(units.voucher_id)
        return paused

    def _look(self, voucher_id: int) -> LedgerUnits:
        return read_units(self._ledger, [voucher_id])[0]

    def _load_closed(self, voucher_id: int) -> None:
        """Closed, so that nobody buys before the journal says that it is open."""
        terms = next((t for t in read_terms(self._pool) if t.voucher_id == voucher_id), None)
        if terms is None:
            raise _no_sale(voucher_id)
        load_sale(self._ledger, replace(terms, state=CLOSED))

    def _change(self, action: Action, voucher_id: int, reason: str, units: int = 0) -> Changed:
        if len(reason) > journal.REASON_MAX:
            raise UsageError(f"a reason has {journal.REASON_MAX} characters at most")
        self.finish(voucher_id)
        with transaction(self._pool) as connection:
            line = self._planned(connection, action, voucher_id, reason, units)
        if not line.number:
            return Changed(voucher_id, line.was, line.becomes)
        reach("sale.planned")
        step = self._carried_out(line)
        if step is None:
            raise UnfinishedError(line, "the ledger does not have the sale")
        if step is ChangeStep.REFUSED:
            raise ViolationError(
                f"voucher {voucher_id}: fewer than {-units:,} units are left, and what is sold "
                f"cannot be taken back; see `flashsale sale show {voucher_id}`"
            )
        return Changed(voucher_id, line.was, line.becomes, line.number)

    def _planned(
        self, connection: Connection, action: Action, voucher_id: int, reason: str, units: int
    ) -> Line:
        """The line of the change, written; without a number where there is nothing to change."""
        row = connection.execute(
            select(_sale.initial_stock).where(_sale.voucher_id == voucher_id).with_for_update()
        ).first()
        if row is None:
            raise _no_sale(voucher_id)
        if journal.unended(connection, voucher_id):
            raise Unavailable(f"another change of voucher {voucher_id} is under way")
        seen = self._look(voucher_id)
        if not seen.is_loaded or seen.state is None:
            raise UsageError(
                f"voucher {voucher_id} is not in the ledger; load it with `flashsale sale open "
                f"{voucher_id}`"
            )
        line = Line(action, voucher_id, self._actor, reason, step=ChangeStep.PLANNED)
        if action is Action.RESTOCK:
            line = _restock(line, row.initial_stock, units)
        else:
            line = replace(line, was=seen.state, becomes=_TO[action])
            if seen.state == _TO[action]:
                return line
            _check_state(action, voucher_id, seen.state)
        if units > 0:
            _move_units(connection, voucher_id, units)
        return replace(line, number=journal.add(connection, line))

    def _carried_out(self, line: Line) -> ChangeStep | None:
        """Make the change in the ledger and end it; None where the ledger has no such sale."""
        try:
            lane = self._ledger.layout.of(line.voucher_id)
            reply = evaluate(self._ledger.of(line.voucher_id), change_call(line, lane))
            if reply == _NOT_LOADED:
                return None
            if reply == _LATER:
                return self._ended(line)
            reach("sale.changed")
            return self._end(line, ChangeStep.REFUSED if reply == _REFUSED else ChangeStep.DONE)
        except (Unavailable, Indeterminate) as trouble:
            raise UnfinishedError(line, trouble) from trouble

    def _end(self, line: Line, step: ChangeStep) -> ChangeStep:
        try:
            with transaction(self._pool) as connection:
                journal.add(
                    connection,
                    replace(line, step=step, ends=line.number, actor=self._actor),
                )
                if step is ChangeStep.DONE and line.units < 0:
                    _move_units(connection, line.voucher_id, line.units)
        except Duplicate:  # somebody else has finished it meanwhile
            return self._ended(line)
        return step

    def _ended(self, line: Line) -> ChangeStep:
        with transaction(self._pool) as connection:
            ending = journal.ending_of(connection, line.number)
        if ending is None:
            raise ViolationError(
                f"the ledger had a later change of voucher {line.voucher_id} than line "
                f"{line.number} of the journal, which is not ended: it is of another database, or "
                "this one came back older; `flashsale rebuild --apply` makes the ledger follow it"
            )
        return ending.step


def change_call(line: Line, lane: Lane = WHOLE) -> Call:
    """The call that makes the change of a planned line. Pure."""
    names = (lane.seckill_stock(line.voucher_id), lane.seckill_sale(line.voucher_id))
    state = "" if line.action is Action.RESTOCK else line.becomes
    return Call(_CHANGE, names, (line.number, line.units, state))


def _restock(line: Line, initial: int, units: int) -> Line:
    becomes = initial + units
    if not 0 <= becomes <= UNITS_MAX:
        raise ViolationError(
            f"voucher {line.voucher_id} offers {initial:,} units; {units:+,} would make {becomes:,}"
        )
    return replace(line, units=units, was=str(initial), becomes=str(becomes))


def _check_state(action: Action, voucher_id: int, state: str) -> None:
    if state not in _FROM[action]:
        cure = _INSTEAD.get((action, state), "`flashsale sale list`")
        raise UsageError(f"voucher {voucher_id} is {state}: {action} is not possible; see {cure}")


def _move_units(connection: Connection, voucher_id: int, units: int) -> None:
    moved = connection.execute(
        update(seckill_voucher)
        .where(_sale.voucher_id == voucher_id, _sale.stock >= -units)
        .values(stock=_sale.stock + units, initial_stock=_sale.initial_stock + units)
    )
    if moved.rowcount != 1:
        raise ViolationError(
            f"MySQL has fewer units of voucher {voucher_id} than the ledger had: the books "
            f"disagree; pause it and see `flashsale sale show {voucher_id}`"
        )


def _no_sale(voucher_id: int) -> UsageError:
    return UsageError(f"voucher {voucher_id} is on sale nowhere; see `flashsale sale list`")
