"""A sale on a real Redis and a real MariaDB, made with plain commands and plain SQL."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pymysql
import redis

from flashsale.run.folder import BASELINE_FILE, ENDING_FILE
from flashsale.verify.ending import take as take_ending
from flashsale.verify.finding import Judgement
from flashsale.verify.observation import take
from flashsale.verify.verdict import examine

STREAM, DEAD, GROUP = "stream.orders", "stream.orders.dead", "g1"
BEGIN, END = "2026-01-01 00:00:00.000", "2026-12-31 00:00:00.000"
BEGIN_MS, END_MS = 1_767_225_600_000, 1_798_675_200_000
SOLD = "2026-01-01 01:00:00.000"
SOLD_MS = BEGIN_MS + 3_600_000
DATASET = "a" * 32


class RealSale:
    """Voucher 1 with some units, sold as seckill.lua and the worker would."""

    def __init__(self, ledger_url: str, mysql_url: str, run_dir: Path, units: int = 5) -> None:
        self.ledger_url, self.mysql_url, self.run_dir = ledger_url, mysql_url, run_dir
        self.redis = redis.Redis.from_url(ledger_url, protocol=2)
        parts = urlsplit(mysql_url)
        self.mysql = pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            password=parts.password or "",
            database=parts.path.strip("/"),
            autocommit=True,
            init_command="SET time_zone = '+00:00'",
            ssl_disabled=True,
        )
        self.lines: list[dict[str, Any]] = []
        self.sql("INSERT INTO tb_dataset (id, seed) VALUES (%s, 1)", DATASET)
        self.open(1, units)

    def close(self) -> None:
        """Close both connections."""
        self.redis.close()
        self.mysql.close()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement."""
        with self.mysql.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def open(self, voucher: int, units: int, end_ms: int = END_MS) -> None:
        """Put a sale into both stores."""
        self.sql(
            "INSERT INTO tb_seckill_voucher "
            "(voucher_id, stock, initial_stock, begin_time, end_time) "
            "VALUES (%s, %s, %s, %s, FROM_UNIXTIME(%s / 1000))",
            voucher,
            units,
            units,
            BEGIN,
            end_ms,
        )
        self.redis.set(f"seckill:stock:{voucher}", units)
        self.redis.hset(
            f"seckill:sale:{voucher}",
            mapping={"begin": BEGIN_MS, "end": end_ms, "state": "open", "initial": units},
        )
        if not self.redis.exists(STREAM):
            self.redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)

    def now_ms(self) -> int:
        """The ledger's clock."""
        seconds, micros = self.redis.time()  # type: ignore[misc]
        return int(seconds) * 1000 + int(micros) // 1000

    def accept(self, user: int, order: int, voucher: int = 1, sold_ms: int = SOLD_MS) -> None:
        """What the script does."""
        self.redis.decr(f"seckill:stock:{voucher}")
        self.redis.sadd(f"seckill:order:{voucher}", user)
        self.redis.hset(f"seckill:receipt:{voucher}", str(user), order)
        entry = {"userId": user, "voucherId": voucher, "id": order, "ms": sold_ms}
        self.redis.xadd(STREAM, entry)

    def deliver(self, count: int = 1000) -> list[Any]:
        """Entries go to the worker, which has not written them yet."""
        answer: Any = self.redis.xreadgroup(GROUP, "c1", {STREAM: ">"}, count=count)
        return answer[0][1] if answer else []

    def work(self, sold_at: str = SOLD) -> None:
        """What the worker does, until the queue is empty."""
        for entry, fields in self.deliver():
            order, user, voucher = (int(fields[name]) for name in (b"id", b"userId", b"voucherId"))
            self.insert(order, user, voucher, sold_at=sold_at)
            self.redis.xack(STREAM, GROUP, entry)

    def insert(
        self,
        order: int,
        user: int,
        voucher: int = 1,
        *,
        take_unit: bool = True,
        sold_at: str = SOLD,
    ) -> None:
        """A row, and its unit from the stock."""
        self.sql(
            "INSERT INTO tb_voucher_order (id, user_id, voucher_id, create_time, persisted_at)"
            " VALUES (%s, %s, %s, %s, TIMESTAMPADD(MICROSECOND, 120000, %s))",
            order,
            user,
            voucher,
            sold_at,
            sold_at,
        )
        self.sql(
            "UPDATE tb_seckill_voucher SET stock = stock - %s WHERE voucher_id = %s",
            int(take_unit),
            voucher,
        )

    def baseline(self, *vouchers: int) -> None:
        """Take the baseline now, into the run folder."""
        before = take(self.ledger_url, self.mysql_url, vouchers or (1,))
        (self.run_dir / BASELINE_FILE).write_bytes(before.to_json())

    def end(self, claim_ms: int = 50) -> None:
        """The run is over: write how far the stores have come, and let a moment pass."""
        taken = take_ending(self.ledger_url, self.mysql_url, (1,), claim_ms)
        (self.run_dir / ENDING_FILE).write_bytes(taken.to_json())
        time.sleep(0.1)

    def told(self, user: int, outcome: str, order: int | None = None, voucher: int = 1) -> None:
        """A claim and its answer."""
        i = len(self.lines) // 2
        self.lines.insert(
            i,
            {"kind": "plan", "i": i, "user": user, "voucher": voucher, "conn": 0, "at_us": 0},
        )
        self.lines.append(
            {
                "kind": "result",
                "i": i,
                "due_us": 10 * i,
                "sent_us": 10 * i,
                "done_us": 10 * i + 5,
                "outcome": outcome,
                "status": 200,
                "order": None if order is None else str(order),
            }
        )

    def buy(self, user: int, order: int, voucher: int = 1) -> None:
        """A claim that is accepted."""
        self.told(user, "sold", order, voucher)
        self.accept(user, order, voucher)

    def judge(self, drain_timeout_s: float = 0.3) -> Judgement:
        """Write the record and judge the run."""
        self.write()
        return examine(
            self.run_dir, self.ledger_url, self.mysql_url, drain_timeout_s=drain_timeout_s
        )

    def write(self) -> None:
        """Write the record."""
        planned = len(self.lines) // 2
        vouchers = sorted({line["voucher"] for line in self.lines[:planned]} | {1})
        header = {
            "kind": "header",
            "schema": 1,
            "run": "run-1",
            "scenario": "test",
            "vouchers": vouchers,
            "planned": planned,
        }
        content = [
            header,
            *self.lines[:planned],
            {"kind": "barrier", "unix_us": 1},
            *self.lines[planned:],
            {"kind": "end", "planned": planned, "sent": planned, "interrupted": False},
        ]
        (self.run_dir / "attempts.jsonl").write_bytes(
            b"".join(orjson.dumps(line) + b"\n" for line in content)
        )


def failed(judgement: Judgement) -> dict[str, str]:
    """The checks that failed, with their details."""
    return {check.name: check.detail for check in judgement.checks if check.verdict == "fail"}
