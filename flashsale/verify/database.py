"""What MySQL holds of some sales: stock, window and orders, as of one instant."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field

from pymysql.cursors import SSCursor

from flashsale.model import LIVE_STATUSES
from flashsale.verify.claims import Column
from flashsale.verify.connection import Database

NO_TIME = -1
_FETCH_ROWS = 10_000
_LOOK_UP_IDS = 1_000
_LIVE = frozenset(LIVE_STATUSES)
_UNIX_MS = "COALESCE(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {0}) DIV 1000, -1)"


@dataclass(frozen=True, slots=True)
class Shelf:
    """A sale as tb_seckill_voucher has it. Times are Unix milliseconds."""

    initial: int
    stock: int
    begin_ms: int
    end_ms: int


@dataclass(slots=True)
class Rows:
    """The orders of one voucher, a column a fact; times are Unix milliseconds or NO_TIME."""

    order: Column = field(default_factory=lambda: array("q"))
    user: Column = field(default_factory=lambda: array("q"))
    status: Column = field(default_factory=lambda: array("q"))
    created_ms: Column = field(default_factory=lambda: array("q"))
    persisted_ms: Column = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.order)

    def is_live(self, row: int) -> bool:
        """True where the order holds a unit of stock."""
        return self.status[row] in _LIVE

    def live(self) -> Iterator[int]:
        """The positions of the live orders."""
        return (row for row, status in enumerate(self.status) if status in _LIVE)

    def without(self, left_out: AbstractSet[int]) -> "Rows":
        """A copy without the orders at these positions."""
        kept = [row for row in range(len(self)) if row not in left_out]
        columns = (self.order, self.user, self.status, self.created_ms, self.persisted_ms)
        return Rows(*(array("q", [column[row] for row in kept]) for column in columns))

    def append(self, row: Sequence[int]) -> None:
        """Add an order: id, user, status, created, persisted."""
        self.order.append(row[0])
        self.user.append(row[1])
        self.status.append(row[2])
        self.created_ms.append(row[3])
        self.persisted_ms.append(row[4])


@contextmanager
def frozen_view(database: Database) -> Iterator[None]:
    """Everything read inside the block is of one instant; nothing can be written."""
    with database.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    try:
        yield
    finally:
        if database.open:
            database.rollback()


def read_dataset(database: Database) -> str | None:
    """The id of the data set that was seeded here, None where nothing was."""
    with database.cursor() as cursor:
        cursor.execute("SELECT id FROM tb_dataset ORDER BY id")
        return " ".join(str(row[0]) for row in cursor.fetchall()) or None


def read_clock_ms(database: Database) -> int:
    """MySQL's clock, Unix milliseconds."""
    with database.cursor() as cursor:
        cursor.execute(f"SELECT {_UNIX_MS.format('UTC_TIMESTAMP(3)')}")
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def read_shelves(database: Database, vouchers: Sequence[int]) -> dict[int, Shelf]:
    """Stock and window of each voucher that MySQL knows as a sale."""
    query = (
        "SELECT voucher_id, initial_stock, stock, "  # noqa: S608 - the only insertions are ours
        f"{_UNIX_MS.format('begin_time')}, {_UNIX_MS.format('end_time')} "
        "FROM tb_seckill_voucher WHERE voucher_id IN %s"
    )
    with database.cursor() as cursor:
        cursor.execute(query, (tuple(vouchers),))
        return {int(row[0]): Shelf(*map(int, row[1:])) for row in cursor.fetchall()}


def read_rows(database: Database, vouchers: Sequence[int]) -> dict[int, Rows]:
    """Every order of each voucher, in any status.

    A row comes as one text: the driver spends its time by the column, in Python, and a million
    rows are read in half the time so.
    """
    query = (
        "SELECT CONCAT_WS(' ', voucher_id, id, user_id, status, "  # noqa: S608 - all ours
        f"{_UNIX_MS.format('create_time')}, {_UNIX_MS.format('persisted_at')}) "
        "FROM tb_voucher_order WHERE voucher_id IN %s"
    )
    orders = {voucher: Rows() for voucher in vouchers}
    with database.cursor(SSCursor) as cursor:
        cursor.execute(query, (tuple(vouchers),))
        while batch := cursor.fetchmany(_FETCH_ROWS):
            for (text,) in batch:
                voucher, *row = map(int, text.split())
                orders[voucher].append(row)
    return orders


def read_owners(database: Database, orders: Iterable[int]) -> dict[int, tuple[int, int]]:
    """User and voucher of each of `orders` that is a row, under whatever voucher."""
    query = "SELECT id, user_id, voucher_id FROM tb_voucher_order WHERE id IN %s"
    wanted = list(orders)
    owners: dict[int, tuple[int, int]] = {}
    with database.cursor() as cursor:
        for start in range(0, len(wanted), _LOOK_UP_IDS):
            cursor.execute(query, (tuple(wanted[start : start + _LOOK_UP_IDS]),))
            owners.update((row[0], (row[1], row[2])) for row in cursor.fetchall())
    return owners
