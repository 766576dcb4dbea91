"""What both stores hold of some sales at one moment: the raw material of baseline and snapshot."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from flashsale.verify.connection import Connections
from flashsale.verify.database import (
    Rows,
    Shelf,
    frozen_view,
    read_clock_ms,
    read_dataset,
    read_rows,
    read_shelves,
)
from flashsale.verify.ledger import LedgerSale, Pulse, read_pulse, read_sale
from flashsale.verify.queue import Queue, Span, has_entries, read_queue
from flashsale.verify.stream import BEGINNING

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
    """How far the order stream and the dead letters had come: what is later is newer."""

    entry: str = BEGINNING
    dead: str = BEGINNING


@dataclass(frozen=True, slots=True)
class Observation:
    """Both stores at one moment. `still` is False where sales went on while they were read.

    `later` counts orders that were left out of it, by voucher, since they came after the run.
    """

    dataset: str | None
    clocks: Clocks
    shelves: Mapping[int, Shelf]
    rows: Mapping[int, Rows]
    ledger: Mapping[int, LedgerSale]
    queue: Queue = field(default_factory=Queue)
    still: bool = True
    later: Mapping[int, int] = field(default_factory=dict)


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
            shelves=read_shelves(stores.database, vouchers),
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
