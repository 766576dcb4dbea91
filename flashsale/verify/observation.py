"""What both stores hold of some sales at one moment: the raw material of baseline and snapshot.

First what MySQL holds (stock, window, orders, as of one instant), then what the ledger holds, then
both together, read again until nothing moved meanwhile.
"""

import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pymysql.cursors import SSCursor
from redis import Redis

from flashsale import keys
from flashsale.model import LIVE_STATUSES, parse_id
from flashsale.verify.attempts import Column
from flashsale.verify.connection import Connections, Database
from flashsale.verify.queue import BEGINNING, Queue, Span, has_entries, read_queue

NO_TIME = -1
_FETCH_ROWS = 10_000
_LOOK_UP_IDS = 1_000
_LIVE = frozenset(LIVE_STATUSES)
_UNIX_MS = "COALESCE(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {0}) DIV 1000, -1)"


@dataclass(frozen=True, slots=True)
class MySQLSale:
    """A sale as tb_seckill_voucher has it. Times are Unix milliseconds."""

    initial: int
    stock: int
    begin_ms: int
    end_ms: int


@dataclass(slots=True)
class Rows:
    """The orders of one voucher, a column a fact; times are Unix milliseconds or NO_TIME. `units`
    is empty where each order is of one unit."""

    order: Column = field(default_factory=lambda: array("q"))
    user: Column = field(default_factory=lambda: array("q"))
    status: Column = field(default_factory=lambda: array("q"))
    created_ms: Column = field(default_factory=lambda: array("q"))
    persisted_ms: Column = field(default_factory=lambda: array("q"))
    units: Column = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.order)

    def is_live(self, row: int) -> bool:
        """True where the order holds a unit of stock."""
        return self.status[row] in _LIVE

    def live(self) -> Iterator[int]:
        """The positions of the live orders."""
        return (row for row, status in enumerate(self.status) if status in _LIVE)

    @property
    def live_units(self) -> int:
        """The units that live orders hold."""
        if not self.units:
            return sum(1 for _ in self.live())
        return sum(self.units[row] for row in self.live())

    def without(self, left_out: AbstractSet[int]) -> "Rows":
        """A copy without the orders at these positions."""
        kept = [row for row in range(len(self)) if row not in left_out]
        columns = (self.order, self.user, self.status, self.created_ms, self.persisted_ms)
        every = (*columns, *([self.units] if self.units else []))
        return Rows(*(array("q", [column[row] for row in kept]) for column in every))

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


def read_mysql_sales(database: Database, vouchers: Sequence[int]) -> dict[int, MySQLSale]:
    """Stock and window of each voucher that MySQL knows as a sale."""
    query = (
        "SELECT voucher_id, initial_stock, stock, "  # noqa: S608 - the only insertions are ours
        f"{_UNIX_MS.format('begin_time')}, {_UNIX_MS.format('end_time')} "
        "FROM tb_seckill_voucher WHERE voucher_id IN %s"
    )
    with database.cursor() as cursor:
        cursor.execute(query, (tuple(vouchers),))
        return {int(row[0]): MySQLSale(*map(int, row[1:])) for row in cursor.fetchall()}


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


_SCAN_COUNT = 10_000


@dataclass(frozen=True, slots=True)
class LedgerSale:
    """Stock, holders and terms of one sale; None where the ledger does not have them.

    `oddities` tells of what no script writes: keys of a wrong type, members that are no ids.
    """

    stock: int | None = None
    initial: int | None = None
    begin_ms: int | None = None
    end_ms: int | None = None
    has_terms: bool = False
    members: AbstractSet[int] = field(default_factory=frozenset)
    receipts: Mapping[int, int] = field(default_factory=dict)
    oddities: tuple[str, ...] = ()

    @property
    def gives_receipts(self) -> bool:
        """False for systems of the family that keep the order set alone."""
        return self.has_terms or bool(self.receipts)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a sale was opened with; None where the ledger does not say."""

    initial: int | None = None
    begin_ms: int | None = None
    end_ms: int | None = None


def read_terms(ledger: Redis, voucher: int) -> Terms:
    """The terms of `voucher`'s sale, without its orders."""
    key = keys.seckill_sale(voucher)
    found: Any = ledger.hgetall(key) if _has(ledger, key, "hash", []) else {}
    return Terms(*(_number(found.get(name)) for name in (b"initial", b"begin", b"end")))


Pulse = tuple[int | None, int, int]
"""Stock, members and receipts: what changes when a unit is sold or returned."""


def read_pulse(ledger: Redis, voucher: int) -> Pulse:
    """The sale's pulse; zeros for keys that are of a wrong type."""
    pipeline = ledger.pipeline(transaction=True)
    pipeline.get(keys.seckill_stock(voucher))
    pipeline.scard(keys.seckill_order(voucher))
    pipeline.hlen(keys.seckill_receipt(voucher))
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    stock, members, receipts = (0 if isinstance(r, Exception) else r for r in replies)
    return _number(stock), int(members), int(receipts)


def read_sale(ledger: Redis, voucher: int) -> LedgerSale:
    """All that the ledger holds of `voucher`'s sale."""
    odd: list[str] = []
    wanted = {
        keys.seckill_stock(voucher): "string",
        keys.seckill_sale(voucher): "hash",
        keys.seckill_order(voucher): "set",
        keys.seckill_receipt(voucher): "hash",
    }
    found = [_has(ledger, key, kind, odd) for key, kind in wanted.items()]
    stock_key, terms_key, members_key, receipts_key = (
        key if there else None for key, there in zip(wanted, found, strict=True)
    )
    stock = _read_stock(ledger, stock_key, odd) if stock_key else None
    terms: Any = ledger.hgetall(terms_key) if terms_key else {}
    members = set(_members(ledger, members_key, odd)) if members_key else set()
    receipts = dict(_receipts(ledger, receipts_key, odd)) if receipts_key else {}
    return LedgerSale(
        stock=stock,
        initial=_number(terms.get(b"initial")),
        begin_ms=_number(terms.get(b"begin")),
        end_ms=_number(terms.get(b"end")),
        has_terms=bool(terms),
        members=members,
        receipts=receipts,
        oddities=tuple(odd),
    )


def _has(ledger: Redis, key: str, kind: str, odd: list[str]) -> bool:
    answer: Any = ledger.type(key)
    found = answer.decode()
    if found not in (kind, "none"):
        odd.append(f"{key} is a {found}, not a {kind}")
    return bool(found == kind)


def _read_stock(ledger: Redis, key: str, odd: list[str]) -> int | None:
    raw: Any = ledger.get(key)
    stock = _number(raw)
    if stock is None:
        odd.append(f"{key} holds {raw!r}, which is no number")
    return stock


def _members(ledger: Redis, key: str, odd: list[str]) -> Iterator[int]:
    for raw in ledger.sscan_iter(key, count=_SCAN_COUNT):
        user = parse_id(_text(raw))
        if user is None:
            odd.append(f"{key} has the member {_text(raw)!r}, which is no user id")
        else:
            yield user


def _receipts(ledger: Redis, key: str, odd: list[str]) -> Iterator[tuple[int, int]]:
    for raw_user, raw_order in ledger.hscan_iter(key, count=_SCAN_COUNT):
        user, order = parse_id(_text(raw_user)), parse_id(_text(raw_order))
        if user is None or order is None:
            odd.append(f"{key} has {_text(raw_user)!r}: {_text(raw_order)!r}, which is no receipt")
        else:
            yield user, order


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _number(raw: bytes | int | None) -> int | None:
    try:
        return None if raw is None else int(raw)
    except ValueError:
        return None


_TRIES = 5
_TRY_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Clocks:
    """The two clocks that stamp an order: Redis when it is sold, MySQL when it is a row.

    `offset_ms` is MySQL's less Redis', right to within `error_ms`.
    """

    redis_ms: int
    mysql_ms: int
    offset_ms: float
    error_ms: float


@dataclass(frozen=True, slots=True)
class Position:
    """How far the order stream and the dead letters had come: what is later is newer.

    `added` counts the stream's entries, None where nobody counted.
    """

    entry: str = BEGINNING
    dead: str = BEGINNING
    added: int | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """Both stores at one moment. `still` is False where sales went on while they were read.

    `later` counts orders that were left out of it, by voucher, since they came after the run;
    `unplaced` those of them of which only a clock says so.
    """

    dataset: str | None
    clocks: Clocks | None
    mysql: Mapping[int, MySQLSale]
    rows: Mapping[int, Rows]
    ledger: Mapping[int, LedgerSale]
    queue: Queue = field(default_factory=Queue)
    still: bool = True
    later: Mapping[int, int] = field(default_factory=dict)
    unplaced: Mapping[int, int] = field(default_factory=dict)


def observe(stores: Connections, vouchers: Sequence[int], span: Span | None = None) -> Observation:
    """Read both stores, and `span` of the queue; again, a few times, where a sale moved meanwhile.

    Two stores have no common snapshot. MySQL is read in one transaction and Redis is felt for a
    pulse before and after it: where the two pulses agree, nothing was sold or returned between.
    The queue comes before MySQL: an order that had left it by then is in MySQL's view.
    """
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_TRY_PAUSE_S)
        observation = _observe(stores, vouchers, span or Span())
        if observation.still:
            break
    return observation


def _observe(stores: Connections, vouchers: Sequence[int], span: Span) -> Observation:
    chosen = frozenset(vouchers)
    before = _pulses(stores.ledger, vouchers)
    queue = read_queue(stores.ledger, chosen, span)
    with frozen_view(stores.database):
        return Observation(
            dataset=read_dataset(stores.database),
            clocks=read_clocks(stores),
            mysql=read_mysql_sales(stores.database, vouchers),
            rows=read_rows(stores.database, vouchers),
            ledger={voucher: read_sale(stores.ledger, voucher) for voucher in vouchers},
            queue=queue,
            still=before == _pulses(stores.ledger, vouchers)
            and not has_entries(stores.ledger, chosen, queue.last_entry),
        )


def _pulses(ledger: Redis, vouchers: Sequence[int]) -> list[Pulse]:
    return [read_pulse(ledger, voucher) for voucher in vouchers]


def read_clocks(stores: Connections) -> Clocks:
    """Both clocks, MySQL's between two looks at Redis'."""
    early = _redis_ms(stores.ledger)
    mysql_ms = read_clock_ms(stores.database)
    late = _redis_ms(stores.ledger)
    middle = (early + late) / 2
    error_ms = (late - early) / 2 + 1  # MySQL tells whole milliseconds
    return Clocks(int(middle), mysql_ms, round(mysql_ms - middle, 1), round(error_ms, 1))


def _redis_ms(ledger: Redis) -> float:
    answer: Any = ledger.time()
    seconds, micros = answer
    return float(seconds * 1000 + micros / 1000)
