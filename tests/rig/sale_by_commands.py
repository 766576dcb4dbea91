"""A sale in a real Redis and a real MySQL, run by plain commands and plain SQL, at today's time.

It does what `seckill.lua` and the worker do, one step a method, so that a test can leave one out,
do one twice or do one wrong. It knows nothing of the code that it tests.
"""

import itertools
import time
from typing import Any
from urllib.parse import urlsplit

import pymysql
import redis

STREAM, DEAD, GROUP = "stream.orders", "stream.orders.dead", "g1"
HOUR_MS = 3_600_000
_EPOCH_2022_S = 1_640_995_200


class SaleByCommands:
    """Vouchers 1 … n with some units each, open now for an hour."""

    def __init__(self, ledger_url: str, mysql_url: str, vouchers: int, units: int) -> None:
        self.redis = redis.Redis.from_url(ledger_url, protocol=2, decode_responses=True)
        parts = urlsplit(mysql_url)
        self._mysql = pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            password=parts.password or "",
            database=parts.path.strip("/"),
            autocommit=True,
            init_command="SET time_zone = '+00:00'",
            ssl_disabled=True,
        )
        first = int(time.time() - _EPOCH_2022_S) << 32
        self._ids = itertools.count(first + 1)
        self.begin_ms, self.end_ms = self.now_ms() - HOUR_MS, self.now_ms() + HOUR_MS
        self.sql("REPLACE INTO tb_dataset (id, seed) VALUES (%s, 1)", "d" * 32)
        for voucher in range(1, vouchers + 1):
            self._open(voucher, units)
        self.redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)

    def close(self) -> None:
        """Close both connections."""
        self.redis.close()
        self._mysql.close()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement."""
        with self._mysql.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def now_ms(self) -> int:
        """The ledger's clock."""
        seconds, micros = self.redis.time()  # type: ignore[misc]
        return int(seconds) * 1000 + int(micros) // 1000

    def allow_several_orders(self) -> None:
        """As the family's own schema does, which has no unique key on user and voucher."""
        self.sql("ALTER TABLE tb_voucher_order DROP INDEX uk_live_order")

    def end_now(self, voucher: int) -> None:
        """The sale's hours are over, by both stores."""
        end_ms = self.now_ms()
        self.redis.hset(f"seckill:sale:{voucher}", "end", end_ms)
        self.sql(
            "UPDATE tb_seckill_voucher SET end_time = FROM_UNIXTIME(%s / 1000) "
            "WHERE voucher_id = %s",
            end_ms,
            voucher,
        )

    def _open(self, voucher: int, units: int) -> None:
        self.sql(
            "INSERT INTO tb_seckill_voucher (voucher_id, stock, initial_stock, begin_time,"
            " end_time) VALUES (%s, %s, %s, FROM_UNIXTIME(%s / 1000), FROM_UNIXTIME(%s / 1000))",
            voucher,
            units,
            units,
            self.begin_ms,
            self.end_ms,
        )
        self.redis.set(f"seckill:stock:{voucher}", units)
        terms = {"begin": self.begin_ms, "end": self.end_ms, "state": "open", "initial": units}
        self.redis.hset(f"seckill:sale:{voucher}", mapping=terms)

    # One step each.

    def new_id(self) -> int:
        """An order id that nobody has."""
        return next(self._ids)

    def stock(self, voucher: int) -> int:
        """Units that the ledger has left."""
        return int(self.redis.get(f"seckill:stock:{voucher}") or 0)  # type: ignore[arg-type]

    def receipt(self, voucher: int, user: int) -> int | None:
        """The user's order by the ledger."""
        found = self.redis.hget(f"seckill:receipt:{voucher}", str(user))
        return int(found) if found else None  # type: ignore[arg-type]

    def accept(self, voucher: int, user: int, order: int) -> None:
        """What the script does with a claim that it sells."""
        self.redis.decr(f"seckill:stock:{voucher}")
        self.hold(voucher, user, order)
        entry = {"userId": user, "voucherId": voucher, "id": order, "ms": self.now_ms()}
        self.redis.xadd(STREAM, entry)  # type: ignore[arg-type]

    def hold(self, voucher: int, user: int, order: int) -> None:
        """Order set and receipt alone."""
        self.redis.sadd(f"seckill:order:{voucher}", user)
        self.redis.hset(f"seckill:receipt:{voucher}", str(user), order)  # type: ignore[arg-type]

    def deliver(self) -> list[tuple[str, dict[str, str]]]:
        """Everything unread goes to the worker."""
        answer: Any = self.redis.xreadgroup(GROUP, "c1", {STREAM: ">"}, count=1000)
        return list(answer[0][1]) if answer else []

    def acknowledge(self, entry: str) -> None:
        """The worker is done with an entry."""
        self.redis.xack(STREAM, GROUP, entry)

    def write(
        self,
        voucher: int,
        user: int,
        order: int,
        *,
        take_unit: bool = True,
        sold_ms: int | None = None,
    ) -> None:
        """A row, and its unit from MySQL's stock."""
        self.sql(
            "INSERT INTO tb_voucher_order (id, user_id, voucher_id, create_time)"
            " VALUES (%s, %s, %s, FROM_UNIXTIME(%s / 1000))",
            order,
            user,
            voucher,
            self.now_ms() if sold_ms is None else sold_ms,
        )
        if take_unit:
            update = "UPDATE tb_seckill_voucher SET stock = stock - 1 WHERE voucher_id = %s"
            self.sql(update, voucher)

    # All of them.

    def work(self) -> None:
        """What the worker does with everything unread."""
        for entry, fields in self.deliver():
            self.write(int(fields["voucherId"]), int(fields["userId"]), int(fields["id"]))
            self.acknowledge(entry)

    def sell(self, voucher: int, user: int) -> int:
        """An order, from claim to row."""
        order = self.new_id()
        self.accept(voucher, user, order)
        self.work()
        return order
