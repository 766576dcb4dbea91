"""A batch of orders to rows, and what became of each: nothing is dropped, nothing guessed.

1. All new, the common case: one transaction.
2. Some are rows already (a batch whose acknowledgement was lost): those are done, the rest is
   tried again as a batch.
3. It still does not go: each is judged alone. Only here, while MySQL answers, is an order found
   to be in conflict or short of stock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine

from flashsale.errors import Indeterminate, Unavailable
from flashsale.orders import rows
from flashsale.orders.entry import Order
from flashsale.storage.mysql import Duplicate


@dataclass
class Persisted:
    """What became of a batch; every order is in exactly one list."""

    written: list[Order] = field(default_factory=list)
    repeated: list[Order] = field(default_factory=list)
    rejected: list[tuple[Order, str]] = field(default_factory=list)
    waiting: list[Order] = field(default_factory=list)
    trouble: str = ""

    @property
    def done(self) -> list[Order]:
        """The orders that are rows."""
        return self.written + self.repeated


def persist(pool: Engine, orders: Sequence[Order]) -> Persisted:
    """Make `orders` rows. What MySQL could not be asked for now is `waiting`; never raises it."""
    result = Persisted()
    try:
        _as_batch(pool, orders, result)
    except (Unavailable, Indeterminate) as trouble:
        result.trouble = str(trouble)
        judged = {id(order) for order in result.done}
        judged |= {id(order) for order, _ in result.rejected}
        result.waiting = [order for order in orders if id(order) not in judged]
    return result


def _as_batch(pool: Engine, orders: Sequence[Order], result: Persisted) -> None:
    if _written(pool, orders, result):
        return
    rest = _sifted(pool, orders, result)
    if not rest or (len(rest) < len(orders) and _written(pool, rest, result)):
        return
    for order in rest:
        _alone(pool, order, result)


def _written(pool: Engine, orders: Sequence[Order], result: Persisted) -> bool:
    try:
        rows.write(pool, orders)
    except (Duplicate, rows.ShortStock):
        return False
    result.written += orders
    return True


def _sifted(pool: Engine, orders: Sequence[Order], result: Persisted) -> list[Order]:
    """Set aside what MySQL knows of `orders`; the rest is new to it."""
    known = rows.known(pool, orders)
    rest = []
    for order in orders:
        if order in known.same:
            result.repeated.append(order)
        elif order in known.conflicts:
            result.rejected.append((order, known.conflicts[order]))
        else:
            rest.append(order)
    return rest


def _alone(pool: Engine, order: Order, result: Persisted) -> None:
    try:
        rows.write(pool, [order])
        result.written.append(order)
    except rows.ShortStock as short:
        result.rejected.append((order, str(short)))
    except Duplicate:  # a row since the last look: the next look knows which
        result.waiting += _sifted(pool, [order], result)
