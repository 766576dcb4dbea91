"""`verify` of a million orders, both judges: beside what bare reading takes, and peak memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

import orjson
import pymysql
import redis
from sqlalchemy.engine import make_url

from benchmarks.table import Section, median, spread
from flashsale import keys
from flashsale.run.folder import ATTEMPTS_FILE, BASELINE_FILE
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage import tables
from flashsale.storage.mysql import engine
from flashsale.verify.observation import take

ORDERS = 1_000_000
LIMIT_TIMES = 3.0
"""How much longer than driver and orjson alone take to read the same rows and attempts."""
LIMIT_MB = 800
RUNS_MAX = 3

_FIRST_ORDER = 515_385_561_440_000_000
_BEGIN_MS, _END_MS = 1_767_225_600_000, 1_798_675_200_000
_CHUNK = 10_000


@dataclass(frozen=True)
class Stores:
    """The two stores that a judge reads."""

    ledger_url: str
    mysql_url: str


def measure(runs: int) -> Section:
    """At most three runs each, of one sale and of 110 sales with a million orders in all."""
    section = Section(f"verify: {ORDERS:,} orders, a new process each time, reports not drawn")
    with (
        tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder,
        RedisServer(RedisRole.LEDGER, Path(folder, "ledger")) as ledger,
        MariaDBServer(Path(folder, "mariadb")) as mariadb,
    ):
        stores = Stores(ledger.url, mariadb.url)
        for vouchers in (1, 110):
            run_dir = Path(folder, f"run-{vouchers}")
            run_dir.mkdir()
            _prepare(stores, run_dir, vouchers)
            _judge(section, stores, run_dir, vouchers, min(runs, RUNS_MAX))
    return section


def _judge(section: Section, stores: Stores, run_dir: Path, vouchers: int, runs: int) -> None:
    """Each run of both judges between two of the least that any judge has to do: who else wants the
    cores comes and goes."""
    figures = []
    alone = [_alone(stores, run_dir)]
    for _ in range(runs):
        figures.append(_verify(stores, run_dir))
        alone.append(_alone(stores, run_dir))
    seconds, megabytes, cpu = ([f[n] for f in figures] for n in range(3))
    pairs = [list(pair) for pair in pairwise(alone)]
    times = [
        s / mean(bare.seconds for bare in pair) for s, pair in zip(seconds, pairs, strict=True)
    ]
    times_cpu = [c / mean(bare.cpu_s for bare in pair) for c, pair in zip(cpu, pairs, strict=True)]
    what = f"{vouchers} sale{'s' if vouchers > 1 else ''}"
    section.add(
        f"{what}, × of driver and orjson alone",
        spread(times, 1),
        f"≤ {LIMIT_TIMES:g}",
        median(times) <= LIMIT_TIMES,
    )
    section.add("  that is, s", spread(seconds, 1))
    section.add("  × by their own CPU", spread(times_cpu, 1))
    section.add("  that is, its own CPU, s", spread(cpu, 1))
    section.add("  driver and orjson alone, s", spread([bare.seconds for bare in alone], 1))
    section.add("  that is, their CPU, s", spread([bare.cpu_s for bare in alone], 1))
    section.add(
        f"{what}, peak MB", spread(megabytes), f"≤ {LIMIT_MB:,}", median(megabytes) <= LIMIT_MB
    )


def _verify(stores: Stores, run_dir: Path) -> tuple[float, float, float]:
    """Seconds, peak megabytes and CPU seconds of one `flashsale verify`, which must pass."""
    started = time.monotonic()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "flashsale", "verify", str(run_dir)),
            *("--ledger-url", stores.ledger_url, "--mysql-url", stores.mysql_url),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"verify ended with {process.returncode}, so there is nothing to time")
    seconds = time.monotonic() - started
    return seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


# A sale that went well, in bulk.


def _prepare(stores: Stores, run_dir: Path, vouchers: int) -> None:
    """Both stores and a run folder, as they are after a million orders."""
    with redis.Redis.from_url(stores.ledger_url) as ledger, _database(stores) as database:
        ledger.flushall()
        pool = engine(stores.mysql_url)
        tables.metadata.drop_all(pool)
        tables.create_all(pool)
        pool.dispose()
        for voucher in range(1, vouchers + 1):
            _open(ledger, database, voucher, len(range(voucher - 1, ORDERS, vouchers)))
        ledger.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
        before = take(stores.ledger_url, stores.mysql_url, range(1, vouchers + 1))
        (run_dir / BASELINE_FILE).write_bytes(before.to_json())
        for first in range(0, ORDERS, _CHUNK):
            _sell(ledger, database, range(first, first + _CHUNK), vouchers)
        for voucher in range(1, vouchers + 1):
            ledger.set(keys.seckill_stock(voucher), 0)
        with database.cursor() as cursor:
            cursor.execute("UPDATE tb_seckill_voucher SET stock = 0")
    with (run_dir / ATTEMPTS_FILE).open("wb") as file:
        file.writelines(_attempts(vouchers))


def _database(stores: Stores) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    url = make_url(stores.mysql_url)
    return pymysql.connect(
        host=url.host,
        port=url.port or 3306,
        user=url.username,
        password=url.password or "",
        database=url.database,
        autocommit=True,
    )


def _open(
    ledger: redis.Redis,
    database: "pymysql.Connection[pymysql.cursors.Cursor]",
    voucher: int,
    units: int,
) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tb_seckill_voucher "
            "(voucher_id, stock, initial_stock, begin_time, end_time) "
            "VALUES (%s, %s, %s, '2026-01-01', '2026-12-31')",
            (voucher, units, units),
        )
    ledger.set(keys.seckill_stock(voucher), units)
    terms = {"begin": _BEGIN_MS, "end": _END_MS, "state": "open", "initial": units}
    ledger.hset(keys.seckill_sale(voucher), mapping=terms)  # type: ignore[arg-type]  # redis' stub is invariant


def _sell(
    ledger: redis.Redis,
    database: "pymysql.Connection[pymysql.cursors.Cursor]",
    buyers: range,
    vouchers: int,
) -> None:
    pipeline = ledger.pipeline(transaction=False)
    for offset in range(min(vouchers, len(buyers))):
        chosen = buyers[offset::vouchers]
        voucher = 1 + chosen[0] % vouchers
        pipeline.sadd(keys.seckill_order(voucher), *(1 + i for i in chosen))
        receipts = {str(1 + i): _FIRST_ORDER + i for i in chosen}
        pipeline.hset(keys.seckill_receipt(voucher), mapping=receipts)  # type: ignore[arg-type]
    pipeline.execute()
    rows = ",".join(
        f"({_FIRST_ORDER + i},{1 + i},{1 + i % vouchers},"
        f"'2026-01-01 01:00:{i % 60:02}.{i % 1000:03}','2026-01-01 01:01:00.{i % 999:03}')"
        for i in buyers
    )
    with database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tb_voucher_order (id, user_id, voucher_id, create_time, persisted_at) "
            f"VALUES {rows}"
        )


def _attempts(vouchers: int) -> Iterator[bytes]:
    header = {"kind": "header", "schema": 1, "run": "million", "scenario": "million"}
    names = list(range(1, vouchers + 1))
    yield orjson.dumps({**header, "vouchers": names, "planned": ORDERS}) + b"\n"
    for i in range(ORDERS):
        yield (
            f'{{"kind":"plan","i":{i},"user":{1 + i},"voucher":{1 + i % vouchers},'
            f'"conn":{i % 2000},"at_us":0}}\n'
        ).encode()
    yield b'{"kind":"barrier","unix_us":1767229200000000}\n'
    for i in range(ORDERS):
        yield (
            f'{{"kind":"result","i":{i},"due_us":0,"sent_us":{i},"done_us":{i + 900},'
            f'"outcome":"sold","status":200,"order":"{_FIRST_ORDER + i}"}}\n'
        ).encode()
    end = {"kind": "end", "planned": ORDERS, "sent": ORDERS, "interrupted": False}
    yield orjson.dumps(end) + b"\n"


# Peers: the least that any judge has to do.


@dataclass(frozen=True)
class Alone:
    """What the driver takes for the rows and orjson for the attempts, and its own CPU of it."""

    seconds: float
    cpu_s: float


def _alone(stores: Stores, run_dir: Path) -> Alone:
    with _database(stores) as database, database.cursor(pymysql.cursors.SSCursor) as cursor:
        started, cpu_s = time.monotonic(), time.process_time()
        cursor.execute("SELECT id, user_id, voucher_id, status FROM tb_voucher_order")
        while cursor.fetchmany(_CHUNK):
            pass
        with (run_dir / ATTEMPTS_FILE).open("rb") as file:
            for line in file:
                orjson.loads(line)
        return Alone(time.monotonic() - started, time.process_time() - cpu_s)
