"""What each store holds of a sale, read over the judge's own connections, which only read: MySQL's
stock, window and orders, as of one instant; the ledger's stock, holders, receipts and terms.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import pymysql
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from flashsale.errors import NothingJudgedError, UnreachableError
from flashsale.keys import SINGLE, WHOLE, Lane
from flashsale.model import LIVE_STATUSES, parse_id
from flashsale.primaries import client_url, cluster_client, follow, told_of
from flashsale.store_urls import (
    CONNECT_TIMEOUT_S,
    LaneClient,
    MySQLConnection,
    lane_of,
    layout_of,
    mysql_arguments,
    of_node,
    open_mysql,
    read_ledger_url,
    read_mysql_url,
    read_redis_url,
)
from flashsale.verify.attempts import Column, ids_in

READ_TIMEOUT_S = 120
_NO_SUCH_TABLE, _NO_SUCH_COLUMN = 1146, 1054

Database = MySQLConnection


@dataclass(frozen=True, slots=True)
class StoreConnections:
    """One connection to each lane of the ledger, and one to MySQL, whose session is UTC and reads
    only."""

    lanes: Sequence[Redis]
    database: Database

    @property
    def ledger(self) -> Redis:
        """The first of the lanes: the whole, where the ledger is one server."""
        return self.lanes[0]

    def of(self, voucher: int) -> Redis:
        """The client of the lane that has a voucher's sale."""
        return self.lanes[voucher % len(self.lanes)]


@contextmanager
def connect(ledger_url: str, mysql_url: str) -> Iterator[StoreConnections]:
    """Open both, close both; the block's driver errors become ours.

    Raises UnreachableError where a store does not answer or refuses, NothingJudgedError where
    MySQL has not the tables of a sale, UsageError where a URL is not one.
    """
    with _ledger(ledger_url) as lanes, _database(mysql_url) as database:
        yield StoreConnections(lanes, database)


@contextmanager
def _ledger(url: str) -> Iterator[Sequence[Redis]]:
    place = read_ledger_url(url, "--ledger-url")
    lanes: list[Redis] = []
    try:
        nodes = [(url, WHOLE)] if layout_of(url) is SINGLE else _masters(url)
        for node, lane in nodes:
            with open_redis(node, CONNECT_TIMEOUT_S) as first:
                first.ping()
            lanes.append(open_redis(node, READ_TIMEOUT_S, lane))
        yield lanes
    except (RedisError, RedisClusterException) as error:
        raise UnreachableError(
            f"the ledger {place} cannot be read ({told_of(error)}); "
            "start it, or name another with --ledger-url"
        ) from error
    finally:
        for ledger in lanes:
            ledger.close()


def _masters(url: str) -> list[tuple[str, Lane]]:
    """Where each lane of a cluster's ledger is now: its master's URL."""
    found = []
    with cluster_client(url, CONNECT_TIMEOUT_S) as cluster:
        for lane in layout_of(url).lanes:
            node = cluster.get_node_from_key(lane.hash_tag)
            found.append((of_node(url, (str(node.host), int(node.port))), lane))
    return found


def open_redis(url: str, timeout_s: float, lane: Lane = WHOLE) -> Redis:
    """A client that asks once, and waits `timeout_s` for an answer; of a cluster's ledger one lane
    alone, at its master."""
    place = read_redis_url(url)
    client = (Redis if lane is WHOLE else LaneClient).from_url(
        client_url(place, url),
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=timeout_s,
    )
    follow(client.connection_pool, place)
    if isinstance(client, LaneClient):
        client.lane = lane
    return client


@contextmanager
def _database(url: str) -> Iterator[Database]:
    place = read_mysql_url(url, "--mysql-url")
    database = None
    try:
        database = open_mysql(
            **mysql_arguments(place, read_timeout_s=READ_TIMEOUT_S), autocommit=True
        )
        yield database
    except pymysql.MySQLError as error:
        code, text = (*error.args, 0, "")[:2] if error.args else (0, str(error))
        if code in (_NO_SUCH_TABLE, _NO_SUCH_COLUMN):
            raise NothingJudgedError(
                f"{place} holds no sale ({text}); seed it with `flashsale seed`, "
                "or name another with --mysql-url"
            ) from error
        raise UnreachableError(
            f"{place} cannot be read ({text}); start it, or name another with --mysql-url"
        ) from error
    finally:
        if database is not None and database.open:
            database.close()


NO_TIME = -1
_COLUMNS = 5
_ROWS_AT_ONCE = 10_000
_TEXT_BYTES_MAX = 4 * 2**20
_LIVE = frozenset(LIVE_STATUSES)
UNIX_MS = "COALESCE(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {0}) DIV 1000, -1)"


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
    _live_of: tuple[int, int] = field(default=(0, 0), init=False, compare=False, repr=False)

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
        """How many orders are live. Counted once for as long as no order is added."""
        if self._live_of[0] != len(self):
            self._live_of = len(self), sum(map(_LIVE.__contains__, self.status))
        return self._live_of[1]

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


_HEX = "LPAD(HEX({}), 16, '0')"  # two's complement of 64 bits, the highest first
_ROW = ", ".join(
    _HEX.format(column)
    for column in (
        *("id", "user_id", "status"),
        *(UNIX_MS.format(moment) for moment in ("create_time", "persisted_at")),
    )
)
_ROWS = (
    "SELECT voucher_id, COUNT(*), "  # noqa: S608 - the only insertions are ours
    f"GROUP_CONCAT({_ROW} SEPARATOR '') "
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


def read_mysql_sales(database: Database, vouchers: Sequence[int]) -> dict[int, MySQLSale]:
    """Stock and window of each voucher that MySQL knows as a sale."""
    query = (
        "SELECT voucher_id, initial_stock, stock, "  # noqa: S608 - the only insertions are ours
        f"{UNIX_MS.format('begin_time')}, {UNIX_MS.format('end_time')} "
        "FROM tb_seckill_voucher WHERE voucher_id IN %s"
    )
    with database.cursor() as cursor:
        cursor.execute(query, (tuple(vouchers),))
        return {int(row[0]): MySQLSale(*map(int, row[1:])) for row in cursor.fetchall()}


def read_rows(database: Database, vouchers: Sequence[int]) -> dict[int, Rows]:
    """Every order of each voucher, in any status. Raises UnreachableError for an answer cut short.

    Some ten thousand come as one text a voucher: the driver spends its time by row and column, in
    Python, and whole columns are read from such a text in C, where they are of one width.
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
                columns = _columns(text)
                if len(columns) != count * _COLUMNS:
                    raise UnreachableError(
                        "MySQL cut its answer short; raise max_allowed_packet to 16M or more"
                    )
                orders[voucher].extend(columns)
                last = max(last or 0, *columns[::_COLUMNS])
            if not groups:
                return orders


def _columns(text: str) -> Column:
    """The numbers in a text of `_HEX`; none where its end was cut off."""
    columns = array("q")
    with suppress(ValueError):
        columns.frombytes(bytes.fromhex(text))
    if sys.byteorder == "little":
        columns.byteswap()
    return columns


_SCAN_COUNT = 10_000


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
    key = lane_of(ledger).seckill_sale(voucher)
    found: Any = ledger.hgetall(key) if _has(ledger, key, "hash", []) else {}
    return Terms(*(number_of(found.get(name)) for name in _TERMS))


def read_sale(ledger: Redis, voucher: int) -> LedgerSale:
    """All that the ledger holds of `voucher`'s sale."""
    odd: list[str] = []
    lane = lane_of(ledger)
    wanted = {
        lane.seckill_stock(voucher): "string",
        lane.seckill_sale(voucher): "hash",
        lane.seckill_order(voucher): "set",
        lane.seckill_receipt(voucher): "hash",
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
        initial=number_of(terms.get(b"initial")),
        begin_ms=number_of(terms.get(b"begin")),
        end_ms=number_of(terms.get(b"end")),
        has_terms=bool(terms),
        members=members,
        receipts=receipts,
        oddities=tuple(odd),
        restocked=number_of(terms.get(b"restocked")) or 0,
    )


def _has(ledger: Redis, key: str, kind: str, odd: list[str]) -> bool:
    answer: Any = ledger.type(key)
    found = answer.decode()
    if found not in (kind, "none"):
        odd.append(f"{key} is a {found}, not a {kind}")
    return bool(found == kind)


def _read_stock(ledger: Redis, key: str, odd: list[str]) -> int | None:
    raw: Any = ledger.get(key)
    stock = number_of(raw)
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
    return ids_in(b",".join(texts), len(texts)) if texts else []


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def number_of(raw: bytes | int | None) -> int | None:
    try:
        return None if raw is None else int(raw)
    except ValueError:
        return None
