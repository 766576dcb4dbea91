"""Faults of stores on real ones: what they keep from being done, and that healing gives it back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from rig.rows import add_sale
from sqlalchemy import Engine

from flashsale import keys
from flashsale.faults.fault import Fault, RebuildResult, Site
from flashsale.faults.making import MAKERS
from flashsale.keys import WHOLE, Lane
from flashsale.scenario.fault import PlannedFault
from flashsale.stack.redis import RedisServer
from flashsale.store_urls import MySQLConnection, mysql_arguments, open_mysql, read_mysql_url


class OneStore(Site):
    """A site of two stores, and no stack around them."""

    def at(self, ledger_url: str, mysql_url: str = "") -> "OneStore":
        object.__setattr__(self, "urls", (ledger_url, mysql_url))
        return self

    def redis(self, role: str, *, as_text: bool = True) -> "Redis":
        url = self.urls[0]  # type: ignore[attr-defined]
        return Redis.from_url(url, decode_responses=as_text, protocol=2, socket_timeout=5)

    def rebuilt(self) -> RebuildResult:
        """Nobody sells here."""
        return RebuildResult("nothing", (7,))

    def mysql(self) -> MySQLConnection:
        return open_mysql(**mysql_arguments(read_mysql_url(self.urls[1]), read_timeout_s=10))  # type: ignore[attr-defined]

    def await_well(self, name: str) -> None:
        """It is not ended here."""

    def await_whole(self) -> None:
        """It is one server."""

    def one(self, whom: str) -> str:
        """There is one of each."""
        return whom

    @contextmanager
    def lanes(self, role: str) -> Iterator[list[tuple[Lane, "Redis"]]]:
        """It has all of the ledger."""
        with self.redis(role, as_text=False) as client:
            yield [(WHOLE, client)]

    def names(self, whom: str) -> list[str]:
        """There are no workers here."""
        return []


def fault(what: str, whom: str = "ledger", lasting: str | None = None, **options: Any) -> Fault:
    keys_ = {"at": "0s", "what": what, "whom": whom, "for": lasting, **options}
    return MAKERS[what](PlannedFault.made(**keys_))


@pytest.fixture
def site(own_ledger: RedisServer) -> OneStore:
    return OneStore(Path("nowhere"), (1, 2)).at(own_ledger.url)


@pytest.fixture
def client(own_ledger: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(own_ledger.url, decode_responses=True, protocol=2) as found:
        yield found


@pytest.mark.parametrize(
    ("what", "error"), [("out_of_memory", OutOfMemoryError), ("read_only", ReadOnlyError)]
)
def test_writes_are_refused_until_it_is_healed(
    what: str, error: type[RedisError], site: Site, client: Redis
) -> None:
    client.set("kept", "1")
    broken = fault(what, lasting="1s")
    broken.do(site)
    with pytest.raises(error):
        client.set("other", "1")
    broken.heal(site)
    assert client.get("kept") == "1"
    assert client.set("other", "1")


def test_the_stream_comes_back_with_its_group_and_what_was_pending(
    site: Site, client: Redis
) -> None:
    client.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
    client.xadd(keys.STREAM_ORDERS, {"a": "1"})
    client.xreadgroup(keys.GROUP, "c1", {keys.STREAM_ORDERS: ">"})
    broken = fault("wrong_type", lasting="1s")
    broken.do(site)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        client.xadd(keys.STREAM_ORDERS, {"a": "2"})
    broken.heal(site)
    assert client.xlen(keys.STREAM_ORDERS) == 1
    assert client.xpending(keys.STREAM_ORDERS, keys.GROUP)["pending"] == 1
    assert list(client.keys("*")) == [keys.STREAM_ORDERS]


def test_what_is_gone_is_gone_and_no_more(site: Site, client: Redis) -> None:
    everything = [keys.seckill_stock(1), keys.seckill_stock(2), keys.seckill_sale(1), "other"]
    for name in everything:
        client.set(name, "1")
    client.xgroup_create(keys.STREAM_ORDERS, keys.GROUP, id="0", mkstream=True)
    client.xadd(keys.STREAM_ORDERS, {"a": "1"})
    done(fault("drop_group"), site)
    assert client.xinfo_groups(keys.STREAM_ORDERS) == []
    done(fault("trim"), site)
    assert client.xlen(keys.STREAM_ORDERS) == 0
    done(fault("delete", key="stock"), site)
    assert sorted(client.keys("*")) == sorted([*everything[2:], keys.STREAM_ORDERS])
    client.hset(keys.login_token("a"), "id", "1")
    client.pexpire(keys.login_token("a"), 60_000)
    flushed = fault("flush")
    done(flushed, site)
    assert list(client.keys("*")) == [keys.login_token("a")], "its users are signed in as before"
    assert client.hgetall(keys.login_token("a")) == {"id": "1"}
    assert 0 < client.pttl(keys.login_token("a")) <= 60_000
    assert (flushed.found, flushed.gone) == ("nothing", (7,))
    assert flushed.behind_s is not None


def test_poison_is_in_the_stream(site: Site, client: Redis) -> None:
    done(fault("poison"), site)
    assert client.xlen(keys.STREAM_ORDERS) >= 3


def test_a_pause_ends_by_itself(site: Site, client: Redis) -> None:
    broken = fault("pause_clients", lasting="200ms")
    broken.do(site)
    broken.heal(site)
    assert client.ping()


def test_connections_of_redis_are_closed(site: Site, client: Redis) -> None:
    client.ping()
    before = client.client_id()
    done(fault("kill_connections"), site)
    assert client.client_id() != before, "the client has made a new one"


def done(broken: Fault, site: Site) -> None:
    broken.prepare(site)
    broken.do(site)
    broken.heal(site)


# MySQL -------------------------------------------------------------------------------------------


@pytest.fixture
def database(mysql_url: str, ledger_url: str, pool: Engine) -> OneStore:
    add_sale(pool)
    return OneStore(Path("nowhere"), (1,)).at(ledger_url, mysql_url)


def test_a_locked_row_keeps_others_waiting(database: OneStore) -> None:
    broken = fault("lock_rows", "mysql", "1s")
    broken.do(database)
    with database.mysql() as other, other.cursor() as cursor:
        with pytest.raises(pymysql.Error, match="1205"):
            cursor.execute("SELECT stock FROM tb_seckill_voucher FOR UPDATE NOWAIT")
        broken.heal(database)
        assert cursor.execute("SELECT stock FROM tb_seckill_voucher FOR UPDATE NOWAIT") == 1


def test_connections_of_mysql_are_closed(database: OneStore) -> None:
    other = database.mysql()
    cursor = other.cursor()
    cursor.execute("SELECT 1")
    done(fault("kill_connections", "mysql"), database)
    with pytest.raises(pymysql.Error):
        cursor.execute("SELECT 1")
    other._force_close()  # type: ignore[attr-defined]  # it is not ours to end politely any more


def test_mysql_that_is_read_only_says_so(database: OneStore) -> None:
    """To its owner it does not: whoever may set it may write all the same."""
    broken = fault("read_only", "mysql", "1s")
    broken.do(database)
    assert read_only(database) == 1
    broken.heal(database)
    assert read_only(database) == 0


def read_only(database: OneStore) -> int:
    with database.mysql() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@global.read_only")
        (row,) = cursor.fetchall()
    return int(row[0])
