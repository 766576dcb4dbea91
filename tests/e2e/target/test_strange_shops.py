"""Shops whose ways have misled the judge: each right one passes, each wrong one is named, and books
that cannot be understood are told in place of a verdict.
"""

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import redis
from rig.command_line import run_flashsale
from rig.foreign_shop import UNITS, Shop, Stock, unproved
from rig.shop_server import Asked, Reply, ShopServer

from flashsale.errors import UsageError
from flashsale.model import Verdict
from flashsale.verify.shop_rows import UnfitError

Make = Callable[[Stock, Path], Shop]


def ulids(stock: Stock, folder: Path) -> Shop:
    """201 without a body, the order in Location alone and in capitals; problem+json; times as text
    with a zone; what was cancelled is marked."""
    database = sqlite3.connect(folder / "u.db", check_same_thread=False, isolation_level=None)
    database.executescript(
        "CREATE TABLE orders (id, member, made_at, deleted_at);"
        "INSERT INTO orders VALUES ('01hold', '9', '2026-11-01 10:00:00 +0000', '2026-11-02');"
    )

    def answer(asked: Asked) -> Reply:
        order = f"01ARZ3NDEKTSV4RRFFQ69G5FA{len(stock.of)}"
        found = stock.to(asked.json["member"], order)
        if found in ("duplicate", "sold_out"):
            told = f'{{"type":"https://shop.example/problems/{found}","status":409}}'.encode()
            return Reply(409, told, {"content-type": "application/problem+json"})
        now = datetime.now(timezone(timedelta(hours=8)))
        row = (order.lower(), asked.json["member"], f"{now:%Y-%m-%d %H:%M:%S %z}")
        database.execute("INSERT INTO orders VALUES (?, ?, ?, NULL)", row)
        return Reply(201, b"", {"location": f"https://shop.example/v1/orders/{order}"})

    return Shop(
        f"""\
[target.buy]
path = "/v1/orders"
json = {{ member = "{{user}}" }}
order = "header:location:/orders/([^/?]+)"
outcomes = [
    {{ status = 201, outcome = "sold" }},
    {{ status = 409, matches = {{ "/type" = "/sold_out$" }}, outcome = "sold_out" }},
    {{ status = 409, matches = {{ "/type" = "/duplicate$" }}, outcome = "duplicate" }},
]
[books]
rest_ms = 100
url = "sqlite:///{folder}/u.db"
orders = '''
SELECT upper(id) AS id, member AS user, made_at AS time, deleted_at IS NULL AS live FROM orders'''
stock = '''
SELECT {UNITS} AS initial, datetime('now', '-1 hour') AS opens,
    datetime('now', '+1 hour') AS closes'''
""",
        answer,
    )


def coded(stock: Stock, folder: Path) -> Shop:
    """200 to everything, with a code and no order; who clicks again is told the same again. Its
    books come in pages, each with a link to the next, and times as mails have them."""

    def answer(asked: Asked) -> Reply:
        url = urlsplit(asked.path)
        if url.path == "/admin/orders":
            asked_for = parse_qs(url.query)
            at = int(asked_for.get("cursor", ["0"])[0])
            listed = [
                {"buyer": user, "createdAt": "Mon, 30 Nov 2026 10:00:00 GMT"} for user in stock.of
            ]
            more = f"https://elsewhere.example/admin/orders?cursor={at + 3}"
            following = None if at + 3 >= len(listed) else at + 3 if "links" in asked_for else more
            return Reply(200, {"results": listed[at : at + 3], "next": following})
        found = stock.to(parse_qs(asked.body.decode())["user"][0], "order")
        code = {"sold_out": "A0450"}.get(found, "0000")
        return Reply(200, {"code": code, "msg": "", "data": None})

    return Shop(
        """\
[target.buy]
path = "/buy"
form = { user = "{user}" }
outcomes = [
    { json = { "/code" = "0000" }, outcome = "sold" },
    { json = { "/code" = "A0450" }, outcome = "sold_out" },
]
[books]
rest_ms = 100
route = "/admin/orders"
orders = "/results"
names = { user = "buyer", time = "createdAt" }
""",
        answer,
        sale={"clicks": 2, "units": UNITS},
    )


def warehouses(stock: Stock, folder: Path) -> Shop:
    """Two units a claim, out of two warehouses that a route tells of one by one."""

    def answer(asked: Asked) -> Reply:
        if asked.path == "/books":
            left = 2 * (UNITS - len(stock.of))
            listed = [{"id": o, "who": u, "n": "2.00"} for u, o in stock.of.items()]
            north = {"left": left // 2, "all": UNITS}
            return Reply(
                200, {"orders": listed, "stock": [north, {**north, "left": -(-left // 2)}]}
            )
        assert asked.json["n"] == 2
        found = stock.to(asked.json["who"], f"w-{len(stock.of)}")
        if found in ("duplicate", "sold_out"):
            return Reply(422, {"errors": [{"code": found}]})
        return Reply(201, {"id": found})

    return Shop(
        """\
[target.buy]
path = "/buy"
json = { who = "{user}", n = "{quantity:number}" }
order = "/id"
outcomes = [
    { status = 201, outcome = "sold" },
    { json = { "/errors/0/code" = "sold_out" }, outcome = "sold_out" },
    { json = { "/errors/0/code" = "duplicate" }, outcome = "duplicate" },
]
[books]
rest_ms = 100
route = "/books"
orders = "/orders"
stock = "/stock"
names = { user = "who", quantity = "n", stock = "left", initial = "all" }
""",
        answer,
        sale={"quantity": 2},
    )


def batches(stock: Stock, folder: Path) -> Shop:
    """A claim is queued, who asks after it finds nothing for a while, and rows are written in two
    batches long after rows have rested for `rest_ms`."""
    database = sqlite3.connect(folder / "b.db", check_same_thread=False, isolation_level=None)
    database.execute("CREATE TABLE orders (id, user, kind DEFAULT 'SKU')")
    asked_before: dict[str, int] = {}
    workers: list[threading.Thread] = []
    of: dict[str, str] = {}

    def write(orders: list[tuple[str, str]]) -> None:
        for half in (orders[::2], orders[1::2]):
            time.sleep(0.9)
            database.executemany("INSERT INTO orders (id, user) VALUES (?, ?)", half)

    def answer(asked: Asked) -> Reply:
        if asked.method == "POST":
            ticket = f"t{len(of)}"
            of[ticket] = stock.to(asked.json["user"], f"b-{len(stock.of)}")
            if len(of) == 8:
                rows = [(order, user) for user, order in stock.of.items()]
                workers.append(threading.Thread(target=write, args=(rows,)))
                workers[0].start()
            return Reply(202, {"ticket": ticket})
        ticket = asked.path.rpartition("/")[2]
        asked_before[ticket] = asked_before.get(ticket, 0) + 1
        if asked_before[ticket] < 3:
            return Reply(404)
        if of[ticket] == "sold_out":
            return Reply(200, {"state": "REJECTED"})
        return Reply(200, {"state": "DONE", "order": of[ticket]})

    return Shop(
        f"""\
[target.buy]
path = "/queue"
json = {{ user = "{{user}}" }}
order = "/ticket"
outcomes = [{{ status = 202, outcome = "queued" }}]
[target.buy.poll]
path = "/queue/{{order}}"
every_ms = 20
order = "/order"
outcomes = [
    {{ status = 404, outcome = "queued" }},
    {{ json = {{ "/state" = "DONE" }}, outcome = "sold" }},
    {{ json = {{ "/state" = "REJECTED" }}, outcome = "sold_out" }},
]
[books]
rest_ms = 100
url = "sqlite:///{folder}/b.db"
orders = "SELECT id, user, kind FROM orders"
""",
        answer,
        sale={"units": UNITS},
        workers=workers,
    )


SHOPS: dict[str, Make] = {each.__name__: each for each in (ulids, coded, warehouses, batches)}


@pytest.mark.parametrize("kind", SHOPS)
def test_a_shop_that_sells_right_is_not_accused(kind: str, tmp_path: Path) -> None:
    found, outcomes = SHOPS[kind](Stock(), tmp_path).judged(tmp_path)
    assert outcomes.get("sold") == UNITS * (2 if kind == "coded" else 1)
    assert found.verdict is Verdict.PASS, (found.reason, unproved(found))
    assert (found.accepted, found.persisted) == (UNITS, UNITS)


@pytest.mark.parametrize("kind", SHOPS)
def test_one_that_sells_past_its_last_unit_is_named(kind: str, tmp_path: Path) -> None:
    found, _ = SHOPS[kind](Stock(spare=2), tmp_path).judged(tmp_path)
    (check,) = (check for check in found.checks if check.name == "no_oversell")
    assert check.verdict is Verdict.FAIL, unproved(found)


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "said"),
    [
        ("ulids", "upper(id) AS id", "id", "such as '01ARZ3NDEKTSV4RRFFQ69G5FA0' and "),
        ("ulids", "member AS user", "'m-' || member AS user", "are of users such as 'm-"),
        ("warehouses", ', quantity = "n"', "", "an order without 'quantity' does not say how many"),
        (
            "coded",
            '"/admin/orders"',
            '"/admin/orders?links=no"',
            "says that there are more (next: 3)",
        ),
        ("coded", '"/admin/orders"', '"/admin/orders?page={page}"', "as the page before it"),
        (
            "ulids",
            f"SELECT {UNITS} AS initial,",
            f"SELECT {UNITS} AS initial, 1 AS opens, 2 AS closes UNION ALL SELECT {UNITS},",
            "books.stock: tells of 1 in several rows; sum them",
        ),
        (
            "ulids",
            "IS NULL AS live",
            "IS NOT NULL AS live",
            "none of the 4 new ones in [books] is live",
        ),
        ("ulids", "AS live FROM orders", "AS live FROM orders LIMIT 5", "its LIMIT 5 is reached"),
        ("batches", "user, kind", "user, kind AS voucher", "of vouchers such as 'SKU'"),
        (
            "batches",
            "[books]",
            '[target]\nvouchers = ["sku"]\n[books]\nnames = { voucher = "kind" }',
            "books.orders: found voucher 'SKU', and the file calls it 'sku'",
        ),
    ],
)
def test_books_that_cannot_be_understood_are_told(
    tmp_path: Path, kind: str, right: str, wrong: str, said: str
) -> None:
    shop = SHOPS[kind](Stock(), tmp_path)
    assert right in shop.file
    with pytest.raises((UsageError, UnfitError)) as error:
        replace(shop, file=shop.file.replace(right, wrong)).judged(tmp_path)
    assert said in str(error.value)


def deleting() -> Shop:
    """Who cancels gets the order deleted, row and all, and its unit returned."""
    orders: dict[str, str] = {}
    left, numbers = [UNITS], itertools.count(1)

    def answer(asked: Asked) -> Reply:
        if asked.path == "/books":
            listed = [{"id": order, "user": user} for order, user in orders.items()]
            return Reply(200, {"orders": listed, "sku": {"stock": left[0], "initial": UNITS}})
        if asked.method == "DELETE":
            left[0] += orders.pop(asked.path.rpartition("/")[2], None) is not None
            return Reply(204)
        if not left[0]:
            return Reply(409)
        order = f"d-{next(numbers)}"
        orders[order] = asked.json["user"]
        left[0] -= 1
        return Reply(201, {"id": order})

    return Shop(
        """\
[target.buy]
path = "/orders"
json = { user = "{user}" }
order = "/id"
outcomes = [{ status = 201, outcome = "sold" }, { status = 409, outcome = "sold_out" }]
[target.cancel]
method = "DELETE"
path = "/orders/{order}"
[books]
rest_ms = 100
route = "/books"
orders = "/orders"
stock = "/sku"
""",
        answer,
        ("buy", "cancel"),
    )


def test_an_order_that_was_cancelled_and_deleted_is_not_missing(tmp_path: Path) -> None:
    found, outcomes = deleting().judged(tmp_path)
    assert outcomes == {"sold": 8}
    assert found.verdict is Verdict.PASS, unproved(found)
    assert found.accepted == 8


def counting(store: Any, folder: Path, stock_is: str, spare: int) -> Shop:
    """A number in Redis that each claim counts on, also one that is refused then."""
    database = sqlite3.connect(folder / "c.db", check_same_thread=False, isolation_level=None)
    database.execute("CREATE TABLE orders (user)")
    counts_down = stock_is == "countdown"
    store.set("count", UNITS if counts_down else 0)

    def answer(asked: Asked) -> Reply:
        told = store.decr("count") if counts_down else store.incr("count")
        if told < -spare or told > UNITS + spare:
            return Reply(409)
        store.sadd("had", asked.json["user"])
        database.execute("INSERT INTO orders VALUES (?)", (asked.json["user"],))
        return Reply(201)

    return Shop(
        f"""\
[target.buy]
path = "/orders"
json = {{ user = "{{user}}" }}
outcomes = [{{ status = 201, outcome = "sold" }}, {{ status = 409, outcome = "sold_out" }}]
[books]
rest_ms = 100
url = "sqlite:///{folder}/c.db"
orders = "SELECT user FROM orders"
[books.redis]
stock = "count"
stock_is = "{stock_is}"
holders = "had"
""",
        answer,
        sale={"units": UNITS},
    )


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("stock_is", ["countdown", "sold"])
def test_who_is_refused_may_count_on(
    tmp_path: Path, ledger_url: str, stock_is: str, spare: int
) -> None:
    with redis.Redis.from_url(ledger_url, protocol=2) as store:
        store.flushall()
        shop = counting(store, tmp_path, stock_is, spare)
        found, _ = shop.judged(tmp_path, redis_url=ledger_url)
    failed = {check.name for check in found.checks if check.verdict is Verdict.FAIL}
    assert ({"no_oversell", "redis_conservation"} <= failed) if spare else not failed
    assert (found.verdict is Verdict.PASS) is not bool(spare), unproved(found)


def test_what_was_bought_has_to_be_live_in_the_books(tmp_path: Path) -> None:
    right = ulids(Stock(), tmp_path)
    tried, lines, trouble = right.tried(tmp_path)
    assert all(each.is_understood for each in tried)
    assert trouble is None, trouble
    assert lines[-1].startswith(
        "what was sold is there: order 01ARZ3NDEKTSV4RRFFQ69G5FA0 of user 1"
    )
    (tmp_path / "u.db").unlink()
    ended = ulids(Stock(), tmp_path)
    wrong = replace(ended, file=ended.file.replace("IS NULL AS live", "IS NOT NULL AS live"))
    *_, trouble = wrong.tried(tmp_path)
    assert "was sold, and is not live in the books" in str(trouble)


def test_what_was_bought_and_cancelled_is_not_missed(tmp_path: Path) -> None:
    tried, lines, trouble = deleting().tried(tmp_path)
    assert [str(each.answer and each.answer.outcome) for each in tried] == ["sold", "done"]
    assert trouble is None, trouble
    assert lines == [
        "0 orders of voucher 1, 0 live; columns: not known yet",
        "its stock says voucher 1, stock 4, initial 4",
    ]


def test_times_of_another_zone_convict_nobody(tmp_path: Path) -> None:
    shop = ulids(Stock(), tmp_path)
    zoneless = replace(shop, file=shop.file.replace("made_at AS", "substr(made_at, 1, 19) AS"))
    found, _ = zoneless.judged(tmp_path)
    assert found.verdict is Verdict.PASS, unproved(found)
    (window,) = (check for check in found.checks if check.name == "window")
    assert window.detail.endswith("minutes from the run; books.utc_offset_min = 480 would fit")


def test_who_sells_when_it_is_over_is_named_by_the_database(tmp_path: Path) -> None:
    shop = ulids(Stock(), tmp_path)
    over = replace(shop, file=shop.file.replace("'+1 hour'", "'-1 minute'"))
    found, _ = over.judged(tmp_path)
    (window,) = (check for check in found.checks if check.verdict is Verdict.FAIL)
    assert window.name == "window"
    assert "ms past its end" in window.detail


@pytest.mark.parametrize(
    ("right", "wrong", "code", "said", "sold"),
    [
        ("u.db", "none.db", 7, "none.db cannot be read (unable to open database file)", 0),
        ("FROM orders", "FROM order_", 2, "no such table: order_", 0),
        ("member AS user", "member", 2, "an order without 'user'", 0),
        (
            "status = 201",
            "status = 200",
            2,
            "buy; see to what target.buy asks, or add a rule to",
            1,
        ),
        ("header:location", "header:x-order", 2, "buy; no order's id is at target.buy.order", 1),
        ('"/v1/orders"', '"/v2/orders"', 2, "such as { status = 404, outcome = ", 0),
        ("[target.buy]", '[target]\nhealth = "/up"\n[target.buy]', 2, "health; see to target", 1),
        ("", "[books.redis]\nstock = 's'\n", 0, "Redis is not given", 1),
    ],
)
def test_a_wrong_file_is_told_by_a_try_before_a_unit_is_sold_if_that_can_be(
    tmp_path: Path, right: str, wrong: str, code: int, said: str, sold: int
) -> None:
    stock = Stock()
    shop = ulids(stock, tmp_path)
    file = shop.file.replace(right, wrong) if right else shop.file + wrong
    (tmp_path / "shop.toml").write_text(file)

    def answer(asked: Asked) -> Reply:
        return shop.answer(asked) if asked.path == "/v1/orders" else Reply(404)

    with ShopServer(answer).open() as server:
        words = ("target", "check", "shop.toml", "--base-url", server.base_url)
        done = run_flashsale(tmp_path, *words)
    assert (done.returncode, len(stock.of)) == (code, sold), done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def test_a_unit_whose_money_is_declined_was_sold_to_nobody(tmp_path: Path) -> None:
    """Every third is declined, and nothing is kept of it: reserving is a step before the claim, and
    that none is left for now is no word of a sale that is sold out."""
    held: dict[str, str] = {}
    paid: dict[str, str] = {}
    numbers = itertools.count(1)

    def answer(asked: Asked) -> Reply:
        if asked.path == "/books":
            left = UNITS - len(held) - len(paid)
            listed = [{"id": order, "user": user} for order, user in paid.items()]
            return Reply(200, {"orders": listed, "sku": {"stock": left, "initial": UNITS}})
        if asked.path == "/hold":
            hold = str(next(numbers))
            if len(held) + len(paid) < UNITS:
                held[hold] = asked.json["user"]
            return Reply(201, {"id": hold})
        hold = asked.path.removeprefix("/pay/")
        user = held.pop(hold, None)
        if user is None:
            return Reply(410)
        if not int(hold) % 3:
            return Reply(402)
        paid[hold] = user
        return Reply(200, {"id": hold})

    file = """\
[target.cart]
path = "/hold"
json = { user = "{user}" }
take = { hold = "/id" }
[target.buy]
path = "/pay/{hold}"
order = "/id"
outcomes = [
    { status = 200, outcome = "sold" },
    { status = [402, 410], outcome = "refused" },
]
[books]
rest_ms = 100
route = "/books"
orders = "/orders"
stock = "/sku"
"""
    found, outcomes = Shop(file, answer, ("cart", "buy")).judged(tmp_path)
    assert outcomes["refused"] >= 1
    failed = [c.name for c in found.checks if c.verdict is Verdict.FAIL]
    assert not failed, unproved(found)


def writing_all(folder: Path, fault: str = "", earlier: int = 0) -> Shop:
    """A row for each claim, also for one that is refused; customers are numbered as they come, and
    `earlier` ones hold an order from before."""
    database = sqlite3.connect(folder / "w.db", check_same_thread=False, isolation_level=None)
    database.executescript(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, state);"
        "CREATE TABLE customers (id INTEGER PRIMARY KEY, name UNIQUE);"
    )
    for n in range(earlier):
        database.execute("INSERT INTO customers (name) VALUES (?)", (f"early-{n}",))
        database.execute("INSERT INTO orders (customer, state) VALUES (?, 'PAID')", (n + 1,))
    units, spare = UNITS + earlier, 2 if fault == "takes_back" else 0
    units_sold = units - 2 if fault == "ends_early" else units

    def answer(asked: Asked) -> Reply:
        run, name = database.execute, asked.json["user"]
        run("INSERT OR IGNORE INTO customers (name) VALUES (?)", (name,))
        ((customer,),) = run("SELECT id FROM customers WHERE name = ?", (name,))
        which = "" if fault == "takes_back" else "WHERE state = 'PAID'"
        ((sold,),) = run(f"SELECT count(*) FROM orders {which}")
        is_left = sold < units_sold + spare
        row = run(
            "INSERT INTO orders (customer, state) VALUES (?, ?)",
            (customer, "PAID" if is_left else "VOID"),
        )
        if fault == "declines" and customer % 3 == 0 and is_left:
            run("UPDATE orders SET state = 'VOID' WHERE id = ?", (row.lastrowid,))
            return Reply(402)
        if sold == units + 1 and is_left:
            run("UPDATE orders SET state = 'VOID' WHERE id > ? - 2", (row.lastrowid,))
        return Reply(201, {"id": row.lastrowid}) if is_left else Reply(410, {"id": row.lastrowid})

    return Shop(
        f"""\
[target.buy]
path = "/orders"
json = {{ user = "{{user}}" }}
order = "/id"
outcomes = [
    {{ status = 201, outcome = "sold" }},
    {{ status = 410, outcome = "sold_out" }},
    {{ status = 402, outcome = "refused" }},
]
[books]
rest_ms = 100
url = "sqlite:///{folder}/w.db"
orders = '''
SELECT orders.id, name AS user, state AS live FROM orders JOIN customers c ON c.id = customer'''
stock = "SELECT {units} AS initial, count(*) AS sold FROM orders WHERE state = 'PAID'"
live_is = "PAID"
""",
        answer,
        sale={"units": UNITS},
    )


@pytest.mark.parametrize("earlier", [0, 3])
@pytest.mark.parametrize("fault", ["", "declines"])
def test_a_row_of_a_claim_that_was_refused_is_no_order(
    tmp_path: Path, fault: str, earlier: int
) -> None:
    found, _ = writing_all(tmp_path, fault, earlier).judged(tmp_path)
    assert found.verdict is Verdict.PASS, (found.reason, unproved(found))


@pytest.mark.parametrize("earlier", [0, 3])
def test_neither_earlier_orders_nor_rows_of_refusals_excuse_a_sale_that_ends_early(
    tmp_path: Path, earlier: int
) -> None:
    found, outcomes = writing_all(tmp_path, "ends_early", earlier).judged(tmp_path)
    assert outcomes == {"sold": UNITS - 2, "sold_out": 10 - UNITS}
    failed = {check.name for check in found.checks if check.verdict is Verdict.FAIL}
    assert failed == {"no_undersell", "linearizable"}, unproved(found)


def test_what_was_sold_and_taken_back_is_in_doubt_unless_it_may_be(tmp_path: Path) -> None:
    shop = writing_all(tmp_path, "takes_back")
    found, outcomes = shop.judged(tmp_path)
    assert outcomes["sold"] == UNITS + 2
    (check,) = (check for check in found.checks if check.name == "accepted_persisted")
    assert (found.verdict, check.verdict) == (Verdict.UNKNOWN, Verdict.UNKNOWN), unproved(found)
    assert check.detail.startswith("ended, though nobody cancelled: order ")


def test_unpaid_orders_may_end_in_time(tmp_path: Path) -> None:
    shop = writing_all(tmp_path, "takes_back")
    found, _ = replace(shop, file=f"{shop.file}may_end = true\n").judged(tmp_path)
    assert found.verdict is Verdict.PASS, unproved(found)


def test_books_that_number_users_for_themselves_convict_nobody(tmp_path: Path) -> None:
    """Each has another one's number, as where they are numbered as they come."""
    shop = writing_all(tmp_path)
    numbered = replace(shop, file=shop.file.replace("name AS user", "name % 8 + 1 AS user"))
    with pytest.raises(UnfitError) as found:
        numbered.judged(tmp_path)
    assert "orders that answers name are of another user in [books]: of " in str(found.value)


@pytest.mark.parametrize(
    ("fault", "outcome", "opens", "closes", "said"),
    [
        ("ends_early", "ended", "-1 day", "+1 day", "told “ended”, yet 2 of 4 were never sold"),
        ("ends_early", "not_open", "-1 day", "+1 day", "told “not open”, yet 2 of 4"),
        ("ends_early", "ended", "-1 day", "-1 hour", ""),  # it is over
        ("ends_early", "ended", "-1 day", "+1 minute", ""),  # its clock may be ahead
        ("", "ended", "-1 day", "+1 day", ""),  # as a shop says that has sold all
    ],
)
def test_a_sale_that_is_over_before_its_end_is_in_doubt(
    tmp_path: Path, fault: str, outcome: str, opens: str, closes: str, said: str
) -> None:
    shop = writing_all(tmp_path, fault)
    hours = f"datetime('now', '{opens}') AS opens, datetime('now', '{closes}') AS closes"
    file = shop.file.replace('"sold_out"', f'"{outcome}"')
    file = file.replace("count(*) AS sold", f"count(*) AS sold, {hours}")
    found, outcomes = replace(shop, file=file).judged(tmp_path)
    assert outcomes[outcome] == 8 - outcomes["sold"]
    (check,) = (check for check in found.checks if check.name == "no_undersell")
    assert check.verdict is (Verdict.UNKNOWN if said else Verdict.PASS), unproved(found)
    assert said in check.detail
