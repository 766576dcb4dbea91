"""A sale's history as the second judge sees it: claims with two instants each, and what a sale may
answer them.

The model is a counter of units and one order a user. A claim takes effect at one instant between
its send and its answer; one without an answer at any instant after its send, or never. Units that
came back in the run may have done so at any instant.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from flashsale.verify.attempts import (
    DUPLICATE,
    INDETERMINATE,
    NEVER,
    SOLD,
    SOLD_OUT,
    Claims,
)
from flashsale.verify.baseline import SaleBefore
from flashsale.verify.snapshot import Sale

EARLIEST, LATEST = -1, 2**62
MANY = 2**62
"""Units that nobody has counted."""
UNNAMED = 0
"""An order of which no answer gave the id."""


class Kind(StrEnum):
    """What a claim did, or what undid it; the values are what people read."""

    SALE = "sold"
    REFUSAL = "sold out"
    REPEAT = "duplicate"
    OPEN = "no answer"


_KINDS = {SOLD: Kind.SALE, SOLD_OUT: Kind.REFUSAL, DUPLICATE: Kind.REPEAT}
_KINDS |= dict.fromkeys(INDETERMINATE, Kind.OPEN)


@dataclass(frozen=True, slots=True)
class Op:
    """One claim: instants in µs by `clock`; `done` of one without an answer is LATEST."""

    kind: Kind
    user: int
    order: int
    sent: int
    done: int
    clock: int = 0

    def precedes(self, other: "Op") -> bool:
        """True where this one had its answer before the other was sent, by one clock."""
        return self.done < other.sent and self.clock == other.clock

    def to_json(self, *, illegal: bool) -> dict[str, Any]:
        """As the timeline has it."""
        return {
            "user": self.user,
            "told": str(self.kind),
            "order": str(self.order) if self.order else None,
            "sent_us": None if self.sent == EARLIEST else self.sent,
            "done_us": None if self.done == LATEST else self.done,
            "clock": self.clock,
            "illegal": illegal,
        }


@dataclass(frozen=True, slots=True)
class Frame:
    """What holds of a sale beside its claims.

    At its begin there were `least` to `most` units, and users `held` orders; `returns` units may
    have come back at any instant, and the orders `freed`, by user, may have been given up at any
    instant after their sale.
    """

    least: int
    most: int
    returns: int = 0
    held: Mapping[int, int] = field(default_factory=dict)
    freed: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class History:
    """Claims in a frame."""

    ops: Sequence[Op]
    frame: Frame

    @property
    def users(self) -> list[int]:
        """Those who asked, in the order of their first claim."""
        return list(dict.fromkeys(op.user for op in self.ops))

    def keeping(self, users: AbstractSet[int]) -> "History | None":
        """The history without all others: where this one is illegal, the whole is.

        Whoever leaves takes along what they bought. Had the whole an order, so would the rest of it
        with a unit less for each of their sales: at the begin, or one of those that came back. So
        with units that came back, the begin may have as many as before, too. None where the units
        do not suffice for those who leave.
        """
        frame = self.frame
        fickle = {user for user, _ in frame.freed}
        others = [op for op in self.ops if op.user not in users]
        bought = {op.user for op in others if op.kind is Kind.SALE} - frame.held.keys() - fickle
        unsure = {op.user for op in others if op.kind is Kind.OPEN} - frame.held.keys()
        unsure -= bought | fickle
        again = [op for op in others if op.user in fickle and op.kind in (Kind.SALE, Kind.OPEN)]
        most = frame.most
        if most != MANY and not frame.returns:
            most -= len(bought)
            if most < 0:
                return None
        least = frame.least - len(bought) - len(unsure) - len(again)
        return History(
            [op for op in self.ops if op.user in users],
            replace(
                frame,
                least=max(0, least),
                most=most,
                held={user: order for user, order in frame.held.items() if user in users},
                freed=frozenset(each for each in frame.freed if each[0] in users),
            ),
        )

    def until(self, instant: int) -> "History":
        """What had come by then, as far as it was answered by then: where this has no order, the
        whole has none, since whatever begins later takes effect later."""
        ops = []
        for op in self.ops:
            if op.done <= instant:
                ops.append(op)
            elif op.sent <= instant and op.kind in (Kind.SALE, Kind.OPEN):
                ops.append(replace(op, kind=Kind.OPEN, done=LATEST))
        return replace(self, ops=ops)

    def without(self, op: Op) -> "History":
        """The history without one refusal or repeat, which changes nothing: legal where this is."""
        return replace(self, ops=[each for each in self.ops if each is not op])


def frame_of(sale: Sale) -> Frame:
    """What the stores say of a sale beside the run's claims; what nobody knows may be anything."""
    before = sale.before
    if before is None or before.redis_stock is None:
        return Frame(0, MANY, sale.returned, _told_before(sale), _freed(sale))
    units = max(0, before.redis_stock)
    shrunk = 0
    if before.redis_initial is not None and sale.ledger.initial is not None:
        shrunk = max(0, before.redis_initial - sale.ledger.initial)
    return Frame(
        least=max(0, units - shrunk - _strangers(sale)),
        most=units,
        returns=sale.returned,
        held=_held(sale, before),
        freed=_freed(sale),
    )


def _held(sale: Sale, before: SaleBefore) -> dict[int, int]:
    """Users with an order from before the run; those of whom the stores did not agree are left to
    what they were told."""
    rows, receipts = sale.rows, sale.ledger.receipts
    held = {user: order for user, order in receipts.items() if order in before.queued}
    if before.live:
        pairs = zip(rows.order, rows.user, strict=True)
        held |= {
            user: order for order, user in pairs if order in before.live or order in before.queued
        }
    told = ((sale.claims.user[k], sale.claims.order[k]) for k in sale.claims.told(DUPLICATE))
    return held | {user: order for user, order in told if order > 0 and before.knows(order)}


def _told_before(sale: Sale) -> dict[int, int]:
    """Without a baseline: who was told "duplicate" and bought nothing in the run held it before."""
    claims = sale.claims
    told = {claims.user[k]: max(claims.order[k], UNNAMED) for k in claims.told(DUPLICATE)}
    if told:
        for k in (*claims.told(SOLD), *claims.open()):
            told.pop(claims.user[k], None)
    return told


def _freed(sale: Sale) -> frozenset[tuple[int, int]]:
    """Orders that were cancelled or refunded in the run."""
    rows, ended = sale.rows, sale.before.ended if sale.before else frozenset()
    if not sale.returned:
        return frozenset()
    return frozenset(
        (rows.user[row], order)
        for row, order in enumerate(rows.order)
        if not rows.is_live(row) and order not in ended
    )


def _strangers(sale: Sale) -> int:
    """Units that went to somebody whom the record does not know, at whatever instant."""
    if sale.is_explained_plainly:
        return 0
    told, asked = sale.promised, sale.open_claims
    rows = (
        (sale.rows.order[row], sale.rows.user[row])
        for row in sale.new_rows()
        if sale.rows.order[row] not in told
    )
    owed = ((o, u) for u, o in sale.rowless.items() if sale.is_new(o) and o not in told)
    return sum(1 for _, user in (*rows, *owed) if asked.get(user, 0) <= 0)


def unsettled(sale: Sale) -> frozenset[int]:
    """Users on whom the stores did not agree before the run: whatever they were told is excused."""
    return sale.before.unsettled if sale.before else frozenset()


def history_of(sale: Sale, frame: Frame) -> History:
    """The claims that sold, were refused, told of an order, or had no answer."""
    whole = History(list(_ops(sale.claims)), frame)
    excused = unsettled(sale).intersection(sale.claims.user)
    if not excused:
        return whole
    kept = whole.keeping(set(whole.users) - excused)
    return kept if kept is not None else History([], frame)


def _ops(claims: Claims) -> Iterator[Op]:
    for k, code in enumerate(claims.outcome):
        kind = _KINDS.get(code)
        if kind is None:
            continue
        order = claims.resolved[k] if kind is Kind.OPEN else claims.order[k]
        done = claims.done_us[k]
        yield Op(
            kind,
            claims.user[k],
            max(order, UNNAMED),
            claims.sent_us[k],
            LATEST if done == NEVER or kind is Kind.OPEN else done,
            claims.clock[k],
        )


def timeline(ops: Iterable[Op], illegal: Op | None) -> list[dict[str, Any]]:
    """The claims in the order of their sends, the one that has no place marked."""
    ordered = sorted(ops, key=lambda op: (op.clock, op.sent, op.done))
    return [op.to_json(illegal=op is illegal) for op in ordered]
