"""The order worker: durable orders a second, beside raw batched inserts on the same MariaDB."""

import tempfile
import time
from pathlib import Path

from benchmarks.table import Section, median, spread
from flashsale import keys
from flashsale.orders.process import make_worker
from flashsale.settings import StoreSettings, WorkerSettings
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage import tables
from flashsale.storage.mysql import engine, transaction
from flashsale.storage.roles import sync_client

ORDERS = 60_000
LEAST_SHARE = 0.45
"""Of what bare INSERTs of the same rows reach in the same run."""
_SALE = (
    "INSERT INTO tb_seckill_voucher (voucher_id, stock, initial_stock, begin_time, end_time) "
    "VALUES (1, %s, %s, '2020-01-01', '2100-01-01')"
)
_ROW = "INSERT INTO tb_voucher_order (id, user_id, voucher_id, create_time) VALUES (%s, %s, %s, %s)"


def measure(runs: int) -> Section:
    """`runs` times 60,000 orders from stream to row, acknowledged."""
    section = Section("order worker: stream → MariaDB → ack, one worker")
    with (
        tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder,
        RedisServer(RedisRole.LEDGER, Path(folder, "ledger")) as ledger,
        RedisServer(RedisRole.CACHE, Path(folder, "cache")) as cache,
        MariaDBServer(Path(folder, "mariadb")) as mariadb,
    ):
        stores = StoreSettings(ledger_url=ledger.url, cache_url=cache.url, mysql_url=mariadb.url)
        tables.create_all(engine(stores.mysql_url))
        taken = [(_drain(stores), _raw_inserts(stores)) for _ in range(runs)]
    rates, raw = [rate for rate, _ in taken], [bare for _, bare in taken]
    share = median([rate / bare for rate, bare in taken])
    section.add("durable orders/s", spread(rates))
    section.add("bare INSERTs of 500 rows, one COMMIT each, rows/s", spread(raw))
    section.add(
        "… the worker as a multiple of them, in turn",
        f"{share:.2f} ×",
        f"≥ {LEAST_SHARE:g} ×",
        share >= LEAST_SHARE,
    )
    section.notes.append(
        f"{runs} runs of {ORDERS:,} orders; a run includes locks, fencing, stock and position"
    )
    return section


def _drain(stores: StoreSettings) -> float:
    _reset(stores)
    ledger = sync_client(stores.ledger_url)
    pipeline = ledger.pipeline(transaction=False)
    for number in range(1, ORDERS + 1):
        order = {"userId": number, "voucherId": 1, "id": number, "ms": 1_700_000_000_000}
        pipeline.xadd(keys.STREAM_ORDERS, order)  # type: ignore[arg-type]  # redis' stub is invariant
        if number % 5_000 == 0:
            pipeline.execute()
    worker = make_worker("c1", stores, WorkerSettings(block_ms=1))
    started = time.perf_counter()
    while worker.total.written < ORDERS:
        worker.run_once()
    return ORDERS / (time.perf_counter() - started)


def _raw_inserts(stores: StoreSettings) -> float:
    _reset(stores)
    pool = engine(stores.mysql_url)
    rows = [(number, number, 1, "2026-01-01 00:00:00.000") for number in range(1, ORDERS + 1)]
    started = time.perf_counter()
    for first in range(0, ORDERS, 500):
        with transaction(pool) as connection:
            connection.exec_driver_sql(_ROW, rows[first : first + 500])
    return ORDERS / (time.perf_counter() - started)


def _reset(stores: StoreSettings) -> None:
    sync_client(stores.ledger_url).flushall()
    with transaction(engine(stores.mysql_url)) as connection:
        connection.exec_driver_sql("TRUNCATE TABLE tb_voucher_order")
        connection.exec_driver_sql("DELETE FROM tb_seckill_voucher")
        connection.exec_driver_sql(_SALE, (ORDERS, ORDERS))
