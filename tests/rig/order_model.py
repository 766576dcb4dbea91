"""A sale and its orders in plain Python, step by step: what a process leaves when it is killed.

Every action is a list of states, the one before it first and the one after it last; a process that
is killed leaves one of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

UNPAID, PAID, CANCELLED, REFUNDED = 1, 2, 4, 6
LIVE = (UNPAID, PAID)


@dataclass(frozen=True)
class Row:
    """An order in MySQL."""

    user: int
    status: int = UNPAID


@dataclass(frozen=True)
class Planned:
    """A change of the sale in the journal, not ended; `made` is what the ledger says of it."""

    units: int = 0
    state: str = ""
    made: bool | None = None


@dataclass(frozen=True)
class World:
    """Both stores. `waiting` orders no worker was given, `pending` none has acknowledged."""

    rows: Mapping[int, Row]
    owed: frozenset[int]
    stock: int
    initial: int
    change: Planned | None
    left: int
    offered: int
    state: str
    receipts: Mapping[int, int]
    waiting: frozenset[int]
    pending: frozenset[int]

    @classmethod
    def of(cls, units: int) -> "World":
        """A sale of so many units, nothing sold."""
        none: frozenset[int] = frozenset()
        return cls({}, none, units, units, None, units, units, "open", {}, none, none)

    # What is always so, between any two steps.

    def check(self) -> None:
        """Units are neither made nor lost, and nobody holds two orders."""
        live = [row.user for row in self.rows.values() if row.status in LIVE]
        assert len(live) == len(set(live)), "one live order a user"
        assert self.left >= 0
        assert self.stock >= 0
        assert self.left + len(self.receipts) == self.offered, "the ledger's units"
        assert self.initial - self.stock == len(live), "MySQL's units"
        rowless = self.receipts.values() - self.rows.keys()
        assert self.stock >= self.left + len(rowless), "MySQL has a unit for all that is sold"
        assert rowless <= self.waiting | self.pending, "no order is lost"
        assert set(live) <= self.receipts.keys()

    @property
    def is_at_rest(self) -> bool:
        """Nothing is under way."""
        return not (self.waiting or self.pending or self.owed or self.change)

    # What can be done.

    def claim(self, user: int, order: int, in_time: bool = True) -> tuple["World", int, str]:
        """The world after a claim, and its answer."""
        if user in self.receipts:
            return self, 2, str(self.receipts[user])
        refused = 7 if not in_time else {"paused": 6, "closed": 4}.get(self.state)
        if refused is None and self.left == 0:
            refused = 1
        if refused is not None:
            return self, refused, ""
        receipts, waiting = {**self.receipts, user: order}, self.waiting | {order}
        after = replace(self, left=self.left - 1, receipts=receipts, waiting=waiting)
        return after, 0, str(order)

    def work(self, user_of: Mapping[int, int]) -> list["World"]:
        """The worker: its own pending orders, then those that wait."""
        states = [self]
        states += states[-1]._written(user_of)
        given = replace(states[-1], pending=states[-1].waiting, waiting=frozenset())
        states.append(given)
        states += given._written(user_of)
        return states

    def _written(self, user_of: Mapping[int, int]) -> Iterator["World"]:
        new = {order: Row(user_of[order]) for order in self.pending - self.rows.keys()}
        written = replace(self, rows={**self.rows, **new}, stock=self.stock - len(new))
        yield written
        yield replace(written, pending=frozenset())

    def pay(self, order: int) -> list["World"]:
        row = self.rows.get(order)
        moves = {UNPAID: PAID, CANCELLED: REFUNDED}
        if row is None or row.status not in moves:
            return [self]
        return [self, self._with(order, moves[row.status])]

    def cancel(self, order: int) -> list["World"]:
        """Row and unit in MySQL, unit in the ledger, the debt forgotten."""
        row = self.rows.get(order)
        if row is None or row.status == PAID:
            return [self]
        states = [self]
        if row.status == UNPAID:
            states.append(self._ended(order))
        if order in states[-1].owed:
            states += states[-1]._given_back([order])
        return states

    def sweep(self, aged: frozenset[int]) -> list["World"]:
        """Time out, give back, finish a change that was cut short."""
        timed_out = self
        for order in aged & self.rows.keys():
            if self.rows[order].status == UNPAID:
                timed_out = timed_out._ended(order)
        states = [self, timed_out, *timed_out._given_back(timed_out.owed)]
        return states + states[-1].finish()[1:]

    def plan(self, units: int = 0, state: str = "") -> list["World"]:
        """A change of units or state, after one that was cut short."""
        states = self.finish()
        before = states[-1]
        if before.initial + units < 0 or state == before.state:
            return states
        up = max(0, units)
        planned = replace(
            before,
            change=Planned(units, state),
            stock=before.stock + up,
            initial=before.initial + up,
        )
        return [*states, *planned.finish()]

    def finish(self) -> list["World"]:
        """What is left to do of a change."""
        change = self.change
        if change is None:
            return [self]
        made, states = self, [self]
        if change.made is None:
            is_made = self.left + change.units >= 0
            made = replace(self, change=replace(change, made=is_made))
            if is_made:
                made = replace(
                    made,
                    left=self.left + change.units,
                    offered=self.offered + change.units,
                    state=change.state or self.state,
                )
            states.append(made)
        assert made.change is not None
        down = min(0, change.units) if made.change.made else 0
        ended = replace(made, change=None, stock=made.stock + down, initial=made.initial + down)
        return [*states, ended]

    def _with(self, order: int, status: int) -> "World":
        return replace(self, rows={**self.rows, order: replace(self.rows[order], status=status)})

    def _ended(self, order: int) -> "World":
        after = self._with(order, CANCELLED)
        return replace(after, stock=self.stock + 1, owed=self.owed | {order})

    def _given_back(self, orders: "frozenset[int] | list[int]") -> Iterator["World"]:
        gone = {user: order for user, order in self.receipts.items() if order in orders}
        receipts = {u: o for u, o in self.receipts.items() if u not in gone}
        given = replace(self, receipts=receipts, left=self.left + len(gone))
        yield given
        yield replace(given, owed=self.owed - frozenset(orders))
