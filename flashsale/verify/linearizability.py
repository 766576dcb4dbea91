"""The second judge: is there an order of the claims in which a sale could have answered as it did?

It looks at answers and instants alone, sale by sale, and shares no rule with the checks. Three
ways, each for what the one before cannot tell:

1. `is_plain`: counts and two instants, for histories in which every answer is where it should be.
2. `Walk`: claims that sold take effect as early as they can, refusals and repeats as late as they
   can. Sales never come back, so nothing that was possible becomes impossible by waiting: where the
   walk gets stuck, no order exists. It is exact but where users gave orders up and bought again.
3. `search`: all orders, after Wing and Gong (Testing and verifying concurrent objects, 1993), with
   what was seen remembered as Lowe does (Testing for linearizability, 2017). It proves what
   `shrink` leaves of an illegal history, so that nobody is accused by the walk alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flashsale.verify.attempts import DUPLICATE, INDETERMINATE, SOLD_OUT
from flashsale.verify.finding import Finding, Met, Offence, doubt, violation
from flashsale.verify.history import (
    UNNAMED,
    History,
    Kind,
    Op,
    frame_of,
    history_of,
    timeline,
    unsettled,
)
from flashsale.verify.snapshot import Sale, Snapshot
from flashsale.verify.walk import Walk, is_plain

LINEARIZABLE = "linearizable"
RULE = "a sale could have answered so, claim by claim"
STEPS_MAX = 200_000
"""States that one search may look at; past them it says that it does not know."""
_SEARCHED_OPS_MAX, _SEARCHED_WHOLE_MAX = 24, 200
"""Claims of a part that is searched rather than walked, and of a history where no part decides."""
_TRIES_MAX = 300
"""Smaller histories that are tried while one is shrunk."""


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
        must = sum(1 << i for i, op in enumerate(ops) if op.kind is not Kind.OPEN)
        before = [
            sum(1 << j for j, o in enumerate(ops) if o.kind is not Kind.OPEN and o.precedes(op))
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
    if op.kind is Kind.REFUSAL:
        return (left, held) if not left and holds is None else None
    if op.kind is not Kind.OPEN and holds is not None:
        # An order of theirs, or of a claim that had no answer: "sold" may be told again, too.
        if holds and op.order and holds != op.order:
            return None
        return left, {**held, op.user: holds or op.order}
    if op.kind is Kind.REPEAT or holds is not None or not left:
        return None
    return left - 1, {**held, op.user: op.order if op.kind is Kind.SALE else UNNAMED}


# The smallest illegal history.


def shrink(history: History, stuck: Sequence[Op]) -> History:
    """As small a part of an illegal history as is still illegal by itself."""
    tries = _Tries(_TRIES_MAX)
    if len({op.clock for op in history.ops}) == 1:
        for instant in sorted({op.done for op in stuck}):
            if tries.is_illegal(part := history.until(instant)):
                history = part
                break
    users = list(dict.fromkeys(op.user for op in stuck))
    late = (op.user for op in history.ops if op.kind is Kind.SALE and stuck[0].precedes(op))
    beside = next(late, None)
    for chosen in ([users[0]], users, [*users, beside] if beside is not None else users):
        smaller = history.keeping(set(chosen))
        if smaller is not None and tries.is_illegal(smaller):
            history = smaller
            break
    return _without_claims(_without_users(history, tries), tries)


@dataclass
class _Tries:
    left: int

    def is_illegal(self, history: History) -> bool:
        """True where it is proved."""
        if self.left <= 0 or not history.ops:
            return False
        self.left -= 1
        if len(history.ops) <= _SEARCHED_OPS_MAX:
            return search(history, STEPS_MAX // 10) is False
        return not history.frame.freed and bool(Walk(history).stuck())


def _without_users(history: History, tries: _Tries) -> History:
    """Leave out as many users at once as can be, halving where they cannot."""
    size = len(history.users) // 2
    while size:
        users, start = history.users, 0
        while start < len(users):
            part = history.keeping(set(users[:start] + users[start + size :]))
            if part is not None and tries.is_illegal(part):
                history, users = part, part.users
            else:
                start += size
        size //= 2
    return history


def _without_claims(history: History, tries: _Tries) -> History:
    for op in list(history.ops):
        if op.kind in (Kind.REFUSAL, Kind.REPEAT) and tries.is_illegal(part := history.without(op)):
            history = part
    return history


# The judgement.


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the second judge thinks of a run. `timeline` is the first sale's smallest illegal
    history, its impossible answer marked."""

    findings: tuple[Finding, ...]
    timeline: tuple[dict[str, Any], ...] = ()


def linearizable(snapshot: Snapshot) -> Opinion:
    """Whether the answers of each sale have an order in which a sale gives them. Pure.

    Cannot judge what no search of bounded length decides.
    """
    illegal: list[tuple[Offence, list[dict[str, Any]]]] = []
    undecided: list[Offence] = []
    for sale in snapshot.sales:
        frame = frame_of(sale)
        if not unsettled(sale) and is_plain(sale.claims, frame):
            continue
        found = _judge(sale, history_of(sale, frame))
        if isinstance(found, Offence):
            undecided.append(found)
        elif found is not None:
            illegal.append(found)
    findings = [
        *violation("no sale could have answered so", (offence for offence, _ in illegal)),
        *doubt("not decided within the bounds of the search", undecided),
    ]
    return Opinion(tuple(findings), tuple(illegal[0][1]) if illegal else ())


def met(snapshot: Snapshot) -> Met:
    """Answers that hang on what others were told, and claims that may or may not have sold."""
    claims = [sale.claims for sale in snapshot.sales]
    counts = [sum(c.outcome.count(code) for c in claims) for code in (SOLD_OUT, DUPLICATE)]
    opened = sum(c.outcome.count(code) for c in claims for code in INDETERMINATE)
    return {"answers that hang on others": sum(counts), "claims without an answer": opened}


def _judge(sale: Sale, history: History) -> tuple[Offence, list[dict[str, Any]]] | Offence | None:
    stuck = Walk(history).stuck()
    if not stuck:
        return None
    small = shrink(history, stuck)
    if search(small) is not False:
        if len(history.ops) <= _SEARCHED_WHOLE_MAX and search(history):
            return None  # the walk gave up too early: somebody gave an order up and bought again
        return sale.offence(f"{len(history.ops):,} claims, and no order found for them")
    op = impossible(small)
    detail = why(op, small)
    return sale.offence(detail, op.user, op.order or None), timeline(small.ops, op)


_BLAME = (Kind.OPEN, Kind.SALE, Kind.REPEAT, Kind.REFUSAL)


def impossible(small: History) -> Op:
    """The answer to blame: a refusal sooner than a repeat or a sale, a later one sooner."""
    return max(small.ops, key=lambda op: (_BLAME.index(op.kind), op.done))


def why(op: Op, small: History) -> str:
    """Why the answer is impossible, by what is left of the history."""
    told, frame = f"told “{op.kind}”", small.frame
    mine = [other for other in small.ops if other.user == op.user and other is not op]
    bought = [other for other in mine if other.kind in (Kind.SALE, Kind.OPEN)]
    orders = [other.order for other in mine if other.kind in (Kind.SALE, Kind.REPEAT)]
    orders += [frame.held[op.user]] if op.user in frame.held else []
    others = [order for order in orders if order and order != op.order]
    named = f" (order {others[0]})" if others else ""
    match op.kind:
        case Kind.REFUSAL if orders:
            return f"{told} while holding an order{named}"
        case Kind.REFUSAL if frame.least:
            left = "1 unit" if frame.least == 1 else f"{frame.least:,} units"
            return f"{told} when {left} cannot have been sold yet"
        case Kind.REFUSAL:
            return f"{told}, and a claim that was sent later sold"
        case Kind.REPEAT if others and op.order:
            return f"{told} of another order than theirs{named}"
        case Kind.REPEAT if not any(not op.precedes(other) for other in bought):
            return f"{told} before any claim of theirs had been sent that can have sold"
        case Kind.SALE if others:
            return f"{told}, and of another order besides{named}"
        case Kind.SALE if frame.most + frame.returns < len(small.users):
            return f"{told} when no unit can have been left"
    return f"{told}, which no order of the {len(small.ops):,} claims explains"
