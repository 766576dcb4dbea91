"""Entries that nobody of ours wrote: set aside, each with its reason, and in nobody's way."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from redis import Redis
from rig.rows import add_sale, orders
from rig.sale import claim, open_sale
from sqlalchemy import Engine

from flashsale import keys
from flashsale.locks.batch import BatchLocks
from flashsale.orders.metrics import look
from flashsale.orders.stream import OrderStream
from flashsale.orders.worker import Counts, Worker
from flashsale.settings import WorkerSettings

LAST = 2**64 - 1
ORDER = {"userId": "5", "voucherId": "1", "id": "1005", "ms": "1700000000000"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def worker(ledger: Redis, cache: Redis, pool: Engine) -> Worker:
    add_sale(pool, stock=100)
    open_sale(ledger, units=100)
    settings = WorkerSettings(block_ms=1, linger_ms=0, retry_base_ms=1, retry_max_ms=2)
    locks = BatchLocks(cache, "c1", lease_ms=30_000, renew_ms=10_000)
    stream = OrderStream(ledger, "c1")
    stream.ensure_group()
    return Worker(stream, pool, locks, settings)


def worked(worker: Worker, turns: int = 6) -> Counts:
    for _ in range(turns):
        worker.run_once()
    return worker.total


def letters(ledger: Redis) -> list[dict[str, str]]:
    found: Any = ledger.xrange(keys.STREAM_DEAD)
    return [fields for _, fields in found]


def pending(ledger: Redis) -> int:
    found: Any = ledger.xpending(keys.STREAM_ORDERS, keys.GROUP)
    return int(found["pending"])


MANY = {f"field{n}": "x" for n in range(6_000)}

POISON: dict[str, tuple[dict[Any, Any], str]] = {
    "bytes that are no text": ({**ORDER, b"\xff\xfe": b"\x80\x81", "id": b"\xc3\x28"}, "id"),
    "a name that is no text": ({b"\xff": b"\xff"}, "id, userId, voucherId, ms"),
    "thousands of fields": (MANY, "id, userId, voucherId, ms"),
    "a huge value": ({**ORDER, "ms": "9" * 100_000}, "ms"),
    "an order id beyond": ({**ORDER, "id": str(2**63)}, "id"),
}


@pytest.mark.parametrize(("fields", "lacks"), POISON.values(), ids=POISON.keys())
def test_poison_is_set_aside_and_what_is_valid_goes_its_way(
    worker: Worker, ledger: Redis, pool: Engine, fields: dict[Any, Any], lacks: str
) -> None:
    claim(ledger, (7, 1007))
    ledger.xadd(keys.STREAM_ORDERS, fields)
    claim(ledger, (8, 1008))
    assert look(ledger).lag == 3, "whoever watches is not stopped by it either"
    counts = worked(worker)
    assert (counts.written, counts.dead) == (2, 1)
    assert orders(pool) == {1007: (7, 1), 1008: (8, 1)}
    assert pending(ledger) == 0
    (letter,) = letters(ledger)
    assert letter["reason"] == f"no valid {lacks}"
    assert all(len(value) <= 200 for value in letter.values())
    assert len(letter) <= 60


def test_bytes_come_and_go_as_they_are(worker: Worker, ledger: Redis) -> None:
    ledger.xadd(keys.STREAM_ORDERS, {b"\xff\xfe": b"\x80\x81"})  # type: ignore[dict-item]
    worked(worker)
    raw: Any = ledger.execute_command("XRANGE", keys.STREAM_DEAD, "-", "+")
    fields = raw[0][1]
    assert fields["\udcff\udcfe"] == "\udc80\udc81"


@pytest.mark.parametrize(
    "entry_id",
    ["99999999999999-0", f"{2**63}-1", f"{LAST}-1", f"{LAST}-{LAST - 5}"],
    ids=["of the future", "beyond a column", "of the last millisecond", "almost the last"],
)
def test_ids_of_the_future_fail_no_order_that_follows_them(
    worker: Worker, ledger: Redis, pool: Engine, entry_id: str
) -> None:
    """Redis goes on from the highest id, whoever wrote it."""
    ledger.xadd(keys.STREAM_ORDERS, ORDER, id=entry_id)  # type: ignore[arg-type]
    claim(ledger, (7, 1007), (8, 1008))
    counts = worked(worker)
    assert (counts.written, counts.dead) == (3, 0)
    assert set(orders(pool)) == {1005, 1007, 1008}
    assert pending(ledger) == 0


def test_a_letter_that_cannot_be_written_stops_no_other_order(
    worker: Worker, ledger: Redis, pool: Engine
) -> None:
    """It stays pending, unacknowledged, until it can."""
    ledger.xadd(keys.STREAM_DEAD, {"x": "1"}, id=f"{LAST}-{LAST}")
    ledger.xadd(keys.STREAM_ORDERS, {"x": "1"})
    claim(ledger, (7, 1007))
    assert worked(worker).written == 1
    assert pending(ledger) == 1
    ledger.delete(keys.STREAM_DEAD)
    worker._pending.start_over()
    for _ in range(50):
        worker.run_once()
    assert pending(ledger) == 0
    assert letters(ledger)[0]["reason"].startswith("no valid")


# What the ledger has forgotten --------------------------------------------------------------------


def test_a_group_that_is_gone_is_told_and_nothing_is_written_twice(
    worker: Worker, ledger: Redis, pool: Engine
) -> None:
    claim(ledger, (7, 1007), (8, 1008))
    assert worked(worker, 1).regrouped == 0, "at first there was none to be gone"
    claim(ledger, (9, 1009))
    ledger.xgroup_destroy(keys.STREAM_ORDERS, keys.GROUP)
    counts = worked(worker)
    assert (counts.regrouped, counts.written, counts.repeated) == (1, 3, 2)
    assert worker.doubt.is_set()
    assert set(orders(pool)) == {1007, 1008, 1009}


def test_a_ledger_that_does_not_know_what_it_gave_us_is_doubted(
    worker: Worker, ledger: Redis
) -> None:
    claim(ledger, (7, 1007))
    worked(worker, 1)
    worker.doubt.clear()
    claim(ledger, (8, 1008))
    entries: Any = worker._stream.fresh(10, 1)
    ledger.xack(keys.STREAM_ORDERS, keys.GROUP, entries[0].entry_id)
    assert worker._work(entries).unpending == 1
    assert worker.doubt.is_set()
