"""Both stores at one moment, read again until nothing moved meanwhile; and the first such moment of
a run, the baseline: what was there before, so that earlier runs do not disturb the judgement.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import index
from pathlib import Path
from typing import Any, TypeVar

import orjson
from redis import Redis

from flashsale.errors import NothingJudgedError
from flashsale.run.folder import BASELINE_FILE, read_file
from flashsale.store_urls import lane_of
from flashsale.verify.queue import BEGINNING, Queue, Span, entry_id, has_entries, read_queue
from flashsale.verify.stores import (
    UNIX_MS,
    Database,
    LedgerSale,
    MySQLSale,
    Rows,
    StoreConnections,
    connect,
    frozen_view,
    number_of,
    read_dataset,
    read_mysql_sales,
    read_rows,
    read_sale,
)

_TRIES = 5
_TRY_PAUSE_S = 0.2


def read_clock_ms(database: Database) -> int:
    """MySQL's clock, Unix milliseconds."""
    with database.cursor() as cursor:
        cursor.execute(f"SELECT {UNIX_MS.format('UTC_TIMESTAMP(3)')}")
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


Pulse = tuple[int | None, int, int]
"""Stock, members and receipts: what changes when a unit is sold or returned."""


def read_pulse(ledger: Redis, voucher: int) -> Pulse:
    """The sale's pulse; zeros for keys that are of a wrong type."""
    pipeline = ledger.pipeline(transaction=True)
    lane = lane_of(ledger)
    pipeline.get(lane.seckill_stock(voucher))
    pipeline.scard(lane.seckill_order(voucher))
    pipeline.hlen(lane.seckill_receipt(voucher))
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    stock, members, receipts = (0 if isinstance(r, Exception) else r for r in replies)
    return number_of(stock), int(members), int(receipts)


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


def observe(
    stores: StoreConnections, vouchers: Sequence[int], span: Span | None = None
) -> Observation:
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


def _observe(stores: StoreConnections, vouchers: Sequence[int], span: Span) -> Observation:
    chosen = frozenset(vouchers)
    before = _pulses(stores, vouchers)
    queue = read_queue(stores.lanes, chosen, span)
    with frozen_view(stores.database), ThreadPoolExecutor(1) as beside:
        dataset, clocks = read_dataset(stores.database), read_clocks(stores)
        sales = read_mysql_sales(stores.database, vouchers)
        # Both stores answer at once; of the rows it does not matter when they are read in the view.
        rows = beside.submit(read_rows, stores.database, vouchers)
        return Observation(
            dataset=dataset,
            clocks=clocks,
            mysql=sales,
            ledger={voucher: read_sale(stores.of(voucher), voucher) for voucher in vouchers},
            rows=rows.result(),
            queue=queue,
            still=before == _pulses(stores, vouchers)
            and not has_entries(stores.lanes, chosen, queue.last_entry),
        )


def _pulses(stores: StoreConnections, vouchers: Sequence[int]) -> list[Pulse]:
    return [read_pulse(stores.of(voucher), voucher) for voucher in vouchers]


def read_clocks(stores: StoreConnections) -> Clocks:
    """Both clocks, MySQL's between two looks at Redis'; of several lanes, the one between those
    that are furthest apart."""
    early = [_redis_ms(ledger) for ledger in stores.lanes]
    mysql_ms = read_clock_ms(stores.database)
    late = [_redis_ms(ledger) for ledger in stores.lanes]
    middles = [(a + b) / 2 for a, b in zip(early, late, strict=True)]
    middle = (min(middles) + max(middles)) / 2
    error_ms = (max(late) - min(early)) / 2 + 1  # MySQL tells whole milliseconds
    return Clocks(int(middle), mysql_ms, round(mysql_ms - middle, 1), round(error_ms, 1))


def _redis_ms(ledger: Redis) -> float:
    answer: Any = ledger.time()
    seconds, micros = answer
    return float(seconds * 1000 + micros / 1000)


SCHEMA = 1


@dataclass(frozen=True, slots=True)
class SaleBefore:
    """One sale before the run. Its orders are known by id, so that no clock has to be trusted.

    `live` and `ended` are rows; `queued` are receipts that were no rows yet. `unsettled` are users
    on whom order set, receipts and rows did not agree: whatever came of them is not this run's.
    `restocked` units had come by restocks, by the ledger's count.
    """

    mysql: MySQLSale | None = None
    redis_stock: int | None = None
    redis_initial: int | None = None
    begin_ms: int | None = None
    end_ms: int | None = None
    members: int = 0
    gives_receipts: bool = False
    live: frozenset[int] = frozenset()
    ended: frozenset[int] = frozenset()
    queued: frozenset[int] = frozenset()
    unsettled: frozenset[int] = frozenset()
    restocked: int = 0
    units: int | None = None  # that live orders hold, where that is not one each

    def knows(self, order: int) -> bool:
        """True for an order that existed before the run."""
        return order in self.live or order in self.ended or order in self.queued

    @property
    def live_units(self) -> int:
        """The units that live orders held."""
        return len(self.live) if self.units is None else self.units

    @property
    def mysql_drift(self) -> int:
        """Units that were missing from MySQL's books already."""
        return self.mysql.initial - self.mysql.stock - self.live_units if self.mysql else 0

    @property
    def redis_drift(self) -> int:
        """Units that were missing from the ledger's books already."""
        if self.redis_stock is None or self.redis_initial is None:
            return 0
        return self.redis_initial - self.redis_stock - self.members


@dataclass(frozen=True, slots=True)
class Baseline:
    """Both stores before the barrier."""

    dataset: str | None
    sales: Mapping[int, SaleBefore]
    position: Position = field(default_factory=Position)
    trimmed: int = 0
    stream_exists: bool = False
    clocks: Clocks | None = None

    def to_json(self) -> bytes:
        """The content of baseline.json."""
        document = {
            "schema": SCHEMA,
            "taken_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "dataset": self.dataset,
            "clocks": self.clocks,
            "stream": {
                "exists": self.stream_exists,
                "last_entry": self.position.entry,
                "added": self.position.added,
                "trimmed": self.trimmed,
            },
            "dead_letters": {"last_entry": self.position.dead},
            "vouchers": {str(v): _sale_to_json(sale) for v, sale in self.sales.items()},
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def take(ledger_url: str, mysql_url: str, vouchers: Sequence[int]) -> Baseline:
    """The baseline of the sales of `vouchers`, read now: before the first claim is sent.

    Raises UnreachableError where a store does not answer, NothingJudgedError where the sales are
    being sold from already, so that before and after cannot be told apart.
    """
    with connect(ledger_url, mysql_url) as stores:
        return baseline_of(observe(stores, vouchers))


def baseline_of(observation: Observation) -> Baseline:
    """The baseline that `observation` makes. Pure."""
    if not observation.still:
        raise NothingJudgedError("the sale moves already: no baseline could be taken before it")
    queue = observation.queue
    if queue.backlog.total and not all(s.gives_receipts for s in observation.ledger.values()):
        raise NothingJudgedError(
            "orders of an earlier run are still queued, and without receipts they cannot be told "
            "from new ones; wait until they are rows"
        )
    return Baseline(
        dataset=observation.dataset,
        sales={
            voucher: _sale_before(observation.mysql.get(voucher), rows, ledger)
            for voucher, rows in observation.rows.items()
            if (ledger := observation.ledger.get(voucher)) is not None
        },
        position=Position(queue.last_entry, queue.dead_last, queue.added),
        trimmed=queue.trimmed,
        stream_exists=queue.exists,
        clocks=observation.clocks,
    )


def _sale_before(mysql: MySQLSale | None, rows: Rows, ledger: LedgerSale) -> SaleBefore:
    live = {rows.order[row]: rows.user[row] for row in rows.live()}
    every = set(rows.order)
    return SaleBefore(
        mysql=mysql,
        redis_stock=ledger.stock,
        redis_initial=ledger.initial,
        begin_ms=ledger.begin_ms,
        end_ms=ledger.end_ms,
        members=len(ledger.members),
        gives_receipts=ledger.gives_receipts,
        live=frozenset(live),
        ended=frozenset(every - live.keys()),
        queued=frozenset(ledger.receipts.values()) - every,
        unsettled=_unsettled(ledger, {user: order for order, user in live.items()}),
        restocked=ledger.restocked,
        units=rows.live_units if rows.units else None,
    )


def _unsettled(ledger: LedgerSale, live: Mapping[int, int]) -> frozenset[int]:
    users = ledger.members ^ live.keys()
    if ledger.gives_receipts:
        users = users | {u for u, _ in ledger.receipts.items() ^ live.items()}
    return frozenset(users)


def read_baseline(run_dir: Path) -> Baseline | None:
    """The baseline in `run_dir`, None where the storm could not take one.

    Raises NothingJudgedError for a file that is not one.
    """
    what = f"not a baseline of schema {SCHEMA}; without the file, verify judges less but does judge"
    return read_document(run_dir / BASELINE_FILE, from_json, what)


Document = TypeVar("Document")


def read_document(path: Path, read: Callable[[bytes], Document], damaged: str) -> Document | None:
    """What `read` makes of a run's file, None where there is none.

    Raises NothingJudgedError for a file that it cannot read, which is then `damaged`.
    """
    try:
        return read(read_file(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NothingJudgedError(f"{path} cannot be read ({error.strerror})") from error
    except (
        *(ValueError, KeyError, TypeError),
        *(AttributeError, OverflowError, RecursionError),
    ) as error:
        raise NothingJudgedError(f"{path} is damaged: {damaged}") from error


def from_json(text: bytes) -> Baseline:
    """What to_json wrote. Raises ValueError, KeyError or TypeError for anything else."""
    document = orjson.loads(text)
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']!r}")
    stream, clocks = document["stream"], document["clocks"]
    if not isinstance(document["dataset"], str | None):
        raise TypeError("dataset: expected text")
    return Baseline(
        dataset=document["dataset"],
        sales={int(v): _sale_from_json(sale) for v, sale in document["vouchers"].items()},
        position=Position(
            entry_id(stream["last_entry"]),
            entry_id(document["dead_letters"]["last_entry"]),
            whole_or_none(stream.get("added")),
        ),
        trimmed=index(stream["trimmed"]),
        stream_exists=stream["exists"],
        clocks=Clocks(**clocks) if clocks else None,
    )


def whole_or_none(value: Any) -> int | None:
    """`value`, if it is a whole number or none. Raises TypeError."""
    return None if value is None else index(value)


def _sale_to_json(sale: SaleBefore) -> dict[str, Any]:
    mysql = sale.mysql
    return {
        "initial": mysql.initial if mysql else None,
        "mysql_stock": mysql.stock if mysql else None,
        "mysql_window_ms": [mysql.begin_ms, mysql.end_ms] if mysql else None,
        "redis_initial": sale.redis_initial,
        "redis_stock": sale.redis_stock,
        "redis_window_ms": [sale.begin_ms, sale.end_ms],
        "members": sale.members,
        "gives_receipts": sale.gives_receipts,
        "orders": len(sale.live),
        "live": _as_text(sale.live),
        "ended": _as_text(sale.ended),
        "queued": _as_text(sale.queued),
        "unsettled_users": sorted(sale.unsettled),
        "restocked": sale.restocked,
        **({} if sale.units is None else {"units": sale.units}),
    }


def _sale_from_json(sale: Mapping[str, Any]) -> SaleBefore:
    initial, stock, window = sale["initial"], sale["mysql_stock"], sale["mysql_window_ms"]
    begin_ms, end_ms = map(whole_or_none, sale["redis_window_ms"])
    return SaleBefore(
        mysql=MySQLSale(*map(index, (initial, stock, *window))) if window else None,
        redis_stock=whole_or_none(sale["redis_stock"]),
        redis_initial=whole_or_none(sale["redis_initial"]),
        begin_ms=begin_ms,
        end_ms=end_ms,
        members=index(sale["members"]),
        gives_receipts=sale["gives_receipts"],
        live=frozenset(map(int, sale["live"])),
        ended=frozenset(map(int, sale["ended"])),
        queued=frozenset(map(int, sale["queued"])),
        unsettled=frozenset(map(index, sale["unsettled_users"])),
        restocked=index(sale.get("restocked", 0)),
        units=whole_or_none(sale.get("units")),
    )


def _as_text(orders: frozenset[int]) -> list[str]:
    return [str(order) for order in sorted(orders)]
