"""[target]: what of somebody's shop is refused before anything is sent, and what is sent to it."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from flashsale.errors import UsageError
from flashsale.model import Doing, Outcome, id_of, text_id
from flashsale.scenario.answer import Answer
from flashsale.scenario.load import Step
from flashsale.scenario.rules import QUEUED
from flashsale.scenario.scenario import (
    Scenario,
    load_scenario,
    parse_scenario,
    scenario_document,
    scenario_of,
)

HEAD = """\
# Is it sold?
schema = 1
name = "own"
[sale]
units = 3
[load]
model = "closed"
users = 6
connections = 3
"""
BUY = """\
[target.buy]
path = "/orders/{voucher}"
order = "/id"
outcomes = [{ status = 201, outcome = "sold" }, { outcome = "sold_out" }]
"""


def scenario(target: str, steps: str = '["buy"]') -> Scenario:
    head = HEAD.replace("[sale]\nunits = 3\n", "") if "[sale]" in target else HEAD
    return parse_scenario(f"{head}steps = {steps}\n{target}", "s.toml")


def refused(target: str, steps: str = '["buy"]') -> str:
    with pytest.raises(UsageError) as error:
        scenario(target, steps)
    return str(error.value)


def rules(text: str) -> str:
    return BUY.replace('{ outcome = "sold_out" }', text)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (BUY.replace("{voucher}", "{vaucher}"), "did you mean 'voucher'?"),
        (
            BUY + 'json = { a = "{user:url}" }\n',
            "found {user:url}, expected {user} here; a form is",
        ),
        (BUY + 'text = "{user:number}"\n', "'{x:number}' as all of a JSON text"),
        (BUY + 'text = "{cart}"\n', "found {cart}, expected one of {voucher}"),
        (BUY.replace("{voucher}", "{voucher"), "a brace is written twice"),
        (rules('{ status = 700, outcome = "sold_out" }'), "found status 700"),
        (rules('{ status = 204, body = "x", outcome = "sold_out" }'), "an answer 204 has no body"),
        (rules('{ body = "(", outcome = "sold_out" }'), "is no regular expression"),
        (rules('{ outcome = "soldout" }'), "did you mean 'sold_out'?"),
        (rules('{ outcome = "queued" }'), "needs the table [target.buy.poll]"),
        (
            rules('{ json = { "/a" = 1, "/a/b" = 2 }, outcome = "sold_out" }'),
            "/a is to be 1 and to hold /a/b",
        ),
        (
            rules('{ json = { "/a" = "x" }, matches = { "/a" = "y" }, outcome = "ended" }'),
            "/a is to be 'x' and to match 'y'",
        ),
        (
            rules('{ outcome = "ended" }, { status = 409, outcome = "sold_out" }'),
            "rule 3 can never match: rule 2 (ended) fits before it whatever the answer is",
        ),
        (
            rules('{ status = "4xx", outcome = "ended" }, { status = 409, outcome = "sold_out" }'),
            "rule 3 can never match: rule 2 (ended) fits before it; put it above that one",
        ),
        (BUY.replace('"sold" }', '"ended" }'), "no rule says 'sold'"),
        (BUY.replace('order = "/id"', 'order = "id"'), "expected a JSON pointer"),
        (BUY + 'json = { a = 1 }\ntext = "b"\n', "json and text: a request has one body"),
        (BUY + 'headers = { host = "x" }\n', "a header's name that is yours to give"),
        (
            BUY + 'take = { user = "/id" }\n',
            "expected a name in small letters that is none of voucher, user",
        ),
        (BUY + "[target.buy.poll]\n", "target.buy.poll.path: missing"),
        (BUY.replace('"/orders', '"orders'), "expected a path such as"),
        ('[target]\npreset = "hm-dianpin"\n', "did you mean 'hm-dianping'?"),
        (BUY + "[target.buy.outcome]\n", "did you mean 'outcomes'?"),
        (rules('{ stats = 409, outcome = "sold_out" }'), "did you mean 'status'?"),
        (BUY + 'text = "mutation { buy }"\n', "a brace that is sent is written twice, {{ and }}"),
        (BUY.replace('order = "/id"', 'order = "body:"'), "expected a pattern, such as"),
        (BUY.replace('order = "/id"', 'order = "body:("'), "is no regular expression"),
        (BUY.replace('order = "/id"', 'order = "header:a b:x"'), "such as 'header:location'"),
        (BUY.replace('order = "/id"', 'order = "{cart}"'), "target.buy.order: found {cart}"),
        (
            BUY + 'json = { a = "{voucher:number}" }\n[target]\nvouchers = ["a"]\n',
            "write {voucher}",
        ),
        (BUY.replace('order = "/id"', 'order = "$.data[0].id"'), "did you mean '/data/0/id'?"),
        (rules('{ json = { "a.b" = 1 }, outcome = "ended" }'), "did you mean '/a/b'?"),
        (BUY + "json = '{\"a\": 1}'\n", "json: found text, expected a table"),
        (
            BUY + "form = { a = [1] }\n",
            "target.buy.form.a: found [1], expected text, a number, true",
        ),
        (BUY + '[books]\nurl = "mongodb://h/d"\norders = "SELECT 1"\n', "tells by books.route"),
        ('[target]\nvouchers = ["a"]\n', "target.vouchers: this is for a shop with [target.buy]"),
        (BUY + '[target]\nvouchers = ["a", "a"]\n', "'a' stands there twice"),
        (BUY + "[target]\nvouchers = ['a\"']\n", "expected an id, without quotes"),
        (
            BUY.replace("[target.buy]", '[target]\nvouchers = ["a"]\n[target.buy]')
            + "[sale]\nunits = 2\nvouchers = 3\n",
            "names vouchers 1 to 1, and the sale has 1 to 3",
        ),
        (
            BUY + "[sale]\nunits = 2\nvouchers = 2\n"
            '[books]\norders = "SELECT 1"\n[books.redis]\nstock = "left"\n',
            "books.redis.stock: found 'left', expected {voucher} in it",
        ),
        (
            BUY + '[sale]\nunits = 2\nlimit = 2\n[books.redis]\nholders = "had"\n',
            "keys of Redis do not say how many",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_sent(target: str, said: str) -> None:
    assert said in refused(target)


@pytest.mark.parametrize("status", [404, 429, 401, 500])
def test_a_question_that_is_refused_says_nothing_of_the_claim(status: int) -> None:
    """A claim that was queued may have sold, whatever the one who is asked after it says."""
    text = rules('{ status = 202, outcome = "queued" }') + (
        '[target.buy.poll]\npath = "/q/{order}"\noutcomes = [{ status = 200, outcome = "sold" }]\n'
    )
    buy = scenario(text).target.buy
    assert buy is not None
    assert buy.polled().read(status, {}, b"").outcome is Outcome.INDETERMINATE


def test_a_poll_that_no_rule_leads_to_is_refused() -> None:
    poll = '[target.buy.poll]\npath = "/q/{order}"\noutcomes = [{ outcome = "sold" }]\n'
    assert "no rule of target.buy.outcomes says 'queued'" in refused(BUY + poll)


@pytest.mark.parametrize(
    ("steps", "target", "said"),
    [
        ('["cart", "buy"]', BUY, "target.cart: missing"),
        ('["buy", "cart"]', "", "target.buy: missing"),
        ('["pay", "buy"]', BUY + '[target.pay]\npath = "/p/{order}"\n', "follows 'buy'"),
        (
            '["buy", "login"]',
            BUY.replace("{voucher}", "{key}")
            + '[target.login]\npath = "/in"\ntake = { key = "/k" }\n',
            "target.buy: no step before it takes {key}",
        ),
    ],
)
def test_steps_come_in_an_order_that_can_be(steps: str, target: str, said: str) -> None:
    if "target.buy: missing" in said:
        target = '[target.cart]\npath = "/c"\n'
    assert said in refused(target, steps)


def test_a_request_is_filled_and_escaped_for_its_place() -> None:
    shop = scenario(
        BUY.replace("{voucher}", "{user.email}/{{x}}")
        + 'query = { q = "{user}&" }\nheaders = { X-Key = "{run}-{attempt}" }\n'
        'json = { n = "{quantity:number}", s = "{user.email}", list = [1, true, "a{{"] }\n'
    ).target
    assert shop.buy is not None
    prepared = shop.buy.prepared("shop:80", "/api", {"authorization": "Bearer {token}"})
    values = {"user.email": 'a"/b', "user": "7", "run": "r", "attempt": "3", "token": "t\r\nx: y"}
    head, _, body = prepared.filled({**values, "quantity": "2"}).partition(b"\r\n\r\n")
    assert head.decode().split("\r\n") == [
        "POST /api/orders/a%22%2Fb/{x}?q=7%26 HTTP/1.1",
        "host: shop:80",
        "content-type: application/json",
        "authorization: Bearer t",  # what would end a header is cut off
        "x-key: r-3",
        f"content-length: {len(body)}",
    ]
    assert body == b'{"n":2,"s":"a\\"/b","list":[1,true,"a{"]}'


@pytest.mark.parametrize(
    ("path", "told", "sent"),
    [
        ("{link:url}", "/do/buy?sku=1&amp;sig=a%2Bb%3D", "/do/buy?sku=1&sig=a%2Bb%3D"),
        ("{link:url}", "https://shop.example:8443/buy/a b?x=[1]#top", "/buy/a%20b?x=[1]"),
        ("{link:url}", "//cdn.example/buy", "/buy"),
        ("{link:url}", "https://shop.example", "/"),
        ("{link:url}", "?step=2", "/?step=2"),
        ("{link:url}", "", "/"),
        ("{link:url}", "/a\r\nhost: b", "/a%0D%0Ahost:%20b"),
        ("{link:url}&n=1", "/buy?sku=1", "/buy?sku=1&n=1"),
        ("/buy?sig={link:url}", "a%2Bb", "/api/buy?sig=a%2Bb"),
        ("/buy/{link}", "a%2Bb/c", "/api/buy/a%252Bb%2Fc"),
    ],
)
def test_what_stood_in_a_url_stands_there_again(path: str, told: str, sent: str) -> None:
    shop = scenario(
        '[target.cart]\npath = "/item"\ntake = { link = "/href" }\n'
        + BUY.replace("/orders/{voucher}", path),
        '["cart", "buy"]',
    ).target
    assert shop.buy is not None
    filled = shop.buy.prepared("h", "/api", {}).filled({"link": told})
    assert filled.decode().splitlines()[:2] == [f"POST {sent} HTTP/1.1", "host: h"]


def test_a_value_of_a_query_or_a_form_may_have_been_one_before() -> None:
    shop = scenario(
        '[target.cart]\npath = "/item"\ntake = { sig = "/sig" }\n'
        + BUY
        + 'query = { sig = "{sig:url}", x = "{sig}" }\nform = { sig = "{sig:url}" }\n',
        '["cart", "buy"]',
    ).target
    assert shop.buy is not None
    filled = shop.buy.prepared("h", "", {}).filled({"sig": "a%2Bb"}).decode()
    assert "?sig=a%2Bb&x=a%252Bb HTTP/1.1" in filled
    assert filled.endswith("\r\n\r\nsig=a%2Bb")


def test_a_form_and_no_body_at_all() -> None:
    form = scenario(BUY + 'form = { a = "{user.n}" }\n').target.buy
    none = scenario(BUY).target.buy
    assert form is not None
    assert none is not None
    assert form.prepared("h", "", {}).filled({"user.n": "1 &2"}).endswith(b"\r\n\r\na=1+%262")
    assert none.prepared("h", "", {}).filled({}).endswith(b"content-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("status", "headers", "body", "answer"),
    [
        (201, {}, b'{"id":"ab-1"}', Answer(Outcome.SOLD, 201, "ab-1")),
        (201, {}, b'{"id":17}', Answer(Outcome.SOLD, 201, "17")),
        (201, {}, b'\xef\xbb\xbf{"id":17}', Answer(Outcome.SOLD, 201, "17")),
        (201, {}, b'{"no":1}', Answer(Outcome.UNKNOWN, 201, None, "order_id", '{"no":1}')),
        (201, {}, b'{"id":"a\\"b"}', Answer(Outcome.UNKNOWN, 201, None, "order_id", 'a"b')),
        (409, {}, b'{"e":{"code":"GONE"}}', Answer(Outcome.SOLD_OUT, 409)),
        (409, {}, b'{"held":"x-9"}', Answer(Outcome.DUPLICATE, 409, "x-9")),
        (202, {b"x-state": b"wait 3"}, b"", Answer(Outcome.UNKNOWN, 202, None, QUEUED)),
        (400, {}, b"too LATE now", Answer(Outcome.ENDED, 400)),
        (400, {}, b"what?", Answer(Outcome.REFUSED, 400, None, "http_400", "what?")),
        (429, {}, b"", Answer(Outcome.RATE_LIMITED, 429)),
        (200, {}, b"hm", Answer(Outcome.UNKNOWN, 200, None, "rule", "hm")),
        (500, {}, b"", Answer(Outcome.INDETERMINATE, 500, None, "http_500")),
        (409, {}, b"[" * 100_000, Answer(Outcome.DUPLICATE, 409)),
    ],
)
def test_the_first_rule_that_fits_says_what_an_answer_means(
    status: int, headers: dict[bytes, bytes], body: bytes, answer: Answer
) -> None:
    text = """\
[target.buy]
path = "/"
order = "/id"
outcomes = [
    { status = [200, 201], json = { "/never" = true }, outcome = "paused" },
    { status = 201, outcome = "sold" },
    { status = 409, matches = { "/e/code" = "^GONE" }, outcome = "sold_out" },
    { status = 409, outcome = "duplicate", order = "/held" },
    { header = { X-State = "wait \\\\d+" }, outcome = "queued" },
    { body = "(?i)too late", outcome = "ended" },
]
[target.buy.poll]
path = "/q/{order}"
outcomes = [{ outcome = "sold" }]
"""
    buy = scenario(text).target.buy
    assert buy is not None
    meanings = pickle.loads(pickle.dumps(buy.meanings("buy")))  # noqa: S301 - as to a worker
    assert meanings.read(status, headers, body) == answer


@pytest.mark.parametrize(
    ("order", "headers", "body", "found"),
    [
        ("header:location", {b"location": b"/orders/17"}, b"", "/orders/17"),
        ("header:Location:/orders/([0-9]+)", {b"location": b"http://h/orders/17?x=1"}, b"", "17"),
        ("header:location:[0-9]+$", {b"location": b"/orders/17"}, b"", "17"),
        ("header:location:/orders/(.+)", {b"location": b"/sold-out"}, b"", None),
        ("cookie:last:o-(.+)", {b"set-cookie": b"a=b\nlast=o-9; Path=/"}, b"", "9"),
        ("cookie:last", {b"set-cookie": b"last=; Max-Age=0\nlast=o-9; Path=/"}, b"", "o-9"),
        ("body:<orderId>(.*?)</orderId>", {}, b"<r><orderId>A-1</orderId></r>", "A-1"),
        ("body:^[0-9]+", {}, b"9007199254740993 sold", "9007199254740993"),
        ("body:(?<=no )x", {}, b"no y", None),
        ("/0/orders/1/id", {}, b'[{"orders":[{},{"id":9007199254740993}]}]', "9007199254740993"),
        ("/data/a~1b", {}, b'{"data":{"a/b":"x"}}', "x"),
        ("/id:x", {}, b'{"id:x":"y"}', "y"),
    ],
)
def test_an_order_id_wherever_it_is(
    order: str, headers: dict[bytes, bytes], body: bytes, found: str | None
) -> None:
    buy = scenario(BUY.replace('order = "/id"', f"order = {order!r}")).target.buy
    assert buy is not None
    meanings = pickle.loads(pickle.dumps(buy.meanings("buy")))  # noqa: S301 - as to a worker
    assert headers.keys() <= meanings.headers
    answer = meanings.read(201, headers, body)
    assert answer.order == found
    assert answer.outcome is (Outcome.UNKNOWN if found is None else Outcome.SOLD)


def test_vouchers_have_names_of_the_shops_own() -> None:
    shop = scenario(BUY + '[target]\nvouchers = ["sku a", 88]\n[books]\norders = "SELECT 1"\n')
    assert [shop.target.name_of(voucher) for voucher in (1, 2, 3)] == ["sku a", "88", "3"]
    assert shop.books is not None
    assert shop.books.vouchers == shop.target.vouchers  # unless they say otherwise
    assert scenario_of(scenario_document(shop)) == shop
    numbers = BUY + 'json = { a = "{voucher:number}" }\n[target]\nvouchers = [88, "89"]\n'
    assert scenario(numbers).target.vouchers == ("88", "89")


def test_an_id_that_the_request_gives_is_no_place() -> None:
    buy = scenario(BUY.replace('order = "/id"', 'order = "{user.no}-{uuid}"')).target.buy
    assert buy is not None
    assert buy.meanings("buy").read(201, {}, b"") == Answer(Outcome.SOLD, 201)
    assert len(buy.order_given) == 3
    login = '[target.login]\npath = "/"\norder = "{uuid}"\n' + BUY
    assert "gives an order its id" in refused(login, '["login", "buy"]')


def test_a_step_without_rules_is_done_by_its_status() -> None:
    login = scenario(
        '[target.login]\npath = "/in"\ntake = { token = "/data/t", k = "header:X-K" }\n' + BUY,
        '["login", "buy"]',
    ).target.login
    assert login is not None
    meanings = login.meanings("login")
    assert meanings.read(204, {}, b"") == Answer(Doing.DONE, 204)
    assert meanings.read(503, {}, b"").outcome is Outcome.SHED
    assert meanings.read(403, {}, b"").outcome is Outcome.REFUSED
    told: dict[str, Any] = {"status": 200, "headers": {b"x-k": b"v"}, "body": b'{"data":{"t":1}}'}
    assert meanings.taken(**told) == {"token": "1", "k": "v"}


def test_a_shop_is_written_down_and_read_back() -> None:
    text = BUY.replace('{ outcome = "sold_out" }', '{ status = "4xx", outcome = "sold_out" }')
    one = scenario(text + 'json = { a = ["{user.email}", 1.5, false] }\n')
    assert scenario_of(scenario_document(one)) == one


def test_what_is_not_described_is_not_asked_beside() -> None:
    own, family = scenario(BUY).target, scenario("").target
    assert (own.routes.health, own.routes.session, own.routes.status) == ("", "", "")
    assert (family.routes.health, family.routes.session) == ("/healthz", "/user/me")
    assert scenario('[target]\nhealth = "/up"\n' + BUY).target.routes.health == "/up"


def test_columns_are_those_that_the_steps_use() -> None:
    target = BUY + 'text = "{user.email}"\nheaders = { a = "{token}" }\n'
    assert scenario(target).target.columns([Step.BUY]) == {"email", "token"}
    login = '[target.login]\npath = "/"\ntake = { token = "/t" }\n'
    assert scenario(login + target, '["login", "buy"]').target.columns([Step.LOGIN, Step.BUY]) == {
        "email"
    }


@pytest.mark.parametrize("text", ["a-1", "x" * 128, "ü"])
def test_ids_are_text_that_has_a_number(text: str) -> None:
    assert text_id(text) == text
    assert id_of(text) == id_of(text) >= 2**62
    assert id_of("17") == 17
    assert id_of("017") >= 2**62


@pytest.mark.parametrize("text", ["", "x" * 129, 'a"b', "a\\b", "a\nb", "ü" * 65])
def test_ids_that_are_none(text: str) -> None:
    assert text_id(text) is None


FILE = """\
# A shop.
[target]
health = "/health"

[target.buy]
path = "/orders"
headers = { authorization = "Bearer {token}" }
json = { item = "{voucher}" }
order = "/id"
outcomes = [
    { status = 201, outcome = "sold" },
    # who comes late
    { status = 409, json = { "/code" = "gone" }, outcome = "sold_out" },
    { status = 409, outcome = "duplicate" },
]

[books]
url = "sqlite:////shop.db"
orders = '''
SELECT id, user_id AS user
FROM orders'''
stock = "SELECT stock FROM skus"
names = { id = "no" }
"""


@pytest.mark.parametrize(
    ("right", "wrong", "line", "said"),
    [
        ('"/orders"', '"/orders', 0, "(at line 6, column 16): 'path"),
        ('= "sold" }', "= sold }", 0, "text stands in quotes"),
        ("[target.buy]", "[target.bye]", 5, "did you mean 'buy'?"),
        ("[books]", "[book]", 17, "did you mean 'books'?"),
        ("outcomes =", "outcome =", 10, "did you mean 'outcomes'?"),
        ('"duplicate"', '"dupliate"', 14, "rule 3: found 'dupliate', did you mean 'duplicate'?"),
        ("status = 201", "status = 2010", 11, "found status 2010, expected 100 to 599"),
        ('"/code" =', '"code" =', 13, "rule 2: found 'code', did you mean '/code'?"),
        ('"/orders"', '"orders"', 6, "path: found 'orders', expected a path such as"),
        ("{voucher}", "{sku}", 8, "target.buy.json: found {sku}, expected one of {voucher}"),
        ("{voucher}", "{voucher", 8, "json: found '{' alone in"),
        ("{token}", "{tokn}", 7, "target.buy.headers: found {tokn}, did you mean 'token'?"),
        ('order = "/id"', 'order = "id"', 9, "target.buy.order: found 'id', did you mean"),
        ("status = 201, ", "", 13, "rule 2 can never match: rule 1 (sold) fits before it"),
        ('"sold" }', '"queued" }', 10, "needs the table [target.buy.poll]"),
        ("sqlite:", "mysql+pymysql:", 18, "did you mean mysql://?"),
        ("SELECT id,", "DELETE FROM o; SELECT id,", 19, "books.orders: expected a SELECT"),
        ('id = "no"', 'key = "no"', 23, "books.names: found 'key', expected some of id"),
        ('health = "/health"', 'preset = "berer"', 3, "did you mean 'bearer'?"),
        ('health = "/health"', "health = 1", 3, "target.health: found 1, expected text, in quotes"),
        ('order = "/id"', "poll = 5", 9, "expected a table, [target.buy.poll]"),
        ("[books]", "[target.buy.poll]\n[books]", 17, "target.buy.poll.path: missing"),
        ('stock = "SELECT', 'time_is = "stream"\nstock = "SELECT', 22, "needs books.redis.stream"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_by_its_line(
    tmp_path: Path, right: str, wrong: str, line: int, said: str
) -> None:
    (tmp_path / "sale.toml").write_text(HEAD)
    shop = tmp_path / "shop.toml"
    shop.write_text(FILE.replace(right, wrong, 1))
    with pytest.raises(UsageError) as error:
        load_scenario(str(tmp_path / "sale.toml"), str(shop))
    told = str(error.value)
    assert told.startswith(f"{shop} line {line}: " if line else f"{shop} is not TOML: "), told
    assert said in told


def test_what_is_wrong_beside_the_shop_is_told_by_the_line_of_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(FILE)
    sale = tmp_path / "sale.toml"
    fault = '[[fault]]\nat = "1s"\nwhat = "kill"\nwhom = "worker"\n'
    right = f"{HEAD}{fault}{fault}"
    wrong = [
        (5, right.replace("units = 3", "units = -3")),
        (17, "who =".join(right.rsplit("whom =", 1))),
    ]
    for line, text in wrong:
        sale.write_text(text)
        with pytest.raises(UsageError) as error:
            load_scenario(str(sale), str(tmp_path / "shop.toml"))
        assert str(error.value).startswith(f"{sale} line {line}: "), error.value
