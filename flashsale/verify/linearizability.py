"""The second judge: is there an order of the claims in which a sale could have answered as it did?

It looks at answers and instants alone, sale by sale, and shares no rule with the checks. Three
ways, each for what the one before cannot tell:

1. `is_plain`: counts and two instants, for histories in which every answer is where it should be.
2. `Walk`: claims that sold take effect as early as they can, refusals and repeats as late as they
   can. Nothing in a walk is ever undone: units go, and those that come back are sold at once, so a
   sale that is sold out stays so; who holds an order keeps it. Where the walk gets stuck, no order
   exists. It is exact but where users gave orders up and bought again.
3. `search`: all orders. It proves what `shrink` leaves of an illegal history, so that nobody is
   accused by the walk alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flashsale.verify.attempts import DUPLICATE, INDETERMINATE, NEVER, SOLD, SOLD_OUT, ClaimColumns
from flashsale.verify.finding import Finding, Met, Offence, doubt, violation
from flashsale.verify.history import (
    STEPS_MAX,
    UNNAMED,
    Frame,
    History,
    Op,
    OpKind,
    frame_of,
    history_of,
    impossible,
    search,
    timeline,
    unsettled,
    why,
)
from flashsale.verify.snapshot import SaleSnapshot, Snapshot


def is_plain(claims: ClaimColumns, frame: Frame) -> bool:
    """True where every answer is surely in its place, by counts and two instants."""
    codes = claims.outcome
    if frame.freed or len(set(claims.clock)) > 1:
        return False
    sales = claims.count(SOLD)
    refused, repeated = claims.count(SOLD_OUT), claims.count(DUPLICATE)
    if frame.held or repeated or len(set(claims.user)) < len(claims.user):
        first = _first_sales(claims, frame)
        if first is None or not _is_each_plain(claims, frame, first):
            return False
        sales = len(first)
    if sales > frame.most + frame.returns:
        return False
    if not refused:
        return True
    units = max(frame.least, sales - frame.returns)
    told = zip(codes, claims.done_us, strict=True)
    arrived = min((at for code, at in told if code == SOLD_OUT and at != NEVER), default=None)
    if arrived is None:
        return units <= sales
    sent = zip(codes, claims.sent_us, strict=True)
    late = sum(1 for code, at in sent if code == SOLD and at > arrived)
    return units <= sales - late


def _first_sales(claims: ClaimColumns, frame: Frame) -> dict[int, int] | None:
    """The claim of each user that sold; None where one was told of two orders."""
    first: dict[int, int] = {}
    for k, code in enumerate(claims.outcome):
        if code != SOLD:
            continue
        user = claims.user[k]
        if user in first or user in frame.held:
            return None
        first[user] = k
    return first


def _is_each_plain(claims: ClaimColumns, frame: Frame, first: dict[int, int]) -> bool:
    for k, code in enumerate(claims.outcome):
        user = claims.user[k]
        if code == SOLD_OUT:
            if user in first or user in frame.held:
                return False
        elif code == DUPLICATE:
            told = max(claims.order[k], UNNAMED)
            sale = first.get(user)
            held = frame.held.get(user) if sale is None else max(claims.order[sale], UNNAMED)
            if held is None or (told and held and told != held):
                return False
            done = claims.done_us[k]
            if sale is not None and done != NEVER and done < claims.sent_us[sale]:
                return False
    return True


_Lane = list[tuple[int, bool, int]]
"""What happens by one clock: at an instant, a claim comes (False) or has its answer (True)."""


@dataclass
class Walk:
    """A sale that is told each claim as it comes and as it is answered, and has to say the same."""

    history: History
    left: int = 0
    returns: int = 0
    holds: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frame, ops = self.history.frame, self.history.ops
        self.holds = dict(frame.held)
        self.returns = frame.returns
        self._freed = set(frame.freed)
        self._fickle = {user for user, _ in frame.freed}
        self._come, self._done = bytearray(len(ops)), bytearray(len(ops))
        self._waiting = defaultdict[int, list[int]](list)
        self._repeats = defaultdict[int, list[int]](list)
        self._takers = dict[int, None]()
        self._refusals = defaultdict[int, list[int]](list)
        for i, op in enumerate(ops):
            if op.kind is OpKind.REFUSAL:
                self._refusals[op.user].append(i)
        told = {op.user for op in ops if op.kind in (OpKind.SALE, OpKind.REPEAT)}
        asked = {op.user for op in ops if op.kind in (OpKind.SALE, OpKind.OPEN)}
        self._buyers = (told & asked) - self.holds.keys()
        certain = len(self._buyers)
        self.left = min(max(frame.least, certain - frame.returns), frame.most)

    def stuck(self) -> list[Op]:
        """The claims whose answers have no place; none where the history is legal.

        Claims without an answer are taken for sales only where nothing goes on without them.
        """
        lanes = self._lanes()
        at = [0] * len(lanes)
        while any(self._pass_on(lane, at, n) for n, lane in enumerate(lanes)) or any(
            self._pass_on(lane, at, n, late=True) for n, lane in enumerate(lanes)
        ):
            pass
        rest = (lane[at[n]][2] for n, lane in enumerate(lanes) if at[n] < len(lane))
        return [self.history.ops[i] for i in rest]

    def _pass_on(self, lane: "_Lane", at: list[int], n: int, *, late: bool = False) -> bool:
        """Whether anything more of a lane has a place; `late` ends after the first that has."""
        start = at[n]
        while at[n] < len(lane) and self._take(lane[at[n]], late=late):
            at[n] += 1
            if late:
                return True
        return at[n] > start

    def _lanes(self) -> "list[_Lane]":
        """For each clock what happens in its order: claims come, and claims are answered."""
        lanes: dict[int, _Lane] = {}
        for i, op in enumerate(self.history.ops):
            lane = lanes.setdefault(op.clock, [])
            lane.append((op.sent, False, i))
            if op.kind is not OpKind.OPEN:
                lane.append((op.done, True, i))
        for lane in lanes.values():
            lane.sort()
        return list(lanes.values())

    def _take(self, event: tuple[int, bool, int], *, late: bool) -> bool:
        """Whether what happens has a place: a claim always may come."""
        _, is_answer, i = event
        op = self.history.ops[i]
        if not is_answer:
            self._come[i] = True
            buys = op.user in self._buyers and op.kind is OpKind.OPEN
            if buys or op.kind is OpKind.SALE:
                self._waiting[op.user].append(i)
                self._sell(op.user, late=False)
            elif op.kind is OpKind.REPEAT and op.user in self._fickle:
                self._repeats[op.user].append(i)
            if op.kind is OpKind.OPEN and self._may_take(op.user):
                self._takers[op.user] = None
            return True
        if not self._done[i]:
            if op.kind is OpKind.REFUSAL:
                self._done[i] = self._refuse(op, late=late)
            else:
                self._done[i] = self._has(op, late=late) or (
                    self._free(op) and self._has(op, late=late)
                )
        return bool(self._done[i])

    def _may_take(self, user: int) -> bool:
        """True where a claim of theirs without an answer may have sold, by what they were told."""
        told = user in self._buyers or user in self._refusals
        return user in self._fickle or not (told or user in self.holds)

    def _has(self, op: Op, *, late: bool) -> bool:
        """Whether the user holds the order that they were told of."""
        if op.user not in self.holds:
            self._sell(op.user, late=late)
        held = self.holds.get(op.user)
        if held == UNNAMED:
            self.holds[op.user] = held = op.order
        return held is not None and (op.order == held or op.order == UNNAMED)

    def _sell(self, user: int, *, late: bool) -> None:
        """Sell to one whose claim has come, if that can be."""
        claim = self._next_claim(user, late=late)
        if claim is None or user in self.holds:
            return
        if not self._was_refused(user, late=late):
            return
        if self.left:
            self.left -= 1
        elif self.returns:
            self.returns -= 1  # it came back, and was sold
        else:
            return
        self._waiting[user].remove(claim)
        op = self.history.ops[claim]
        self._done[claim] = True
        self.holds[user] = op.order if op.kind is OpKind.SALE else UNNAMED

    def _next_claim(self, user: int, *, late: bool) -> int | None:
        """The user's claim that sells next. Of somebody who bought several times, one without an
        answer may have sold nothing, so it comes last."""
        claims = self._waiting.get(user, [])
        if user not in self._fickle:
            return claims[0] if claims else None
        told = [claim for claim in claims if self.history.ops[claim].kind is OpKind.SALE]
        return next(iter(told or (claims if late else [])), None)

    def _was_refused(self, user: int, *, late: bool) -> bool:
        """True where each "sold out" that this user was told could have been told by now: none can
        be told later, to one who holds an order and keeps it."""
        for i in self._refusals.get(user, ()):
            if not self._done[i] and (self._come[i] or user not in self._fickle):
                op = self.history.ops[i]
                self._done[i] = bool(self._come[i]) and self._refuse(op, late=late)
                if not self._done[i]:
                    return False
        return True

    def _free(self, op: Op) -> bool:
        """Let the user give up what they hold, if they did so in the run."""
        held = self.holds.get(op.user)
        for user, order in self._freed if held is not None else ():
            if user == op.user and held in (order, UNNAMED):
                for i in self._repeats[user]:  # told of it while they had it
                    self._done[i] |= self.history.ops[i].order in (order, UNNAMED)
                self._freed.discard((user, order))
                del self.holds[user]
                return True
        return False

    def _refuse(self, op: Op, *, late: bool) -> bool:
        if op.user in self.holds and not self._free(op):
            return False
        if self.left and late:
            takers = [user for user in self._takers if user not in self.holds]
            if len(takers) >= self.left:
                for user in takers[: self.left]:
                    self.holds[user] = UNNAMED
                    del self._takers[user]
                self.left = 0
        return not self.left


LINEARIZABLE = "linearizable"
RULE = "a sale could have answered so, claim by claim"
_SEARCHED_OPS_MAX, _SEARCHED_WHOLE_MAX = 24, 200
"""Claims of a part that is searched rather than walked, and of a history where no part decides."""
_TRIES_MAX = 300
"""Smaller histories that are tried while one is shrunk."""


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
    late = (op.user for op in history.ops if op.kind is OpKind.SALE and stuck[0].precedes(op))
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
        if op.kind in (OpKind.REFUSAL, OpKind.REPEAT) and tries.is_illegal(
            part := history.without(op)
        ):
            history = part
    return history


# The judgement.


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the second judge thinks of a run. `timeline` is the first sale's smallest illegal
    history, its impossible answer marked."""

    findings: tuple[Finding, ...]
    timeline: tuple[dict[str, Any], ...] = ()


def linearizable(snapshot: Snapshot, searched_max: int = _SEARCHED_WHOLE_MAX) -> Opinion:
    """Whether the answers of each sale have an order in which a sale gives them. Pure.

    Cannot judge what no search of bounded length decides; of more claims than `searched_max`, and
    where no part decides, none is searched for.
    """
    illegal: list[tuple[Offence, list[dict[str, Any]]]] = []
    undecided: list[Offence] = []
    for sale in snapshot.sales:
        frame = frame_of(sale)
        if not unsettled(sale) and is_plain(sale.claims, frame):
            continue
        found = _judge(sale, history_of(sale, frame), searched_max)
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
    counts = [sum(c.count(code) for c in claims) for code in (SOLD_OUT, DUPLICATE)]
    opened = sum(c.count(code) for c in claims for code in INDETERMINATE)
    return {"answers that hang on others": sum(counts), "claims without an answer": opened}


def _judge(
    sale: SaleSnapshot, history: History, searched_max: int
) -> tuple[Offence, list[dict[str, Any]]] | Offence | None:
    stuck = Walk(history).stuck()
    if not stuck:
        return None
    small = shrink(history, stuck)
    if search(small) is not False:
        if len(history.ops) <= searched_max and search(history):
            return None  # the walk gave up too early: somebody gave an order up and bought again
        return sale.offence(f"{len(history.ops):,} claims, and no order found for them")
    op = impossible(small)
    detail = why(op, small)
    return sale.offence(detail, op.user, op.order or None), timeline(small.ops, op)
