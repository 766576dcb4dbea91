"""Shops of other shapes than the presets', each described by a file alone: the right one is not
accused, and one that sells past its last unit is named.

Each has a way of its own to be asked, to answer, and to keep its books, as public shops have them.
"""

import itertools
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
import redis
from rig.foreign_shop import UNITS, Shop, Stock, unproved
from rig.shop_server import Asked, Reply

from flashsale.model import Verdict
from flashsale.verify.finding import Judgement

Make = Callable[[Stock, Path, Any], Shop]


def graphql(stock: Stock, folder: Path, _: Any) -> Shop:
    """Every answer is 200; ids are UUIDs, which the books keep as 16 bytes, and times are µs."""
    database = sqlite3.connect(folder / "g.db", check_same_thread=False, isolation_level=None)
    database.execute("CREATE TABLE orders (id BLOB, user_id, product_id BLOB, sold_at INTEGER)")
    product = UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")

    def answer(asked: Asked) -> Reply:
        told = asked.json
        assert told["query"] == "mutation($p: ID!) { buy(product: $p) { order { id } } }"
        assert told["variables"] == {"p": str(product), "n": 1}
        user, order = asked.headers["x-api-user"], UUID(int=len(stock.of) + 1)
        found = stock.to(user, str(order))
        if found in ("duplicate", "sold_out"):
            return Reply(200, {"data": None, "errors": [{"extensions": {"code": found.upper()}}]})
        row = (order.bytes, user, product.bytes, time.time_ns() // 1_000)
        database.execute("INSERT INTO orders VALUES (?, ?, ?, ?)", row)
        return Reply(200, {"data": {"buy": {"order": {"id": str(order).upper()}}}})

    return Shop(
        f"""\
[target]
vouchers = ["{product}"]
[target.buy]
path = "/graphql"
headers = {{ x-api-user = "{{user}}" }}
json = {{ query = "mutation($p: ID!) {{{{ buy(product: $p) {{{{ order {{{{ id }}}} }}}} }}}}", \
variables = {{ p = "{{voucher}}", n = "{{quantity:number}}" }} }}
order = "/data/buy/order/id"
outcomes = [
    {{ matches = {{ "/data/buy/order/id" = "." }}, outcome = "sold" }},
    {{ json = {{ "/errors/0/extensions/code" = "SOLD_OUT" }}, outcome = "sold_out" }},
    {{ json = {{ "/errors/0/extensions/code" = "DUPLICATE" }}, outcome = "duplicate" }},
]
[books]
rest_ms = 100
url = "sqlite:///{folder}/g.db"
orders = "SELECT id, user_id AS user, product_id AS voucher, sold_at AS time FROM orders"
stock = "SELECT X'{product.hex}' AS voucher, 4 AS initial, count(*) AS sold, \
'2024-09-01' AS opens FROM orders"
""",
        answer,
    )


def html(stock: Stock, folder: Path, _: Any) -> Shop:
    """A page with a CSRF token, a form, a redirection to the order; books are two routes, whose
    objects are nested, and one product alone is sold."""
    tokens = itertools.count(1)

    def answer(asked: Asked) -> Reply:
        if asked.path == "/admin/orders?size=1000":
            assert asked.headers["x-admin"] == "k"
            listed = stock.of.items()
            return Reply(200, [_document(user, order) for user, order in listed])
        if asked.path == "/admin/product":
            return Reply(200, {"data": {"total": UNITS, "sold": len(stock.of)}})
        if asked.path == "/product":
            page = f'<form><input name="csrf" value="t{next(tokens)}"></form>'.encode()
            return Reply(200, page, {"set-cookie": "sid=s1; HttpOnly"})
        form = parse_qs(asked.body.decode())
        assert asked.headers["cookie"] == "sid=s1"
        assert re.fullmatch("t[0-9]+", form["csrf"][0])
        found = stock.to(form["user"][0], f"A-{len(stock.of) + 1}")
        where = {"duplicate": "/sorry?why=had", "sold_out": "/sorry?why=gone"}.get(
            found, f"/orders/{found}/thanks"
        )
        return Reply(303, b"", {"location": where})

    return Shop(
        """\
[target.cart]
method = "GET"
path = "/product"
take = { csrf = 'body:name="csrf" value="([^"]+)"', sid = "cookie:sid" }
[target.buy]
path = "/buy"
headers = { cookie = "sid={sid}" }
form = { csrf = "{csrf}", user = "{user}" }
order = "header:location:/orders/([^/]+)"
outcomes = [
    { status = 303, header = { location = ".*why=gone" }, outcome = "sold_out" },
    { status = 303, header = { location = ".*why=had" }, outcome = "duplicate" },
    { status = 303, outcome = "sold" },
]
[books]
rest_ms = 100
route = "/admin/orders?size=1000"
stock_route = "/admin/product"
headers = { x-admin = "k" }
orders = "/"
stock = "/data"
names = { id = "number", user = "/customer/id", live = "/state/name", initial = "total" }
live_is = ["NEW", "PAID"]
""",
        answer,
        ("cart", "buy"),
    )


def _document(user: str, order: str) -> dict[str, Any]:
    return {"number": order, "id": 1, "customer": {"id": user}, "state": {"name": "New"}}


def xml(stock: Stock, folder: Path, _: Any) -> Shop:
    """XML both ways; the orders' lines are in a table of their own, quantities are REAL, and what
    was cancelled is marked by a date."""
    database = sqlite3.connect(folder / "x.db", check_same_thread=False, isolation_level=None)
    database.executescript(
        "CREATE TABLE orders (id INTEGER, customer, placed_at, deleted_at);"
        "CREATE TABLE lines (order_id, sku, qty REAL);"
        "CREATE TABLE units (sku, order_id);"
        "INSERT INTO orders VALUES (1, 'old', '2026-11-29T00:00:00+08:00', '2026-11-29');"
        "INSERT INTO lines VALUES (1, 'x-1', 1.0);"
    )
    database.executemany("INSERT INTO units VALUES ('x-1', NULL)", [()] * UNITS)

    def answer(asked: Asked) -> Reply:
        told = re.fullmatch(
            '<order run="(.+)"><sku>x-1</sku><who>(.+)</who></order>', asked.body.decode()
        )
        assert told is not None
        assert asked.headers["content-type"] == "application/xml"
        number = 9_007_199_254_740_993 + len(stock.of)  # no number of JavaScript
        found = stock.to(told[2], str(number))
        if found in ("duplicate", "sold_out"):
            return Reply(409, f"<fault><code>{found}</code></fault>".encode())
        run = database.execute
        run("INSERT INTO orders VALUES (?, ?, datetime('now'), NULL)", (number, told[2]))
        run("INSERT INTO lines VALUES (?, 'x-1', 1.0)", (number,))
        run(
            "UPDATE units SET order_id = ? WHERE rowid ="
            " (SELECT min(rowid) FROM units WHERE order_id IS NULL)",
            (number,),
        )
        return Reply(201, f"<placed><id>{number}</id></placed>".encode())

    return Shop(
        f"""\
[target]
vouchers = ["x-1"]
user_column = "login"
[target.buy]
path = "/orders"
headers = {{ content-type = "application/xml" }}
text = '<order run="{{run}}"><sku>{{voucher}}</sku><who>{{user.login}}</who></order>'
order = "body:<id>([0-9]+)</id>"
outcomes = [
    {{ status = 201, outcome = "sold" }},
    {{ body = "<code>sold_out<", outcome = "sold_out" }},
    {{ body = "<code>duplicate<", outcome = "duplicate" }},
]
[books]
rest_ms = 100
url = "sqlite:///{folder}/x.db"
orders = '''
SELECT o.id, o.customer AS user, l.sku AS voucher, l.qty AS quantity, o.placed_at AS time,
       o.deleted_at IS NULL AS live
FROM orders o JOIN lines l ON l.order_id = o.id WHERE l.sku IN ({{vouchers}})'''
stock = '''
SELECT sku AS voucher, count(*) AS initial, sum(order_id IS NULL) AS stock
FROM units GROUP BY sku'''
""",
        answer,
        users="login,no\n" + "".join(f" c{n}, {n}\n" for n in range(1, 9)),
    )


def own_key(stock: Stock, folder: Path, _: Any) -> Shop:
    """The client names the order by a UUID, is told 202 at once, and asks by that."""
    asked_before: dict[str, int] = {}
    orders: dict[str, str] = {}

    def answer(asked: Asked) -> Reply:
        if asked.path == "/all":
            listed = [{"id": o, "who": u, "item": "ticket-1"} for o, u in orders.items() if u]
            return Reply(200, {"orders": listed})
        key = asked.path.removeprefix("/orders/")
        assert str(UUID(key)) == key
        if asked.method == "PUT":
            user = asked.json["user"]
            found = stock.to(user, key)
            orders[key] = user if found == key else ""
            asked_before[key] = 0
            return Reply(202)
        asked_before[key] += 1
        if asked_before[key] == 1:
            return Reply(200, {"status": "PROCESSING"})
        return Reply(200, {"status": "COMPLETED" if orders[key] else "REJECTED"})

    return Shop(
        """\
[target.buy]
method = "PUT"
path = "/orders/{uuid}"
json = { user = "{user}", item = "ticket-1" }
order = "{uuid}"
outcomes = [{ status = 202, outcome = "queued" }]
[target.buy.poll]
path = "/orders/{order}"
every_ms = 20
outcomes = [
    { json = { "/status" = "PROCESSING" }, outcome = "queued" },
    { json = { "/status" = "COMPLETED" }, outcome = "sold" },
    { outcome = "sold_out" },
]
[books]
rest_ms = 100
vouchers = ["ticket-1"]
route = "/all"
orders = "/orders"
names = { user = "who", voucher = "item" }
""",
        answer,
        sale={"units": UNITS},
    )


def two_steps(stock: Stock, folder: Path, _: Any) -> Shop:
    """A unit is reserved by one request and paid by another; answers are plain text."""
    rows: list[dict[str, Any]] = []
    whose: dict[str, str] = {}

    def answer(asked: Asked) -> Reply:
        url = urlsplit(asked.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/sale":
            left = UNITS - len(stock.of)
            return Reply(200, {"purchases": rows, "sale": {"remaining": left, "total": UNITS}})
        if url.path == "/purchase":
            rows.append({"user": whose[query["code"]], "when": "2026-11-30T00:00:00.123456789Z"})
            return Reply(200, b"ok")
        code = f"code-{len(stock.of) + 1}"
        found = stock.to(query["user_id"], code)
        if found == "sold_out":
            return Reply(409, b"Item sold out\n")
        if found == "duplicate":
            return Reply(403, b"Purchase limit exceeded\n")
        whose[code] = query["user_id"]
        return Reply(200, f"your code: {code}\n".encode())

    return Shop(
        """\
[target.buy]
path = "/checkout"
query = { user_id = "{user}", id = "item_{attempt}" }
take = { code = "body:code: (.+)" }
outcomes = [
    { status = 200, outcome = "sold" },
    { status = 409, body = "sold out", outcome = "sold_out" },
    { status = 403, outcome = "duplicate" },
]
[target.pay]
path = "/purchase"
query = { code = "{code}" }
[books]
rest_ms = 100
route = "/sale"
orders = "/purchases"
stock = "/sale"
names = { time = "when", stock = "remaining", initial = "total" }
""",
        answer,
        ("buy", "pay"),
    )


def tokens(stock: Stock, folder: Path, store: Any) -> Shop:
    """Redis alone: units are elements of a list, and each buyer has a key with the order's id."""
    store.rpush("units:shoe", *range(UNITS))

    def answer(asked: Asked) -> Reply:
        user = asked.headers["x-user"]
        found = stock.to(user, f"N{len(stock.of) + 1}")
        if found in ("duplicate", "sold_out"):
            return Reply(400, {"message": found})
        store.lpop("units:shoe")
        store.set(f"order:{user}:shoe", json.dumps(found))
        return Reply(200, {"order": found})

    return Shop(
        """\
[target]
vouchers = ["shoe"]
headers = { x-user = "{user}" }
[target.buy]
path = "/buy/{voucher}"
order = "/order"
outcomes = [
    { status = 200, outcome = "sold" },
    { json = { "/message" = "sold_out" }, outcome = "sold_out" },
    { json = { "/message" = "duplicate" }, outcome = "duplicate" },
]
[books]
rest_ms = 100
[books.redis]
stock = "units:{voucher}"
stock_is = "units"
receipts = "order:{user}:{voucher}"
""",
        answer,
    )


def lists(stock: Stock, folder: Path, store: Any) -> Shop:
    """Stock in a field of a hash, buyers in a sorted set, and a queue of three keys, one of which
    holds what is worked on: keys without a voucher, since one is sold."""
    database = sqlite3.connect(folder / "l.db", check_same_thread=False, isolation_level=None)
    database.execute("CREATE TABLE orders (job_id, buyer)")
    store.hset("sale", mapping={"name": "x", "remaining": UNITS})

    def answer(asked: Asked) -> Reply:
        user = asked.json["buyer"]
        found = stock.to(user, str(len(stock.of) + 1))
        if found in ("duplicate", "sold_out"):
            return Reply(422, {"error": {"code": found}})
        store.hincrby("sale", "remaining", -1)
        store.zadd("buyers", {user: 1})
        store.rpush("jobs:wait", found)
        store.lmove("jobs:wait", "jobs:active", "LEFT", "RIGHT")
        database.execute("INSERT INTO orders VALUES (?, ?)", (found, user))
        store.lrem("jobs:active", 1, found)
        return Reply(201, {"jobs": [{"id": found}]})

    return Shop(
        f"""\
[target.buy]
path = "/purchase"
json = {{ buyer = "{{user}}" }}
order = "/jobs/0/id"
outcomes = [
    {{ status = 201, outcome = "sold" }},
    {{ json = {{ "/error/code" = "sold_out" }}, outcome = "sold_out" }},
    {{ json = {{ "/error/code" = "duplicate" }}, outcome = "duplicate" }},
]
[books]
rest_ms = 100
url = "sqlite:///{folder}/l.db"
orders = "SELECT job_id AS id, buyer AS user FROM orders"
[books.redis]
stock = "sale"
stock_field = "remaining"
holders = "buyers"
list = ["jobs:wait", "jobs:active", "jobs:delayed"]
""",
        answer,
    )


def silent(stock: Stock, folder: Path, _: Any) -> Shop:
    """Every claim is taken with 202 and nothing tells what became of it, but for the books."""

    def answer(asked: Asked) -> Reply:
        if asked.path == "/orders":
            listed = [{"id": each, "user": user} for user, each in stock.of.items()]
            return Reply(200, {"orders": listed, "left": {"stock": UNITS - len(stock.of)}})
        stock.to(asked.json["user"], f"{len(stock.of) + 1}")
        return Reply(202, {"message": "Order queued", "correlation_id": str(UUID(int=7))})

    return Shop(
        """\
[target.buy]
path = "/buy"
json = { user = "{user}", request_id = "{uuid}" }
outcomes = [{ status = 202, outcome = "unknown" }]
[books]
rest_ms = 100
route = "/orders"
orders = "/orders"
stock = "/left"
""",
        answer,
    )


SHOPS: dict[str, Make] = {
    each.__name__: each for each in (graphql, html, xml, own_key, two_steps, tokens, lists, silent)
}
IN_REDIS = ("tokens", "lists")


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A Redis, and an account in it that may only read; None where the shop has none."""
    if request.node.callspec.params["kind"] not in IN_REDIS:
        yield None
        return
    url = request.getfixturevalue("ledger_url")
    with redis.Redis.from_url(url, protocol=2) as server:
        server.flushall()
        server.acl_setuser("only", True, passwords=["+reads"], keys=["*"], categories=["+@read"])
        yield server


def _reads(store: Any) -> str | None:
    if store is None:
        return None
    kept = store.connection_pool.connection_kwargs
    return f"redis://only:reads@{kept['host']}:{kept['port']}"


def judged(kind: str, folder: Path, store: Any, spare: int) -> tuple[Judgement, dict[str, int]]:
    return SHOPS[kind](Stock(spare), folder, store).judged(folder, redis_url=_reads(store))


@pytest.mark.parametrize("kind", SHOPS)
def test_a_shop_that_sells_right_is_not_accused(kind: str, tmp_path: Path, store: Any) -> None:
    found, outcomes = judged(kind, tmp_path, store, 0)
    sold = {"unknown": 8} if kind == "silent" else {"sold": UNITS, "sold_out": 8 - UNITS}
    assert outcomes == sold
    assert found.verdict is Verdict.PASS, (found.reason, unproved(found))
    assert (found.accepted, found.persisted) == (0 if kind == "silent" else UNITS, UNITS)
    judged_at_all = {c.name for c in found.checks if c.verdict is Verdict.PASS}
    assert {"no_oversell", "no_undersell", "one_per_user", "accepted_persisted"} <= judged_at_all
    assert ("redis_conservation" in judged_at_all) is (kind in IN_REDIS)
    assert ("queue_empty" in judged_at_all) is (kind == "lists")
    assert ("window" in judged_at_all) is (kind == "graphql")


@pytest.mark.parametrize("kind", SHOPS)
def test_one_that_sells_past_its_last_unit_is_named(kind: str, tmp_path: Path, store: Any) -> None:
    found, outcomes = judged(kind, tmp_path, store, 2)
    assert outcomes.get("sold", UNITS + 2) == UNITS + 2
    (check,) = (check for check in found.checks if check.name == "no_oversell")
    assert check.verdict is Verdict.FAIL
    assert f"{UNITS + 2} orders for {UNITS} units" in check.detail


@pytest.mark.parametrize("kind", SHOPS)
def test_what_one_claim_left_is_found_in_the_books(kind: str, tmp_path: Path, store: Any) -> None:
    shop = SHOPS[kind](Stock(), tmp_path, store)
    tried, lines, trouble = shop.tried(tmp_path, redis_url=_reads(store))
    assert all(each.is_understood for each in tried), [str(each) for each in tried]
    assert trouble is None, trouble
    assert lines[-1].startswith("what was sold is there: " if kind != "silent" else "its stock")
