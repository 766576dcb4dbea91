"""A sale's history as the second judge sees it: claims with two instants each, what a sale may
answer them, and the search for an order in which it did.

The model is a counter of units and one order a user. A claim takes effect at one instant between
its send and its answer; one without an answer at any instant after its send, or never. Units that
came back in the run may have done so at any instant.

The search looks at all orders, after Wing and Gong (Testing and verifying concurrent objects,
1993), with what was seen remembered as Lowe does (Testing for linearizability, 2017).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from flashsale.verify.attempts import DUPLICATE, INDETERMINATE, NEVER, SOLD, SOLD_OUT, ClaimColumns
from flashsale.verify.observation import SaleBefore
from flashsale.verify.snapshot import SaleSnapshot

EARLIEST, LATEST = -1, 2**62
MANY = 2**62
"""Units that nobody has counted."""
UNNAMED = 0
"""An order of which no answer gave the id."""


class OpKind(StrEnum):
    """What a claim did, or what undid it; the values are what people read."""

    SALE = "sold"
    REFUSAL = "sold out"
    REPEAT = "duplicate"
    OPEN = "no answer"


_KINDS = {SOLD: OpKind.SALE, SOLD_OUT: OpKind.REFUSAL, DUPLICATE: OpKind.REPEAT}
_KINDS |= dict.fromkeys(INDETERMINATE, OpKind.OPEN)


@dataclass(frozen=True, slots=True)
class Op:
    """One claim: instants in µs by `clock`; `done` of one without an answer is LATEST."""

    kind: OpKind
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
        bought = {op.user for op in others if op.kind is OpKind.SALE} - frame.held.keys() - fickle
        unsure = {op.user for op in others if op.kind is OpKind.OPEN} - frame.held.keys()
        unsure -= bought | fickle
        again = [op for op in others if op.user in fickle and op.kind in (OpKind.SALE, OpKind.OPEN)]
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
            elif op.sent <= instant and op.kind in (OpKind.SALE, OpKind.OPEN):
                ops.append(replace(op, kind=OpKind.OPEN, done=LATEST))
        return replace(self, ops=ops)

    def without(self, op: Op) -> "History":
        """The history without one refusal or repeat, which changes nothing: legal where this is."""
        return replace(self, ops=[each for each in self.ops if each is not op])


def frame_of(sale: SaleSnapshot) -> Frame:
    """What the stores say of a sale beside the run's claims; what nobody knows may be anything:
    without a baseline, how many units there were, and how many came back."""
    before = sale.before
    if before is None or before.redis_stock is None:
        back = sale.returned if before else MANY
        return Frame(0, MANY, back, _told_before(sale), _freed(sale))
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


def _held(sale: SaleSnapshot, before: SaleBefore) -> dict[int, int]:
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


def _told_before(sale: SaleSnapshot) -> dict[int, int]:
    """Without a baseline: who was told "duplicate" and bought nothing in the run held it before."""
    claims = sale.claims
    told = {claims.user[k]: max(claims.order[k], UNNAMED) for k in claims.told(DUPLICATE)}
    if told:
        for k in (*claims.told(SOLD), *claims.open()):
            told.pop(claims.user[k], None)
    return told


def _freed(sale: SaleSnapshot) -> frozenset[tuple[int, int]]:
    """Orders that were cancelled or refunded in the run."""
    rows, ended = sale.rows, sale.before.ended if sale.before else frozenset()
    if not sale.returned:
        return frozenset()
    return frozenset(
        (rows.user[row], order)
        for row, order in enumerate(rows.order)
        if not rows.is_live(row) and order not in ended
    )


def _strangers(sale: SaleSnapshot) -> int:
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


def unsettled(sale: SaleSnapshot) -> frozenset[int]:
    """Users on whom the stores did not agree before the run: whatever they were told is excused."""
    return sale.before.unsettled if sale.before else frozenset()


def history_of(sale: SaleSnapshot, frame: Frame) -> History:
    """The claims that sold, were refused, told of an order, or had no answer."""
    whole = History(list(_ops(sale.claims)), frame)
    excused = unsettled(sale).intersection(sale.claims.user)
    if not excused:
        return whole
    kept = whole.keeping(set(whole.users) - excused)
    return kept if kept is not None else History([], frame)


def _ops(claims: ClaimColumns) -> Iterator[Op]:
    for k, code in enumerate(claims.outcome):
        kind = _KINDS.get(code)
        if kind is None:
            continue
        order = claims.resolved[k] if kind is OpKind.OPEN else claims.order[k]
        done = claims.done_us[k]
        yield Op(
            kind,
            claims.user[k],
            max(order, UNNAMED),
            claims.sent_us[k],
            LATEST if done == NEVER or kind is OpKind.OPEN else done,
            claims.clock[k],
        )


def timeline(ops: Iterable[Op], illegal: Op | None) -> list[dict[str, Any]]:
    """The claims in the order of their sends, the one that has no place marked."""
    ordered = sorted(ops, key=lambda op: (op.clock, op.sent, op.done))
    return [op.to_json(illegal=op is illegal) for op in ordered]


STEPS_MAX = 200_000
"""States that one search may look at; past them it says that it does not know."""


# The search.


def search(history: History, steps_max: int = STEPS_MAX) -> bool | None:
    """True where some order of the claims is a sale's, False where none is, None past the bound."""
    frame = history.frame
    most = min(frame.most, frame.least + len(history.ops) + 1)
    steps = steps_max
    for units in range(frame.least, most + 1):
        found = _Search(history, units, steps)
        if found.run():
            return True
        steps = found.steps
        if steps <= 0:
            return None
    return False


_State = tuple[int, int, int, tuple[tuple[int, int], ...], frozenset[tuple[int, int]]]
"""Claims that took effect, as bits; units left and to come back; who holds what and may free it."""


@dataclass
class _Search:
    history: History
    units: int
    steps: int

    def run(self) -> bool:
        ops, frame = self.history.ops, self.history.frame
        must = sum(1 << i for i, op in enumerate(ops) if op.kind is not OpKind.OPEN)
        before = [
            sum(1 << j for j, o in enumerate(ops) if o.kind is not OpKind.OPEN and o.precedes(op))
            for op in ops
        ]
        returns = min(frame.returns, len(ops))
        first: _State = (0, self.units, returns, tuple(frame.held.items()), frame.freed)
        seen, stack = {first}, [first]
        while stack and self.steps > 0:
            state = stack.pop()
            if state[0] & must == must:
                return True
            self.steps -= 1
            for after in self._next(state, before):
                if after not in seen:
                    seen.add(after)
                    stack.append(after)
        return False

    def _next(self, state: _State, before: Sequence[int]) -> Iterator[_State]:
        done, left, returns, holds, freed = state
        held = dict(holds)
        for user, order in freed:
            if held.get(user) in (order, UNNAMED):
                rest = tuple(sorted((u, o) for u, o in held.items() if u != user))
                yield done, left, returns, rest, freed - {(user, order)}
        if returns:
            yield done, left + 1, returns - 1, holds, freed
        for i, op in enumerate(self.history.ops):
            if done >> i & 1 or before[i] & ~done:
                continue
            after = _answer(op, left, held)
            if after is not None:
                left_then, holds_then = after
                pairs = tuple(sorted(holds_then.items()))
                yield done | 1 << i, left_then, returns, pairs, freed


def _answer(op: Op, left: int, held: dict[int, int]) -> tuple[int, dict[int, int]] | None:
    """Units left and who holds what after a sale has answered so; None where it would not."""
    holds = held.get(op.user)
    if op.kind is OpKind.REFUSAL:
        return (left, held) if not left and holds is None else None
    if op.kind is not OpKind.OPEN and holds is not None:
        # An order of theirs, or of a claim that had no answer: "sold" may be told again, too.
        if holds and op.order and holds != op.order:
            return None
        return left, {**held, op.user: holds or op.order}
    if op.kind is OpKind.REPEAT or holds is not None or not left:
        return None
    return left - 1, {**held, op.user: op.order if op.kind is OpKind.SALE else UNNAMED}


_BLAME = (OpKind.OPEN, OpKind.SALE, OpKind.REPEAT, OpKind.REFUSAL)


def impossible(small: History) -> Op:
    """The answer to blame: a refusal sooner than a repeat or a sale, a later one sooner."""
    return max(small.ops, key=lambda op: (_BLAME.index(op.kind), op.done))


def why(op: Op, small: History) -> str:
    """Why the answer is impossible, by what is left of the history."""
    told, frame = f"told “{op.kind}”", small.frame
    mine = [other for other in small.ops if other.user == op.user and other is not op]
    bought = [other for other in mine if other.kind in (OpKind.SALE, OpKind.OPEN)]
    orders = [other.order for other in mine if other.kind in (OpKind.SALE, OpKind.REPEAT)]
    orders += [frame.held[op.user]] if op.user in frame.held else []
    others = [order for order in orders if order and order != op.order]
    named = f" (order {others[0]})" if others else ""
    match op.kind:
        case OpKind.REFUSAL if orders:
            return f"{told} while holding an order{named}"
        case OpKind.REFUSAL if frame.least:
            left = "1 unit" if frame.least == 1 else f"{frame.least:,} units"
            return f"{told} when {left} cannot have been sold yet"
        case OpKind.REFUSAL:
            return f"{told}, and a claim that was sent later sold"
        case OpKind.REPEAT if others and op.order:
            return f"{told} of another order than theirs{named}"
        case OpKind.REPEAT if not any(not op.precedes(other) for other in bought):
            return f"{told} before any claim of theirs had been sent that can have sold"
        case OpKind.SALE if others:
            return f"{told}, and of another order besides{named}"
        case OpKind.SALE if frame.most + frame.returns < len(small.users):
            return f"{told} when no unit can have been left"
    return f"{told}, which no order of the {len(small.ops):,} claims explains"
