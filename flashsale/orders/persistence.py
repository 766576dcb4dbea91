"""Orders to rows: one transaction a batch, and what became of each; nothing is dropped or guessed.

1. All new, the common case: one transaction.
2. Some are rows already (a batch whose acknowledgement was lost): those are done, the rest is
   tried again as a batch.
3. It still does not go: each is judged alone. Only here, while MySQL answers, is an order found
   to be in conflict or short of stock.

This is where 20,000 orders a second have to pass. The driver's own way with parameters costs
more than MariaDB's work on the row, so the rows are written out here: numbers that were parsed
as such, and a time that is made of one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from sqlalchemy import Connection, Engine, select

from flashsale.errors import Indeterminate, Unavailable
from flashsale.failpoints import reach
from flashsale.keys import WHOLE, Lane
from flashsale.model import ID_MAX
from flashsale.orders.stream import Order
from flashsale.seckill.ids import COUNTER_MAX, day_of
from flashsale.storage.mysql import Duplicate, transaction
from flashsale.storage.tables import voucher_order

_INSERT = "INSERT INTO tb_voucher_order (id, user_id, voucher_id, create_time) VALUES "
_POSITION = "INSERT INTO tb_stream_position (stream, last_ms, last_seq) VALUES "
_RAISED = (
    " ON DUPLICATE KEY UPDATE "
    "last_seq = IF((VALUES(last_ms), VALUES(last_seq)) > (last_ms, last_seq), "
    "VALUES(last_seq), last_seq), "
    "last_ms = GREATEST(last_ms, VALUES(last_ms))"
)


_COUNTED_MAX = 2**31
"""A counter beyond is of no id that was leased here, and would close every sale of its day."""


class Superseded(Exception):  # noqa: N818 - a fact about the data, not a bug
    """A permit may have been written since these orders were read: the ledger that they came from
    may be gone. They are to be read again, under the generation of this moment."""

    def __init__(self, generation: int) -> None:
        super().__init__(f"superseded by generation {generation}")
        self.generation = generation


class ShortStock(Exception):  # noqa: N818 - a fact about the data, not a bug
    """MySQL has fewer units of a voucher than the batch needs, or no such sale."""


@dataclass(frozen=True, slots=True)
class Known:
    """What MySQL already has for a batch."""

    same: frozenset[Order]
    """Orders that are rows, with the same user and voucher."""
    conflicts: dict[Order, str]
    """Orders that can never become rows, with the reason."""


@dataclass
class Persisted:
    """What became of a batch; every order is in exactly one list."""

    written: list[Order] = field(default_factory=list)
    repeated: list[Order] = field(default_factory=list)
    rejected: list[tuple[Order, str]] = field(default_factory=list)
    waiting: list[Order] = field(default_factory=list)
    trouble: str = ""
    superseded_by: int | None = None
    """The generation under which `waiting` are to be read again."""

    @property
    def done(self) -> list[Order]:
        """The orders that are rows."""
        return self.written + self.repeated


def persist(
    pool: Engine, orders: Sequence[Order], generation: int = 0, lane: Lane = WHOLE
) -> Persisted:
    """Make `orders` of one lane rows, read under this generation (`read_generation`). What MySQL
    could not be asked for now, or refused as superseded, is `waiting`; never raises it."""
    result = Persisted()
    try:
        _as_batch(pool, orders, generation, lane, result)
    except (Unavailable, Indeterminate, Superseded) as trouble:
        result.trouble = str(trouble)
        if isinstance(trouble, Superseded):
            result.superseded_by = trouble.generation
        judged = {id(order) for order in result.done}
        judged |= {id(order) for order, _ in result.rejected}
        result.waiting = [order for order in orders if id(order) not in judged]
    return result


def _as_batch(
    pool: Engine, orders: Sequence[Order], generation: int, lane: Lane, result: Persisted
) -> None:
    if _written(pool, orders, generation, lane, result):
        return
    rest = _sifted(pool, orders, result)
    if not rest or (len(rest) < len(orders) and _written(pool, rest, generation, lane, result)):
        return
    for order in rest:
        _alone(pool, order, generation, lane, result)


def _written(
    pool: Engine, orders: Sequence[Order], generation: int, lane: Lane, result: Persisted
) -> bool:
    try:
        write(pool, orders, generation, lane)
    except (Duplicate, ShortStock):
        return False
    result.written += orders
    return True


def _sifted(pool: Engine, orders: Sequence[Order], result: Persisted) -> list[Order]:
    """Set aside what MySQL knows of `orders`; the rest is new to it."""
    known = find_known(pool, orders)
    rest = []
    for order in orders:
        if order in known.same:
            result.repeated.append(order)
        elif order in known.conflicts:
            result.rejected.append((order, known.conflicts[order]))
        else:
            rest.append(order)
    return rest


def _alone(pool: Engine, order: Order, generation: int, lane: Lane, result: Persisted) -> None:
    try:
        write(pool, [order], generation, lane)
        result.written.append(order)
    except ShortStock as short:
        result.rejected.append((order, str(short)))
    except Duplicate:  # a row since the last look: the next look knows which
        result.waiting += _sifted(pool, [order], result)


def read_generation(connection: Connection, lane: Lane = WHOLE) -> int:
    """The generation that a worker's transaction belongs to, held until the transaction ends: no
    permit is written in between (seckill/permit.py). 0 before the first one."""
    query = "SELECT last_ms FROM tb_stream_position WHERE stream = %s LOCK IN SHARE MODE"
    return int(connection.exec_driver_sql(query, (lane.permit,)).scalar() or 0)


def write(pool: Engine, orders: Sequence[Order], generation: int = 0, lane: Lane = WHOLE) -> None:
    """Write `orders`, in the stream's order, take their units, note the position in the stream and
    how far their ids were counted: all or nothing.

    Raises Superseded, Duplicate (some are rows already, or in conflict), ShortStock, Unavailable
    or Indeterminate; only after Indeterminate may the rows be there.
    """
    rows = ",".join(map(_row, orders))
    positions = ",".join(
        f"('{name}',{ms},{seq})" for name, (ms, seq) in sorted(_positions(orders, lane).items())
    )  # by name, as the sales: all workers lock in one order
    units = Counter(order.voucher_id for order in orders)
    with transaction(pool) as connection:
        found = read_generation(connection, lane)
        if found != generation:
            raise Superseded(found)
        reach("rows.begun")
        connection.exec_driver_sql(_INSERT + rows)
        reach("rows.inserted")
        _take(connection, units)
        reach("rows.units_taken")
        if positions:
            connection.exec_driver_sql(f"{_POSITION}{positions}{_RAISED}")
        reach("rows.positioned")
    reach("rows.committed")


def _positions(orders: Sequence[Order], lane: Lane) -> Mapping[str, tuple[int, int]]:
    """How far these orders show the ledger to be, by the names that MySQL knows it under. Pure."""
    found = {}
    if max(orders[-1].position) <= ID_MAX:  # where somebody wrote an id beyond, ours follow it
        found[lane.stream_orders] = orders[-1].position
    for seconds, number in _counted(orders).items():
        if number < _COUNTED_MAX:
            name = lane.order_counter(day_of(seconds))
            found[name] = max(found.get(name, (0, 0)), (number // lane.lanes, 0))
    return found


def _counted(orders: Sequence[Order]) -> Mapping[int, int]:
    """The highest number of each second of their ids: a batch has few seconds, and days cost."""
    highest: dict[int, int] = {}
    for order in orders:
        second, number = order.order_id >> 32, order.order_id & COUNTER_MAX
        if number > highest.get(second, -1):
            highest[second] = number
    return highest


def _row(order: Order) -> str:
    seconds, millis = divmod(order.accepted_ms, 1000)
    stamp = f"'{_second(seconds)}.{millis:03}'"
    return f"({order.order_id},{order.user_id},{order.voucher_id},{stamp})"


@lru_cache(maxsize=1024)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _take(connection: Connection, units: Mapping[int, int]) -> None:
    """Take the units of every voucher in one statement, or raise ShortStock.

    One statement a voucher is 110 round trips under 110 vouchers. The primary key is read in
    ascending order, so that all workers lock the sales in the same one.
    """
    share = " ".join(f"WHEN {voucher} THEN {count}" for voucher, count in units.items())
    share = f"CASE voucher_id {share} END"
    vouchers = ",".join(map(str, sorted(units)))
    taken = connection.exec_driver_sql(
        f"UPDATE tb_seckill_voucher SET stock = stock - {share} "  # noqa: S608 - numbers alone
        f"WHERE voucher_id IN ({vouchers}) AND stock >= {share}"
    )
    if taken.rowcount != len(units):
        raise ShortStock(f"MySQL has fewer units than {dict(units)}, by voucher")


def find_known(pool: Engine, orders: Sequence[Order]) -> Known:
    """Which of `orders` are rows, and which are in conflict with one. Raises Unavailable."""
    column = voucher_order.c
    query = select(column.id, column.user_id, column.voucher_id, column.live).where(
        column.id.in_([order.order_id for order in orders])
    )
    holders = select(column.id, column.user_id, column.voucher_id).where(
        column.live.is_not(None), column.user_id.in_([order.user_id for order in orders])
    )
    with transaction(pool) as connection:
        by_id = {row.id: (row.user_id, row.voucher_id) for row in connection.execute(query)}
        held = {(row.user_id, row.voucher_id): row.id for row in connection.execute(holders)}
    return compare(orders, by_id, held)


def compare(
    orders: Sequence[Order],
    by_id: dict[int, tuple[int, int]],
    held: dict[tuple[int, int], int],
) -> Known:
    """Sort `orders` by what MySQL has. Pure.

    `by_id` maps order ids to their row's user and voucher, `held` maps user and voucher to the
    live order that holds the place.
    """
    same, conflicts = set(), {}
    for order in orders:
        place = (order.user_id, order.voucher_id)
        row = by_id.get(order.order_id)
        holder = held.get(place)
        if row == place:
            same.add(order)
        elif row is not None:
            conflicts[order] = f"id taken by user {row[0]}, voucher {row[1]}"
        elif holder is not None:
            conflicts[order] = f"user holds order {holder} of this voucher"
    return Known(frozenset(same), conflicts)
