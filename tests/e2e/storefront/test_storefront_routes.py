"""Every route of the design through nginx, on a whole stack."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from rig.until import until

if TYPE_CHECKING:
    from tests.e2e.storefront.conftest import Front

OPERATOR = "the operator of the tests"
SOURCES = {"hit", "stale", "load", "wait", "null", "bloom"}
SHOP = {"name": "Late Opening", "typeId": 10, "x": 120.15, "y": 30.3, "avgPrice": 90}
SALE = {
    "title": "Opening sale",
    "payValue": 500,
    "actualValue": 1000,
    "stock": 2,
    "beginTime": "2020-01-01T00:00:00Z",
    "endTime": "2090-01-01T00:00:00Z",
}
HOT, COLD, NOWHERE = 1, 14, 1_000_000_007


def source(reply: httpx.Response) -> str:
    assert reply.headers["x-cache"] in SOURCES
    return reply.headers["x-cache"]


def refused(reply: httpx.Response, status: int) -> str:
    """The one line of a refusal."""
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert set(body) == {"success", "errorMsg"}
    assert body["success"] is False
    assert "\n" not in body["errorMsg"]
    return str(body["errorMsg"])


def test_an_old_client_without_a_host_is_served(front: Front) -> None:
    """HTTP/1.0 asks for none, and nginx passes its request on as HTTP/1.1, which does."""
    with socket.create_connection((front.http.base_url.host, front.http.base_url.port), 10) as wire:
        wire.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert wire.recv(12) == b"HTTP/1.1 200"


def test_shops_are_read_by_their_strategies(front: Front) -> None:
    hot = front.ask("GET", f"/shop/{HOT}")
    assert (hot.status_code, source(hot)) == (200, "hit")
    shop = hot.json()["data"]
    for field in ("id", "name", "typeId", "images", "area", "address", "x", "y", "avgPrice"):
        assert field in shop
    for field in ("sold", "comments", "score", "openHours", "createTime", "updateTime"):
        assert field in shop
    assert (shop["id"], shop["openHours"]) == (HOT, "10:00-22:00")
    assert source(front.ask("GET", f"/shop/{COLD}")) in ("load", "hit")
    assert source(front.ask("GET", f"/shop/{COLD}")) == "hit"
    denied = [front.ask("GET", f"/shop/{NOWHERE + n}") for n in range(20)]
    assert {refused(reply, 404) for reply in denied} == {"Shop does not exist"}
    assert [source(reply) for reply in denied].count("bloom") >= 18


def test_lists_of_shops(front: Front) -> None:
    types = front.ask("GET", "/shop-type/list")
    assert source(types) in ("hit", "stale")
    assert [one["id"] for one in types.json()["data"]] == list(range(1, 11))
    assert set(types.json()["data"][0]) == {"id", "name", "icon", "sort"}

    by_id = front.ask("GET", "/shop/of/type?typeId=2")
    source(by_id)
    assert [one["id"] for one in by_id.json()["data"]] == [2, 12]
    assert front.data("GET", "/shop/of/type?typeId=2&current=2") == []

    near = front.ask("GET", "/shop/of/type?typeId=2&current=1&x=120.15&y=30.3")
    source(near)
    shops = near.json()["data"]
    assert {one["id"] for one in shops} == {2, 12}
    assert shops[0]["distance"] < shops[1]["distance"]

    name = front.data("GET", "/shop/5")["name"]
    named = front.ask("GET", "/shop/of/name", params={"name": name[2:], "current": 1})
    source(named)
    assert [one["id"] for one in named.json()["data"]] == [5]
    assert len(front.data("GET", "/shop/of/name")) == 10


def test_operators_open_a_shop_and_everybody_sees_it_at_once(front: Front) -> None:
    for token in (None, 1, "no operator's"):
        for method, path in (("POST", "/shop"), ("PUT", "/shop"), ("POST", "/voucher/seckill")):
            reply = front.ask(method, path, token, json=SHOP)
            assert (reply.status_code, reply.content) == (401, b"")
    shop_id = front.data("POST", "/shop", OPERATOR, json=SHOP)
    for _ in range(6):  # whichever replica answers
        assert front.data("GET", f"/shop/{shop_id}")["name"] == "Late Opening"
        near = front.data("GET", "/shop/of/type?typeId=10&x=120.15&y=30.3")
        assert (near[0]["id"], near[0]["distance"]) == (shop_id, pytest.approx(0, abs=1))
    change = {"id": shop_id, "name": "Early Opening", "typeId": 9}
    assert front.data("PUT", "/shop", OPERATOR, json=change) is None
    for _ in range(6):
        shop = front.data("GET", f"/shop/{shop_id}")
        assert (shop["name"], shop["avgPrice"]) == ("Early Opening", 90)
        near = front.data("GET", "/shop/of/type?typeId=10&x=120.15&y=30.3")
        assert shop_id not in [one["id"] for one in near]
    missing = front.ask("PUT", "/shop", OPERATOR, json={"id": NOWHERE, "name": "x"})
    assert refused(missing, 404) == "Shop does not exist"
    stranger = front.ask("POST", "/shop", OPERATOR, json=SHOP | {"typeId": 99})
    assert refused(stranger, 200) == "Shop type does not exist"


def test_a_sale_from_its_opening_to_a_cancellation(front: Front) -> None:
    vouchers = front.ask("GET", f"/voucher/list/{HOT}")
    source(vouchers)
    assert vouchers.json()["data"][0]["stock"] == 100
    assert source(front.ask("GET", f"/voucher/list/{NOWHERE}")) in ("bloom", "load")

    plain = {"shopId": 3, "title": "Ten off", "payValue": 100, "actualValue": 1100}
    plain_id = front.data("POST", "/voucher", OPERATOR, json=plain)
    sale_id = front.data("POST", "/voucher/seckill", OPERATOR, json=SALE | {"shopId": 3})
    listed = front.data("GET", "/voucher/list/3")
    assert [one["id"] for one in listed] == [3, plain_id, sale_id][-len(listed) :]
    assert listed[-1]["beginTime"] == "2020-01-01T00:00:00Z"
    nobody = front.ask("POST", "/voucher/seckill", OPERATOR, json=SALE | {"shopId": NOWHERE})
    assert refused(nobody, 200) == "Shop does not exist"

    claims = [front.ask("POST", f"/voucher-order/seckill/{sale_id}", user) for user in (1, 2, 3)]
    assert [claim.headers["x-outcome"] for claim in claims] == ["sold", "sold", "sold_out"]
    first, second = (claim.headers["x-order-id"] for claim in claims[:2])
    assert front.data("GET", f"/voucher-order/seckill/{sale_id}", 1)["orderId"] == first

    path = f"/voucher-order/{first}"
    assert refused(front.ask("POST", f"{path}/pay", 2), 404) == "Not found"
    assert front.ask("POST", f"{path}/pay").status_code == 401
    _changed(front, f"{path}/pay", 1)
    order = front.data("GET", path, 1)
    assert (order["state"], order["status"], order["orderId"]) == ("CONFIRMED", 2, first)
    assert "cannot be cancelled" in refused(front.ask("POST", f"{path}/cancel", 1), 200)

    _changed(front, f"/voucher-order/{second}/cancel", 2)
    assert front.data("GET", f"/voucher-order/{second}", 2)["status"] == 4
    claim = front.ask("POST", f"/voucher-order/seckill/{sale_id}", 3)
    assert claim.headers["x-outcome"] == "sold", "the unit came back"
    late = front.ask("POST", f"/voucher-order/{second}/pay", 2)
    assert "refunded" in refused(late, 200)


def _changed(front: Front, path: str, user: int) -> None:
    """Pay or cancel an order as a client does that was told to try again while it is written."""

    def settled() -> bool:
        reply = front.ask("POST", path, user)
        if reply.json()["success"]:
            return True
        assert refused(reply, 503) == "Order is still being written, try again"
        assert reply.headers["retry-after"] == "1"
        return False

    until(settled)


def test_blogs_and_likes(front: Front) -> None:
    hot = front.ask("GET", "/blog/hot?current=1")
    source(hot)
    blogs = hot.json()["data"]
    assert sorted(one["id"] for one in blogs) == [1, 2, 3, 4]
    assert [one["liked"] for one in blogs] == sorted((one["liked"] for one in blogs), reverse=True)
    assert {"shopId", "userId", "title", "content", "images", "name", "icon"} <= set(blogs[0])
    assert front.data("GET", "/blog/hot?current=2") == []

    liked = front.data("GET", "/blog/2")["liked"]
    for likes in (True, False):
        front.data("PUT", "/blog/like/2", 5)
        for _ in range(4):
            mine, others = front.data("GET", "/blog/2", 5), front.data("GET", "/blog/2", 6)
            assert (mine["isLike"], others["isLike"]) == (likes, False)
            assert mine["liked"] == others["liked"] == liked + likes
    assert "isLike" not in front.data("GET", "/blog/2")
    assert source(front.ask("GET", "/blog/2")) == "hit"
    assert front.ask("PUT", "/blog/like/2").status_code == 401
    assert refused(front.ask("PUT", f"/blog/like/{NOWHERE}", 5), 404) == "Blog does not exist"
    assert refused(front.ask("GET", f"/blog/{NOWHERE}"), 404) == "Blog does not exist"


def test_a_picture_from_its_upload_to_its_end(front: Front) -> None:
    """Shown as what it is and nothing else, by the name that it was given, until it is removed."""
    png = b"\x89PNG\r\n\x1a\n" + b"<script>" * 100_000

    def sent(data: bytes) -> httpx.Response:
        return front.ask("POST", "/upload/blog", 5, files={"file": ("x.php", data, "text/html")})

    name = sent(png).json()["data"]
    shown = front.http.get(f"/imgs{name}")
    assert (shown.status_code, shown.content == png) == (200, True)
    assert shown.headers["content-type"] == "image/png"
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in shown.headers["content-security-policy"]
    assert refused(sent(png + b"x" * 300_000), 413) == "Body too large"
    large = {"phone": "x" * 70_000}
    assert refused(front.ask("POST", "/user/login", json=large), 413) == "Body too large"
    blog = {"shopId": 1, "title": "Seen", "content": "It was so.", "images": f"/imgs{name}"}
    blog_id = front.data("POST", "/blog", 5, json=blog)
    assert front.data("GET", f"/blog/{blog_id}")["images"] == f"/imgs{name}"
    foreign = front.ask("GET", f"/upload/blog/delete?name=/imgs{name}", 6)
    assert "of your own" in refused(foreign, 200)
    front.data("GET", f"/upload/blog/delete?name=/imgs{name}", 5)
    for path in (name, "/blogs/..%2f..%2fstack.json", f"/blogs/5/../../../stack.json?{name}", ""):
        assert front.http.get(f"/imgs{path}").status_code in (400, 404)


def test_signing_in_and_out(front: Front) -> None:
    phone = "19900000001"
    front.data("POST", f"/user/code?phone={phone}")
    code = front.code(phone)
    wrong = {"phone": phone, "code": f"{(int(code) + 1) % 10**6:06}"}
    assert refused(front.ask("POST", "/user/login", json=wrong), 200) == "Wrong code"
    token = front.data("POST", "/user/login", json={"phone": phone, "code": code})
    again = front.ask("POST", "/user/login", json={"phone": phone, "code": code})
    assert refused(again, 200) == "Wrong code"
    me = front.data("GET", "/user/me", token)
    assert set(me) == {"id", "nickName", "icon"}
    assert front.data("GET", "/user/sign/count", token) == 0
    for _ in range(2):
        assert front.data("POST", "/user/sign", token) is None
        assert front.data("GET", "/user/sign/count", token) == 1
    front.data("POST", "/user/logout", token)
    for method, path in (("GET", "/user/me"), ("POST", "/user/sign"), ("POST", "/user/logout")):
        reply = front.ask(method, path, token)
        assert (reply.status_code, reply.content) == (401, b"")


def test_codes_have_budgets_that_headers_do_not_change(front: Front) -> None:
    def code(phone: int, claimed: str) -> httpx.Response:
        spoofed = {"x-real-ip": claimed, "x-forwarded-for": claimed}
        return front.ask("POST", f"/user/code?phone=1980000{phone:04}", headers=spoofed)

    replies = [code(1, f"203.0.113.{n}") for n in range(6)]
    assert [reply.status_code for reply in replies] == [200] * 5 + [429]
    refused(replies[-1], 429)
    assert 0 < int(replies[-1].headers["retry-after"]) <= 600
    replies = [code(n, f"203.0.113.{n}") for n in range(2, 20)]
    assert replies[0].status_code == 200
    assert replies[-1].status_code == 429, "all of them came from here"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/shop/abc", 400),
        ("GET", "/shop/9223372036854775808", 400),
        ("GET", "/shop/of/type", 400),
        ("GET", "/shop/of/type?typeId=1&current=0", 400),
        ("GET", "/shop/of/type?typeId=1&x=120", 400),
        ("GET", "/shop/of/type?typeId=1&x=120&y=abc", 400),
        ("GET", "/shop/of/name?name=" + "x" * 129, 400),
        ("GET", "/voucher/list/0", 400),
        ("GET", "/blog/hot?current=1001", 400),
        ("GET", "/blog/x", 400),
        ("PUT", "/blog/like/x", 400),
        ("POST", "/user/code", 400),
        ("POST", "/user/code?phone=12345", 400),
        ("POST", "/user/login", 415),
        ("POST", "/voucher-order/x/pay", 400),
        ("POST", "/voucher-order/0/cancel", 400),
        ("POST", "/voucher-order/1/refund", 404),
        ("GET", "/voucher-order/1/pay", 405),
        ("DELETE", "/shop", 405),
        ("POST", "/shop/1", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/readyz", 404),
        ("GET", "/metrics", 404),
    ],
)
def test_what_is_asked_wrongly(front: Front, method: str, path: str, status: int) -> None:
    refused(front.ask(method, path, 9), status)


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "message"),
    [
        ("/shop", b"{}", "text/plain", 415, "Expected application/json"),
        ("/shop", b"{}", None, 415, "Expected application/json"),
        ("/shop", b"{", "application/json", 400, "The body is not JSON"),
        ("/shop", b"[]", "application/json", 400, "Expected a JSON object"),
        ("/shop", b"{}", "application/json", 400, "name: Field required"),
        ("/voucher", b'{"shopId":"1"}', "application/json; charset=utf-8", 400, "shopId: "),
        ("/voucher/seckill", b'{"shopId":1}', "application/json", 400, "title: Field required"),
        ("/shop", b'{"name":"' + b"x" * 70_000 + b'"}', "application/json", 413, "Body too large"),
    ],
)
def test_what_is_sent_wrongly(
    front: Front, path: str, body: bytes, kind: str | None, status: int, message: str
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    reply = front.ask("POST", path, OPERATOR, content=body, headers=headers)
    assert refused(reply, status).startswith(message)


def test_a_replica_tells_of_its_cache_on_its_own_port(front: Front) -> None:
    front.ask("GET", f"/shop/{HOT}")
    replicas = [child.url for child in front.state.children if child.kind == "replica"]
    assert len(replicas) == 2
    for url in replicas:
        assert httpx.get(f"{url}/readyz").json() == {"success": True}

    def metrics() -> str:
        return "".join(httpx.get(f"{url}/metrics").text for url in replicas)

    assert 'flashsale_cache_reads_total{kind="shop"' in metrics()
    assert (
        'flashsale_http_requests_total{method="GET",route="/shop/{id}",status="200"}' in metrics()
    )
    until(lambda: 'flashsale_bloom_present{filter="shop"} 1.0' in metrics(), 15)  # now and then
    assert front.ask("GET", "/healthz").json() == {"success": True}


def test_users_at_the_same_time_are_told_apart(front: Front) -> None:
    """Each request runs with its own user, however many share a replica."""
    users = range(20, 60)

    async def together() -> list[Any]:
        async with httpx.AsyncClient(base_url=front.state.base_url, timeout=20) as http:

            async def one(user: int) -> int:
                headers = {"authorization": front.tokens[user]}
                if user % 2:
                    await http.post("/user/sign", headers=headers)
                counts = [http.get("/user/sign/count", headers=headers) for _ in range(3)]
                answers = await asyncio.gather(*counts)
                [count] = {answer.json()["data"] for answer in answers}
                return int(count)

            return await asyncio.gather(*map(one, users))

    assert asyncio.run(together()) == [user % 2 for user in users]
