"""A shop of its own kind, judged by its own books: what it does wrong is named, what it does right
is left alone, and what its books do not have is unknown, with the reason.
"""

import json
import sqlite3
import ssl
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rig.private_ca import certify
from rig.shop_server import Asked, Reply, ShopServer

from flashsale.books import Books, ShopBooks
from flashsale.campaign.campaign import shop_books
from flashsale.campaign.judging import judge_run
from flashsale.campaign.storming import StormRequest, run_storm
from flashsale.errors import NothingJudgedError, UnreachableError, UsageError
from flashsale.model import Verdict
from flashsale.scenario.scenario import parse_scenario
from flashsale.scenario.target import Tls
from flashsale.verify.finding import Judgement
from flashsale.verify.shop_tables import count_orders, read_tables

SCENARIO = """\
# Is it sold as it should be?
schema = 1
name = "own"
[sale]
units = 4
quantity = {quantity}
limit = {limit}
[load]
model = "closed"
users = {users}
connections = 4
clicks = {clicks}
steps = {steps}
[thresholds]
"error.share" = "<= 100%"
[target.buy]
path = "/buy/{{voucher}}/{{user}}/{{quantity}}"
order = "{order}"
outcomes = [
    {{ status = 201, outcome = "sold" }},
    {{ status = 409, outcome = "sold_out" }},
    {{ status = 403, outcome = "duplicate" }},
]
[target.cancel]
path = "/cancel/{{user}}"
[books]
rest_ms = 100
{books}
"""
BY_SQL = """\
url = "sqlite:///{path}"
orders = '''SELECT id, user_id AS user, sku AS voucher, quantity, state <> 'cancelled' AS live,
            sold_at AS time FROM orders WHERE sku IN ({{vouchers}})'''
stock = "SELECT sku AS voucher, stock, opens, closes FROM skus"
"""
BY_ROUTE = """\
route = "/books"
headers = { x-key = "k" }
orders = "/sales/orders"
stock = "/sales/skus"
names = { user = "user_id", voucher = "sku", time = "sold_at" }
"""


@dataclass
class Shop:
    """A shop with its books in SQLite; each fault is a switch."""

    path: Path
    faults: frozenset[str] = frozenset()
    ids: bool = True
    limit: int = 1
    sold: int = 0
    database: sqlite3.Connection = field(init=False)

    def __post_init__(self) -> None:
        self.database = sqlite3.connect(
            self.path, check_same_thread=False, isolation_level=None, timeout=10
        )
        self.database.executescript(
            "CREATE TABLE skus (sku INTEGER, stock INTEGER, opens TEXT, closes TEXT);"
            "CREATE TABLE orders (id TEXT, user_id TEXT, sku INTEGER, quantity INTEGER,"
            " state TEXT DEFAULT 'new', sold_at TEXT DEFAULT CURRENT_TIMESTAMP);"
            "INSERT INTO skus VALUES (1, 4, '2020-01-01', '2090-01-01');"
        )

    def answer(self, asked: Asked) -> Reply:
        verb, *words = asked.path[1:].split("/")
        if verb == "books":
            assert asked.headers["x-key"] == "k"
            return Reply(200, {"sales": {"orders": self._all("orders"), "skus": self._all("skus")}})
        return self._cancel(*words) if verb == "cancel" else self._buy(*words)

    def _buy(self, sku: str, user: str, quantity: str) -> Reply:
        run, count = self.database.execute, int(quantity)
        held = run("SELECT id FROM orders WHERE user_id = ? AND state = 'new'", (user,)).fetchall()
        if len(held) >= self.limit and "twice" not in self.faults:
            return Reply(403)
        taken = run(
            "UPDATE skus SET stock = stock - ? WHERE sku = ? AND stock >= ?", (count, sku, count)
        )
        if not taken.rowcount and "oversell" not in self.faults:
            return Reply(409)
        if "no stock" in self.faults:
            run("UPDATE skus SET stock = stock + 1")
        self.sold += 1
        number = f"ord-{self.sold:03}"
        if "lost" not in self.faults or number != "ord-002":
            run(
                "INSERT INTO orders (id, user_id, sku, quantity) VALUES (?, ?, ?, ?)",
                (number, user, sku, count),
            )
        if "phantom" in self.faults:
            values = (f"x{number}", f"nobody-{number}")
            run("INSERT INTO orders VALUES (?, ?, 1, 0, 'new', '2030-01-01')", values)
        if "early" in self.faults:
            run("UPDATE orders SET sold_at = '2019-01-01 00:00:00.5'")
        return Reply(201, {"id": number})

    def _cancel(self, user: str) -> Reply:
        run = self.database.execute
        row = run("SELECT sku, quantity FROM orders WHERE user_id = ? AND state = 'new'", (user,))
        sku, quantity = row.fetchone()
        run("UPDATE orders SET state = 'cancelled' WHERE user_id = ?", (user,))
        if "not returned" not in self.faults:
            run("UPDATE skus SET stock = stock + ? WHERE sku = ?", (quantity, sku))
        return Reply(204)

    def _all(self, table: str) -> list[dict[str, Any]]:
        found = self.database.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found]
        return [{**row, "live": row.get("state") != "cancelled"} for row in rows]


Judge = Callable[..., Judgement]
_LATE_S = 2.0
"""How long a row is waited for: this shop writes each before its answer, or never."""


@pytest.fixture
def judged(tmp_path: Path) -> Judge:
    def run(
        *faults: str,
        route: bool = False,
        ids: bool = True,
        books: str = "",
        required: tuple[str, ...] = (),
        **load: Any,
    ) -> Judgement:
        asked = {"users": 8, "quantity": 1, "limit": 1, "clicks": 1, "steps": ["buy"], **load}
        shop = Shop(tmp_path / "shop.db", frozenset(faults), ids, asked["limit"])
        text = books or (BY_ROUTE if route else BY_SQL.format(path=tmp_path / "shop.db"))
        scenario = parse_scenario(
            SCENARIO.format(
                books=text if ids else text.replace("SELECT id, user_id", "SELECT user_id"),
                order="/id" if ids else "",
                **{**asked, "steps": json.dumps(asked["steps"])},
            ),
            "own.toml",
        )
        assert scenario.books is not None
        with closing(shop.database), ShopServer(shop.answer).open() as server:
            stores = shop_books(scenario.books, server.base_url)
            request = StormRequest(
                scenario=scenario,
                base_url=server.base_url,
                stores=stores,
                out=tmp_path / "run",
                calibrate=False,
            )
            run_storm(request)
            return judge_run(
                tmp_path / "run", stores, required=required, drain_timeout_s=_LATE_S
            ).judgement

    return run


BESIDE = {"no_oversell", "one_per_user", "no_undersell", "linearizable"}
"""What may be broken by the same fault, too."""


def failed(judgement: Judgement) -> set[str]:
    return {check.name for check in judgement.checks if check.verdict is Verdict.FAIL}


def unknown(judgement: Judgement) -> dict[str, str]:
    return {c.name: c.detail for c in judgement.checks if c.verdict is Verdict.UNKNOWN}


@pytest.mark.parametrize(
    "load",
    [
        {},
        {"route": True},
        {"ids": False},
        {"clicks": 2},
        {"clicks": 4, "limit": 2},
        {"quantity": 2},
        {"quantity": 3},  # a unit is left that nobody can be sold
        {"steps": ["buy", "cancel"]},
        {"steps": ["buy", "cancel"], "quantity": 2},
    ],
    ids=str,
)
def test_a_shop_that_does_right_is_not_accused(judged: Judge, load: dict[str, Any]) -> None:
    found = judged(**load)
    assert found.verdict is Verdict.PASS, [c.detail for c in found.checks if c.verdict != "pass"]
    lacks = {"redis_conservation", "queue_empty"}
    lacks |= {"unique_ids"} if load.get("ids") is False else set()
    lacks |= {"linearizable"} if load.keys() & {"limit", "quantity"} else set()
    assert unknown(found).keys() == lacks
    assert found.accepted == found.persisted
    assert found.rests_on[0].startswith("orders of ")


@pytest.mark.parametrize(
    ("fault", "load", "checks"),
    [
        ("oversell", {}, {"no_oversell", "mysql_conservation"}),
        ("oversell", {"quantity": 2}, {"no_oversell", "mysql_conservation"}),
        ("twice", {"users": 2, "clicks": 2}, {"one_per_user"}),
        ("twice", {"users": 1, "clicks": 4, "limit": 3}, {"one_per_user"}),
        ("twice", {"users": 2, "clicks": 2, "ids": False}, {"one_per_user"}),
        ("lost", {}, {"accepted_persisted", "mysql_conservation"}),
        ("phantom", {}, {"no_phantom"}),
        ("early", {}, {"window"}),
        ("no stock", {"quantity": 2}, {"no_oversell", "mysql_conservation"}),
        ("not returned", {"steps": ["buy", "cancel"]}, {"mysql_conservation"}),
    ],
)
def test_what_a_shop_does_wrong_is_named(
    judged: Judge, fault: str, load: dict[str, Any], checks: set[str]
) -> None:
    found = judged(fault, **load)
    assert found.verdict is Verdict.FAIL
    assert checks <= failed(found) <= checks | BESIDE
    if fault == "lost":
        (check,) = (c for c in found.checks if c.name == "accepted_persisted")
        assert "order ord-002, user " in check.detail


def test_what_the_books_do_not_have_is_unknown_and_fails_where_it_is_required(
    judged: Judge, tmp_path: Path
) -> None:
    books = (
        f'url = "sqlite:///{tmp_path / "shop.db"}"\n'
        'orders = "SELECT id, user_id AS user, sku AS voucher FROM orders"\n'
    )
    found = judged(books=books, required=("window",))
    assert (found.verdict, found.exit_code) == (Verdict.UNKNOWN, 8)
    assert found.reason is not None
    assert "window could not be judged ([books] do not say when" in found.reason
    assert unknown(found) == {
        "mysql_conservation": "[books] tell of no stock beside the orders",
        "redis_conservation": "[books] name no stock in Redis",
        "queue_empty": "[books] names no queue that could be read",
        "window": "[books] do not say when the sale opens and closes",
    }


UNFIT = [
    ("SELECT 1 AS id, 1 AS voucher", "an order without 'user' (it has id, voucher); name it in"),
    ("SELECT * FROM nowhere", "no such table: nowhere; give the account SELECT there"),
    ("SELECT buyer AS user FROM skus", "no such column: buyer"),
    ("SELECT FROM WHERE", "syntax error"),
    ("SELECT 1 AS id, 1 AS user, 2 AS ID", "two columns of orders are called 'id'; name the one"),
    ("SELECT sku AS id FROM skus", "an order without 'user' (it has id); name it in the query"),
    ("SELECT 1 AS user, 0.5 AS quantity", "quantity: found '0.5', expected a whole number"),
    ("SELECT 1 AS user, NULL AS voucher", "'voucher' is NULL; leave it out"),
    ("SELECT 1 AS user, 'paid' AS live", "live: found 'paid', expected a truth, such as state <>"),
    ("SELECT 1 AS user, 'soon' AS time", "time: found 'soon', expected such as '2026-11-30T"),
]


@pytest.mark.parametrize(("orders", "said"), UNFIT)
def test_books_that_say_something_else_are_one_line_before_anything_is_sent(
    tmp_path: Path, orders: str, said: str
) -> None:
    sqlite3.connect(tmp_path / "shop.db").execute("CREATE TABLE skus (sku)").connection.close()
    books = f'url = "sqlite:///{tmp_path / "shop.db"}"\norders = "{orders}"\n'
    told = refused(tmp_path, books)
    assert said in told, told
    assert told.startswith(f"[books] of sqlite:///{tmp_path}/shop.db: ")
    assert "\n" not in told


def test_stock_that_tells_of_others_alone_is_one_line_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    books = (
        f'url = "sqlite:///{tmp_path / "shop.db"}"\norders = "SELECT 1 AS user WHERE 0"\n'
        "stock = \"SELECT 'a-1' AS voucher, 9 AS stock\"\n"
    )
    sqlite3.connect(tmp_path / "shop.db").close()
    told = refused(tmp_path, books)
    assert "books.stock: tells of a-1, and not of voucher 1; sell what there is" in told


def test_stock_that_says_nothing_is_one_line_before_anything_is_sent(tmp_path: Path) -> None:
    books = (
        f'url = "sqlite:///{tmp_path / "shop.db"}"\norders = "SELECT 1 AS user WHERE 0"\n'
        'stock = "SELECT 1 AS voucher, 9 AS left"\n'
    )
    sqlite3.connect(tmp_path / "shop.db").close()
    assert "a stock without 'stock' (it has voucher, left)" in refused(tmp_path, books)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([], "'/sales/orders' is no list of objects in what /books answers (it has no object)"),
        ({"data": 1}, "is no list of objects in what /books answers (it has data)"),
        ({"sales": {"orders": ["o-1"]}}, "'/sales/orders' holds 'o-1', which is no object"),
        (
            {"sales": {"orders": [{"who": 1}]}},
            "an order without 'user' (it has who); say what the route calls it: names = { user =",
        ),
    ],
)
def test_a_route_that_says_something_else_is_one_line(tmp_path: Path, told: Any, said: str) -> None:
    assert said in refused(tmp_path, BY_ROUTE, told)


def refused(tmp_path: Path, books: str, route: Any = None) -> str:
    """What is said where no storm comes of it, of which nothing is left."""
    text = SCENARIO.format(
        books=books, order="/id", quantity=1, limit=1, users=4, clicks=1, steps='["buy"]'
    )
    scenario = parse_scenario(text, "own.toml")
    assert scenario.books is not None
    with ShopServer(lambda asked: Reply(200, route)).open() as server:
        stores = shop_books(scenario.books, server.base_url)
        request = StormRequest(scenario, server.base_url, stores=stores, out=tmp_path / "run")
        with pytest.raises(UsageError) as error:
            run_storm(request)
        assert not [asked for asked in server.asked if asked.path != "/books"]
    assert not (tmp_path / "run").exists()
    return str(error.value)


def test_answers_that_name_orders_need_their_ids_in_the_books(
    judged: Judge, tmp_path: Path
) -> None:
    books = (
        f'url = "sqlite:///{tmp_path / "shop.db"}"\n'
        'orders = "SELECT user_id AS user, sku AS voucher FROM orders"\n'
    )
    with pytest.raises(NothingJudgedError, match=r"answers name orders, and those of .* no 'id'"):
        judged(books=books)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT n AS user FROM o; ",
        "SELECT n AS user FROM o -- all of them",
        "WITH every AS (SELECT n FROM o) SELECT n AS user FROM every",
        "SELECT n AS user FROM o UNION ALL SELECT n FROM o WHERE 0 ORDER BY 1",
        "SELECT n AS user, n AS x, n + 1 AS x FROM o",
    ],
)
def test_rows_are_counted_whatever_the_query_is_like(tmp_path: Path, query: str) -> None:
    with closing(sqlite3.connect(tmp_path / "o.db", isolation_level=None)) as database:
        database.executescript("CREATE TABLE o (n); INSERT INTO o VALUES (1), (2), (3);")
    shop = ShopBooks(Books(orders=query), f"sqlite:///{tmp_path / 'o.db'}")
    assert count_orders(shop, [1]) == len(read_tables(shop, [1]).orders) == 3


def told_at(base_url: str, tls: Tls | None = None) -> int:
    books = Books(route="/books", orders="/orders", names={"voucher": "sku"})
    return len(read_tables(shop_books(books, base_url, tls=tls), [1]).orders)


def orders_of(asked: Asked) -> Reply:
    return Reply(200, {"orders": [{"user": 1}, {"user": 2, "sku": 1}]})


def test_a_route_is_read_through_tls_by_who_may_be_believed(tmp_path: Path) -> None:
    certified = certify(tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certified.certificate, certified.key)
    with ShopServer(orders_of, tls=served).open() as server:
        assert told_at(server.base_url, Tls(ca=str(certified.ca))) == 2
        assert told_at(server.base_url, Tls(insecure=True)) == 2
        with pytest.raises(UnreachableError, match=r"CERTIFICATE_VERIFY_FAILED.*give .* with --ca"):
            told_at(server.base_url)


def test_a_route_is_read_over_a_unix_socket() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="flashsale-") as folder,
        ShopServer(orders_of, at=Path(folder) / "s").open() as server,
    ):
        assert told_at(server.base_url) == 2
