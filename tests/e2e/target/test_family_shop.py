"""A server that looks like the family's as it is published: no data set, no receipts, the worker's
clock in `create_time`, and whatever group, or none. It is judged by accounts that may only read.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest
import redis
from rig.shop_server import Asked, Reply, ShopServer

from flashsale.books import Books, ShopBooks
from flashsale.campaign.campaign import shop_books
from flashsale.campaign.judging import judge_run
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.model import Verdict
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.table import shop_document
from flashsale.stack import mariadb
from flashsale.stack.mariadb import MariaDBServer
from flashsale.verify.finding import Judgement
from flashsale.verify.shop_rows import UnfitError
from flashsale.verify.shop_tables import read_tables

SALE = """\
# Does it sell what it has?
schema = 1
name = "family"
[sale]
units = 3
[load]
model = "closed"
users = 6
connections = 2
"""
TABLES = (
    "CREATE TABLE tb_seckill_voucher (voucher_id BIGINT PRIMARY KEY, stock INT,"
    " begin_time TIMESTAMP NULL, end_time TIMESTAMP NULL)",
    "CREATE TABLE tb_voucher_order (id BIGINT PRIMARY KEY, user_id BIGINT, voucher_id BIGINT,"
    " status TINYINT DEFAULT 1, create_time TIMESTAMP NULL)",
)
HOUR_S = 3_600


@dataclass
class Family:
    """The server. `late_s` is when the worker comes, None for never; times are seconds from now."""

    mysql: Any
    redis: "redis.Redis"
    group: str | None = "g1"
    stream: bool = True
    late_s: float | None = 0
    sold_at_s: float = 0
    written_at_s: float = 0
    begins_s: float = -HOUR_S
    ends_s: float = HOUR_S
    loses: int = 0  # orders that the worker takes, acknowledges and never writes
    oversells: int = 0  # claims that are sold past the last unit
    sells_twice: bool = False  # without a look at who has bought
    taken: int = 0
    workers: list[threading.Thread] = field(default_factory=list)

    def open(self) -> None:
        self.sql(
            "INSERT INTO tb_seckill_voucher VALUES (1, 3, FROM_UNIXTIME(%s), FROM_UNIXTIME(%s))",
            self.now(self.begins_s),
            self.now(self.ends_s),
        )
        self.redis.set("seckill:stock:1", 3)
        if self.stream and self.group:
            self.redis.xgroup_create("stream.orders", self.group, id="0", mkstream=True)

    def now(self, after_s: float) -> int:
        return int(time.time() + after_s)

    def sql(self, statement: str, *values: Any) -> None:
        with self.mysql.cursor() as cursor:
            cursor.execute(statement, values)

    def answer(self, asked: Asked) -> Reply:
        if asked.method != "POST":
            return Reply(200 if asked.path == "/user/me" else 404)
        user = asked.headers["authorization"].removeprefix("token-")
        if int(self.redis.get("seckill:stock:1") or 0) <= -self.oversells:  # type: ignore[arg-type]
            return Reply(200, {"success": False, "errorMsg": "库存不足！"})
        if not self.sells_twice and self.redis.sismember("seckill:order:1", user):
            return Reply(200, {"success": False, "errorMsg": "不允许重复下单！"})
        self.redis.decr("seckill:stock:1")
        self.redis.sadd("seckill:order:1", user)
        entry, self.taken = None, self.taken + 1
        order = 400_000_000_000_000_000 + 1_000 * self.taken + int(user)
        if self.stream:
            fields = {"userId": user, "voucherId": 1, "id": order}
            number = f"{self.now(self.sold_at_s) * 1000 + self.taken}-0" if self.sold_at_s else "*"
            entry = self.redis.xadd("stream.orders", fields, id=number)  # type: ignore[arg-type]
        if self.late_s is not None:
            worker = threading.Thread(target=self.work, args=(order, user, entry))
            worker.start() if self.late_s else worker.run()
            self.workers += [worker] if self.late_s else []
        return Reply(200, {"success": True, "data": order})

    def work(self, order: int, user: str, entry: Any) -> None:
        assert self.late_s is not None
        time.sleep(self.late_s)
        if entry is not None and self.group:
            self.redis.xreadgroup(self.group, "c1", {"stream.orders": ">"}, count=1)
        lock.acquire()
        try:
            if self.loses:
                self.loses -= 1
                self.sql("UPDATE tb_seckill_voucher SET stock = stock - 1 WHERE voucher_id = 1")
                return
            self.sql(
                "INSERT INTO tb_voucher_order VALUES (%s, %s, 1, 1, FROM_UNIXTIME(%s))",
                *(order, user, self.now(self.written_at_s)),
            )
            self.sql("UPDATE tb_seckill_voucher SET stock = stock - 1 WHERE voucher_id = 1")
        finally:
            lock.release()
            if entry is not None and self.group:
                self.redis.xack("stream.orders", self.group, entry)


lock = threading.Lock()
Judge = Callable[..., Judgement]


READER = """\
CREATE USER 'only'@'{host}' IDENTIFIED BY 'reads';
GRANT SELECT ON `{database}`.* TO 'only'@'{host}';
"""


@pytest.fixture(scope="module")
def family_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A MariaDB with an account that may only select."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mariadb, "_INIT", mariadb._INIT + READER)
        folder = tmp_path_factory.mktemp("family")
        with MariaDBServer(folder, buffer_pool_mb=32, redo_log_mb=16) as server:
            yield server.url


def everything(mysql: Any, server: "redis.Redis") -> dict[str, Any]:
    """All that the shop's stores hold."""
    held: dict[str, Any] = {key: value_of(server, key) for key in server.scan_iter("*")}
    with mysql.cursor() as cursor:
        for name in (table.split()[2] for table in TABLES):
            cursor.execute(f"SELECT * FROM {name} ORDER BY 1")
            held[name] = cursor.fetchall()
    return held


def value_of(server: "redis.Redis", key: str) -> Any:
    if server.type(key) == "stream":
        return server.xinfo_groups(key), server.xrange(key)
    return server.smembers(key) if server.type(key) == "set" else server.get(key)


@pytest.fixture
def judged(tmp_path: Path, family_url: str, ledger_url: str) -> Iterator[Judge]:
    place = urlsplit(family_url)
    name = place.path[1:]
    mysql = pymysql.connect(
        host=place.hostname,
        port=place.port or 3306,
        user=place.username,
        password=place.password or "",
        database=name,
        autocommit=True,
        init_command="SET time_zone = '+00:00'",
    )
    server = redis.Redis.from_url(ledger_url, protocol=2, decode_responses=True)
    server.acl_setuser(
        "only", enabled=True, passwords=["+reads"], keys=["*"], categories=["+@read"]
    )
    books_url = place._replace(scheme="mysql", netloc=f"only:reads@{place.hostname}:{place.port}")
    redis_place = urlsplit(ledger_url)
    redis_url = f"redis://only:reads@{redis_place.hostname}:{redis_place.port}"

    numbers = itertools.count()

    def run(clicks: int = 1, **manner: Any) -> Judgement:
        server.flushall()
        with mysql.cursor() as cursor:
            for table in TABLES:
                cursor.execute(f"DROP TABLE IF EXISTS {table.split()[2]}")
                cursor.execute(table)
        out = tmp_path / f"run-{next(numbers)}"
        shop = Family(mysql, server, **manner)
        shop.open()
        sale = SALE + f"clicks = {clicks}\n"
        scenario = parse_scenario(sale, "sale.toml", shop_document("hm-dianping"))
        (tmp_path / "users.csv").write_text(
            "user_id,token\n" + "".join(f"{n},token-{n}\n" for n in range(1, 7))
        )
        assert scenario.books is not None
        with ShopServer(shop.answer).open() as web:
            stores = shop_books(scenario.books, web.base_url, books_url.geturl(), redis_url)
            run_storm(
                StormRequest(
                    scenario=scenario,
                    base_url=web.base_url,
                    tokens=tmp_path / "users.csv",
                    stores=stores,
                    out=out,
                    calibrate=False,
                )
            )
            rests, before = not shop.workers, everything(mysql, server)
            found = judge_run(out, stores, drain_timeout_s=4).judgement
            assert not rests or everything(mysql, server) == before, "the judge writes nowhere"
        for worker in shop.workers:
            worker.join()
        assert (out / "baseline.json").exists()
        return found

    yield run
    mysql.close()
    server.acl_deluser("only")
    server.close()


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_ten_runs_raise_no_false_alarm(judged: Judge, family_url: str, ledger_url: str) -> None:
    for _ in range(10):
        found = judged(clicks=2, late_s=0.05)
        assert found.verdict is Verdict.PASS, by_verdict(found, Verdict.FAIL)


def test_the_accounts_of_the_judge_may_write_nothing(
    judged: Judge, family_url: str, ledger_url: str
) -> None:
    judged()
    place, redis_place = urlsplit(family_url), urlsplit(ledger_url)
    where = {"host": place.hostname, "port": place.port, "database": place.path[1:]}
    reader = pymysql.connect(user="only", password="reads", **where)  # type: ignore[arg-type]
    with closing(reader), reader.cursor() as cursor:
        for statement in (
            "DELETE FROM tb_voucher_order",
            "UPDATE tb_seckill_voucher SET stock = 9",
            "CREATE TABLE ours (id INT)",
        ):
            with pytest.raises(pymysql.err.OperationalError, match="denied"):
                cursor.execute(statement)
    only = redis_place._replace(netloc=f"only:reads@{redis_place.netloc}").geturl()
    with redis.Redis.from_url(only) as client:
        for command in (("SET", "k", "v"), ("XACK", "stream.orders", "g1", "1-0"), ("DEL", "k")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


def by_verdict(judgement: Judgement, verdict: Verdict) -> dict[str, str]:
    return {check.name: check.detail for check in judgement.checks if check.verdict is verdict}


@pytest.mark.parametrize(
    ("manner", "unknown"),
    [
        ({}, {}),
        ({"written_at_s": 2 * HOUR_S}, {}),  # sold in time, written after the end
        ({"late_s": 1.5}, {}),  # rows that come seconds later
        (
            {"group": "workers"},
            {"queue_empty": "stream.orders has no group g1, but workers: name it in the file"},
        ),
        # … and no queue that says how many are to come
        (
            {"stream": False, "late_s": 1.0},
            {
                "queue_empty": "there is no stream stream.orders",
                "window": "of 3 orders the time of their sale is not in the stream stream.orders",
            },
        ),
        # by the worker's clock it is over: that convicts nobody, and no entry says otherwise
        (
            {"stream": False, "written_at_s": 2 * HOUR_S},
            {
                "queue_empty": "there is no stream stream.orders",
                "window": "of 3 orders the time of their sale is not in the stream stream.orders",
            },
        ),
        (
            {"stream": False},
            {
                "queue_empty": "there is no stream stream.orders",
                "window": "of 3 orders the time of their sale is not in the stream stream.orders",
            },
        ),
    ],
    ids=str,
)
def test_what_sells_right_is_not_accused(
    judged: Judge, manner: dict[str, Any], unknown: dict[str, str]
) -> None:
    found = judged(**manner)
    assert not by_verdict(found, Verdict.FAIL)
    assert by_verdict(found, Verdict.UNKNOWN) == unknown
    assert (found.verdict, found.accepted, found.persisted) == (Verdict.PASS, 3, 3)
    assert "Redis: stock, holders" in found.rests_on


@pytest.mark.parametrize(
    ("manner", "failed", "named"),
    [
        # sold an hour before it began, and written when it was open
        ({"begins_s": -60, "sold_at_s": -HOUR_S}, "window", "ms before it began"),
        ({"ends_s": -60, "begins_s": -HOUR_S}, "window", "ms past its end"),
        ({"late_s": None}, "queue_empty", "never delivered"),
        # written when it was over as well: by the entry's time it was sold before it began
        ({"begins_s": -60, "sold_at_s": -HOUR_S, "written_at_s": 2 * HOUR_S}, "window", "before"),
    ],
    ids=str,
)
def test_what_sells_wrong_is_named(
    judged: Judge, manner: dict[str, Any], failed: str, named: str
) -> None:
    found = judged(**manner)
    assert failed in by_verdict(found, Verdict.FAIL)
    assert named in by_verdict(found, Verdict.FAIL)[failed]
    assert by_verdict(found, Verdict.FAIL).keys() <= {failed}


@pytest.mark.parametrize(
    ("manner", "owner", "named"),
    [
        ({"oversells": 2}, "no_oversell", "5 orders for 3 units, and this is one of the last"),
        ({"sells_twice": True, "clicks": 2}, "one_per_user", "live orders"),
        ({"loses": 1}, "accepted_persisted", "order 400000000000001"),
    ],
    ids=str,
)
def test_each_fault_is_named_by_the_check_that_owns_it(
    judged: Judge, manner: dict[str, Any], owner: str, named: str
) -> None:
    found = judged(**manner)
    failures = by_verdict(found, Verdict.FAIL)
    assert owner in failures, failures
    assert named in failures[owner], failures[owner]


def test_a_group_that_was_never_made_is_named(judged: Judge) -> None:
    found = judged(group=None, late_s=None)
    failures = by_verdict(found, Verdict.FAIL)
    assert set(failures) == {"queue_empty"}
    assert "no group reads stream.orders" in failures["queue_empty"]
    assert "the group g1 of stream.orders is gone" in failures["queue_empty"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1 AS user FROM nowhere", "nowhere' doesn't exist"),
        ("SELECT buyer AS user FROM tb_voucher_order", "Unknown column 'buyer'"),
        ("SELECT user FROM mysql.user", "denied to user 'only'"),
        ("SELECT FROM WHERE", "error in your SQL syntax"),
        ("SELECT 1 AS user; DROP TABLE tb_voucher_order", "error in your SQL syntax"),
        ("SELECT 'x' AS user INTO OUTFILE '/tmp/x'", "denied"),
    ],
)
def test_what_the_database_refuses_is_one_line(family_url: str, query: str, said: str) -> None:
    place = urlsplit(family_url)
    owner = pymysql.connect(
        host=place.hostname,
        port=place.port or 3306,
        user=place.username,
        password=place.password or "",
        database=place.path[1:],
    )
    with closing(owner), owner.cursor() as cursor:
        cursor.execute(TABLES[1].replace("TABLE", "TABLE IF NOT EXISTS", 1))
    reader = place._replace(netloc=f"only:reads@{place.hostname}:{place.port}").geturl()
    books = Books.model_construct(orders=query, stock="", route="", names={})
    with pytest.raises(UnfitError) as error:
        read_tables(ShopBooks(books, reader), [1])
    assert said in str(error.value)
    assert "give the account SELECT there" in str(error.value)
