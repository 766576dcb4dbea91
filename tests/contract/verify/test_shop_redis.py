"""What a shop keeps in Redis, in whatever kind of key, as an account that only reads finds it."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from flashsale.books import Books
from flashsale.errors import UnreachableError
from flashsale.model import id_of
from flashsale.verify.queue import BEGINNING
from flashsale.verify.shop_redis import read_ledger, read_pulse, read_shop_queue, shop_redis
from flashsale.verify.stores import LedgerSale


@pytest.fixture
def server(ledger_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(ledger_url, protocol=2) as client:
        client.flushall()
        client.acl_setuser("only", True, passwords=["+reads"], keys=["*"], categories=["+@read"])
        yield client
        client.acl_deluser("only")


def reader(ledger_url: str) -> str:
    place = urlsplit(ledger_url)
    return place._replace(netloc=f"only:reads@{place.hostname}:{place.port}").geturl()


def read(ledger_url: str, vouchers: tuple[str, ...] = (), **kept: Any) -> LedgerSale:
    books = Books.model_validate(
        {"orders": "SELECT 1", "vouchers": vouchers, "redis": {"url": ledger_url, **kept}}
    )
    with shop_redis(books.redis, reader(ledger_url)) as client:
        assert client is not None
        names: dict[int, str] = {}
        assert read_pulse(client, books, [1]) == read_pulse(client, books, [1])
        return read_ledger(client, books, 1, names)


@pytest.mark.parametrize(
    ("stock", "kept", "odd"),
    [
        (7, {"stock": "text:{voucher}"}, ""),
        (7, {"stock": "quoted"}, ""),
        (7, {"stock": "hash", "stock_field": "left"}, ""),
        (3, {"stock": "list", "stock_is": "units"}, ""),
        (2, {"stock": "set", "stock_is": "units"}, ""),
        (0, {"stock": "gone", "stock_is": "units"}, ""),  # the last was taken
        (7, {"stock": "text:1", "stock_is": "countdown"}, ""),
        (0, {"stock": "below", "stock_is": "countdown"}, ""),
        (-4, {"stock": "below"}, "below holds -4; where it is who is refused that counts it down"),
        (None, {"stock": "gone"}, ""),
        (None, {"stock": "hash"}, "hash is a hash, not a string; see to stock_field, or stock_is"),
        (None, {"stock": "list"}, "list is a list, not a string"),
        (None, {"stock": "text:1", "stock_field": "x"}, "text:1 is a string, not a hash"),
        (None, {"stock": "text:1", "stock_is": "units"}, "text:1 is a string, not a list or a set"),
        (None, {"stock": "hash", "stock_field": "no"}, "no of hash holds None, which is no number"),
        (None, {"stock": "word"}, "word holds b'many', which is no number"),
    ],
)
def test_units_in_whatever_kind_of_key(
    server: "redis.Redis", ledger_url: str, stock: int | None, kept: dict[str, str], odd: str
) -> None:
    server.mset({"text:1": 7, "quoted": '"7"', "word": "many", "below": -4})
    server.hset("hash", "left", 7)
    server.rpush("list", "a", "b", "c")
    server.sadd("set", "a", "b")
    found = read(ledger_url, **kept)
    assert found.stock == stock
    assert "".join(found.oddities).startswith(odd)
    assert bool(found.oddities) is bool(odd)


def test_who_has_an_order_in_whatever_kind_of_key(server: "redis.Redis", ledger_url: str) -> None:
    server.sadd("set:1", "1", "2")
    server.hset("hash:1", mapping={"1": 1, "2": 1})
    server.zadd("sorted:1", {"1": 5, "2": 6})
    server.rpush("list:1", "1", "2")
    server.mset({"had:1:1": "x", "had:1:2": "", "had:11:3": "x", "had:1x:4": "x"})
    for key in ("set", "hash", "sorted", "list"):
        assert read(ledger_url, holders=f"{key}:{{voucher}}").members == {1, 2}
    assert read(ledger_url, holders="had:{voucher}:{user}").members == {1, 2}
    assert read(ledger_url, holders="none").members == set()


def test_a_user_who_stands_twice_in_a_list_is_told(server: "redis.Redis", ledger_url: str) -> None:
    server.rpush("buyers", "a", "b", "a")
    found = read(ledger_url, holders="buyers")
    assert found.members == {id_of("a"), id_of("b")}
    assert found.oddities == ("buyers names user a 2 times",)


def test_receipts_of_a_key_each_by_a_pattern_that_means_itself(
    server: "redis.Redis", ledger_url: str
) -> None:
    server.mset({"o[1]?:u*1": "17", "o1x:u9": "18", "o[1]?:": "19"})
    server.sadd("o[1]?:u2", "x")  # no order id
    found = read(ledger_url, ("[1]?",), receipts="o{voucher}:{user}")
    assert found.receipts == {id_of("u*1"): 17}
    assert found.members == {id_of("u*1")}


def test_what_is_left_of_several_queues(server: "redis.Redis", ledger_url: str) -> None:
    server.rpush("wait", "a", "b")
    server.zadd("delayed", {"c": 1})
    server.hset("unacked", "d", "x")
    kept = {"list": ["wait", "active", "delayed", "unacked"]}
    books = Books.model_validate({"orders": "SELECT 1", "redis": kept})
    with shop_redis(books.redis, reader(ledger_url)) as client:
        found = read_shop_queue(client, books, BEGINNING, {})
    assert (found.why, found.queue.backlog.total) == ("", 4)
    assert found.queue.stream == "wait, active, delayed, unacked"


def test_an_account_that_may_not_read_them_is_told_what_it_lacks(
    server: "redis.Redis", ledger_url: str
) -> None:
    server.acl_setuser("only", True, reset_keys=True, keys=["other:*"], categories=["+@read"])
    with pytest.raises(UnreachableError, match=r"give the account \+@read and the keys of"):
        read(ledger_url, stock="stock:{voucher}")
