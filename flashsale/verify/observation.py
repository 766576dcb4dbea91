"""What both stores hold of some sales at one moment: the raw material of baseline and snapshot.

First what MySQL holds (stock, window, orders, as of one instant), then what the ledger holds, then
both together, read again until nothing moved meanwhile.
"""

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from redis import Redis

from flashsale import keys
from flashsale.errors import UnreachableError
from flashsale.model import ID_MAX, LIVE_STATUSES, parse_id
from flashsale.verify.attempts import Column
from flashsale.verify.connection import Connections, Database
from flashsale.verify.queue import BEGINNING, Queue, Span, has_entries, read_queue

NO_TIME = -1
_COLUMNS = 5
_ROWS_AT_ONCE = 10_000
_TEXT_BYTES_MAX = 4 * 2**20
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
        return compress(range(len(self)), map(_LIVE.__contains__, self.status))

    @property
    def live_count(self) -> int:
        """How many orders are live."""
        return sum(map(self.status.count, _LIVE))

    @property
    def live_units(self) -> int:
        """The units that live orders hold."""
        if not self.units:
            return self.live_count
        return sum(self.units[row] for row in self.live())

    def without(self, left_out: AbstractSet[int]) -> "Rows":
        """A copy without the orders at these positions."""
        kept = [row for row in range(len(self)) if row not in left_out]
        columns = (self.order, self.user, self.status, self.created_ms, self.persisted_ms)
        every = (*columns, *([self.units] if self.units else []))
        return Rows(*(array("q", [column[row] for row in kept]) for column in every))

    def extend(self, numbers: Column) -> None:
        """Add orders: id, user, status, created and persisted of each, one after another."""
        self.order += numbers[0::_COLUMNS]
        self.user += numbers[1::_COLUMNS]
        self.status += numbers[2::_COLUMNS]
        self.created_ms += numbers[3::_COLUMNS]
        self.persisted_ms += numbers[4::_COLUMNS]


_ROWS = (
    "SELECT voucher_id, COUNT(*), "  # noqa: S608 - the only insertions are ours
    "GROUP_CONCAT(CONCAT_WS(' ', id, user_id, status, "
    f"{_UNIX_MS.format('create_time')}, {_UNIX_MS.format('persisted_at')}) SEPARATOR ' ') "
    "FROM (SELECT id, user_id, voucher_id, status, create_time, persisted_at "
    "FROM tb_voucher_order WHERE {}voucher_id IN %(vouchers)s "
    f"ORDER BY id LIMIT {_ROWS_AT_ONCE}) AS page GROUP BY voucher_id"
)
"""The orders of a page by the primary key, a text for each voucher."""


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
    """Every order of each voucher, in any status. Raises UnreachableError for an answer cut short.

    Some ten thousand come as one text a voucher: the driver spends its time by row and column, in
    Python, and whole columns are read from such a text in C.
    """
    orders = {voucher: Rows() for voucher in vouchers}
    with database.cursor() as cursor:
        cursor.execute("SET SESSION group_concat_max_len = %s", (_TEXT_BYTES_MAX,))
        last: int | None = None
        while True:
            cursor.execute(_ROWS.format("" if last is None else "id > %(last)s AND "),
                           {"last": last, "vouchers": tuple(vouchers)})  # fmt: skip
            groups = cursor.fetchall()
            for voucher, count, text in groups:
                columns = array("q", map(int, text.split()))
                if len(columns) != count * _COLUMNS:
                    raise UnreachableError(
                        "MySQL cut its answer short; raise max_allowed_packet to 16M or more"
                    )
                orders[voucher].extend(columns)
                last = max(last or 0, *columns[::_COLUMNS])
            if not groups:
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
_DIGITS_MAX = len(str(ID_MAX))


@dataclass(frozen=True, slots=True)
class LedgerSale:
    """Stock, holders and terms of one sale; None where the ledger does not have them.

    `oddities` tells of what no script writes: keys of a wrong type, members that are no ids.
    `restocked` counts the units that ever came by restocks; those that went are not taken off it.
    """

    stock: int | None = None
    initial: int | None = None
    begin_ms: int | None = None
    end_ms: int | None = None
    has_terms: bool = False
    members: AbstractSet[int] = field(default_factory=frozenset)
    receipts: Mapping[int, int] = field(default_factory=dict)
    oddities: tuple[str, ...] = ()
    restocked: int = 0

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
    restocked: int | None = None


_TERMS = (b"initial", b"begin", b"end", b"restocked")


def read_terms(ledger: Redis, voucher: int) -> Terms:
    """The terms of `voucher`'s sale, without its orders."""
    key = keys.seckill_sale(voucher)
    found: Any = ledger.hgetall(key) if _has(ledger, key, "hash", []) else {}
    return Terms(*(_number(found.get(name)) for name in _TERMS))


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
        restocked=_number(terms.get(b"restocked")) or 0,
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
    pages = _pages(lambda cursor: ledger.sscan(key, cursor, count=_SCAN_COUNT))
    for found in pages:
        users = _ids(found)
        if users is not None:
            yield from users
            continue
        for raw in found:
            user = parse_id(_text(raw))
            if user is None:
                odd.append(f"{key} has the member {_text(raw)!r}, which is no user id")
            else:
                yield user


def _receipts(ledger: Redis, key: str, odd: list[str]) -> Iterator[tuple[int, int]]:
    pages = _pages(lambda cursor: ledger.hscan(key, cursor, count=_SCAN_COUNT))
    for found in pages:
        users, orders = _ids(found.keys()), _ids(found.values())
        if users is not None and orders is not None:
            yield from zip(users, orders, strict=True)
            continue
        for raw_user, raw_order in found.items():
            user, order = parse_id(_text(raw_user)), parse_id(_text(raw_order))
            if user is None or order is None:
                told = f"{_text(raw_user)!r}: {_text(raw_order)!r}"
                odd.append(f"{key} has {told}, which is no receipt")
            else:
                yield user, order


def _pages(scan: Callable[[int], Any]) -> Iterator[Any]:
    """What a scan finds, page by page."""
    cursor, found = scan(0)
    yield found
    while cursor:
        cursor, found = scan(cursor)
        yield found


def _ids(found: Iterable[bytes]) -> list[int] | None:
    """What parse_id makes of all of them; None where one of them needs to be looked at."""
    texts = list(found)
    digits = b"".join(texts).isdigit() and min(map(len, texts)) > 0
    if not digits or max(map(len, texts)) > _DIGITS_MAX:
        return None if texts else []
    ids = list(map(int, texts))
    return ids if min(ids) > 0 and max(ids) <= ID_MAX else None


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
    with frozen_view(stores.database), ThreadPoolExecutor(1) as beside:
        dataset, clocks = read_dataset(stores.database), read_clocks(stores)
        sales = read_mysql_sales(stores.database, vouchers)
        # Both stores answer at once; of the rows it does not matter when they are read in the view.
        rows = beside.submit(read_rows, stores.database, vouchers)
        return Observation(
            dataset=dataset,
            clocks=clocks,
            mysql=sales,
            ledger={voucher: read_sale(stores.ledger, voucher) for voucher in vouchers},
            rows=rows.result(),
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
