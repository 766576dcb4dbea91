"""What the family's pages ask for, call by call, each answered with the fields that they read."""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
from redis import Redis
from rig.asgi import Reply, ask
from rig.sale import open_sale, permit, sign_in
from rig.shops import ShopStores
from sqlalchemy import Engine

from flashsale import keys
from flashsale.server.replica import Replica
from flashsale.settings import ReplicaSettings, StoreSettings

pytestmark = pytest.mark.anyio

PHONE = "13800000001"
FORM = {"content-type": "multipart/form-data; boundary=----b"}
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 80_000
UPLOAD = (
    b'------b\r\nContent-Disposition: form-data; name="file"; filename="../x.php"\r\n'
    b"Content-Type: text/html\r\n\r\n" + PNG + b"\r\n------b--\r\n"
)
BLOG = {"shopId": 1, "title": "Worth the queue", "content": "It was.", "images": "/imgs{picture}"}


class Maybe(NamedTuple):
    """What may be absent."""

    shape: Any


USER = {"id": int, "nickName": str, "icon": str}
BLOG_SHOWN = {
    "id": int,
    "shopId": int,
    "userId": int,
    "title": str,
    "images": str,
    "content": str,
    "liked": int,
    "comments": int,
    "name": str,
    "icon": str,
    "createTime": str,
}
MINE = {**BLOG_SHOWN, "isLike": bool}
INFO = {
    "userId": int,
    "fans": int,
    "followee": int,
    "introduce": str,
    "gender": int,
    "city": str,
    "birthday": Maybe(str),
    "credits": int,
    "level": int,
}
SHOP = {
    "id": int,
    "name": str,
    "typeId": int,
    "images": str,
    "address": str,
    "x": float,
    "y": float,
    "avgPrice": int,
    "sold": int,
    "comments": int,
    "score": int,
    "area": str,
    "openHours": str,
    "distance": Maybe(float),
}
VOUCHER = {
    "id": int,
    "shopId": int,
    "title": str,
    "payValue": int,
    "actualValue": int,
    "type": int,
    "stock": int,
    "beginTime": str,
    "endTime": str,
}
SCROLL = {"list": [MINE], "minTime": int, "offset": int}


class Asked(NamedTuple):
    """One call of a page: who asks (a user's number), and the shape of `data`, None for none."""

    page: str
    call: str
    user: int | None
    data: Any
    body: Any = None


CALLS = [
    Asked("index", "GET /shop-type/list", None, [{"id": int, "name": str, "icon": str}]),
    Asked("index", "GET /blog/hot?current=1", None, [BLOG_SHOWN]),
    Asked("index", "PUT /blog/like/1", 7, None),
    Asked("index", "GET /blog/1", 7, MINE),
    Asked("login", f"POST /user/code?phone={PHONE}", None, None),
    Asked("login", "POST /user/login", None, str, {"phone": PHONE, "code": "{code}"}),
    Asked("shop-list", "GET /shop/of/type?typeId=1&current=1&x=120&y=30", None, [SHOP]),
    Asked("shop-detail", "GET /shop/1", None, SHOP),
    Asked("shop-detail", "GET /voucher/list/1", None, [VOUCHER]),
    Asked("shop-detail", "POST /voucher-order/seckill/1", 7, "order"),
    Asked("blog-edit", "GET /shop/of/name?name=shop", 8, [SHOP]),
    Asked("blog-edit", "POST /upload/blog", 8, "picture", UPLOAD),
    Asked("blog-edit", "GET /upload/blog/delete?name=/imgs{picture}", 8, None),
    Asked("blog-edit", "POST /upload/blog", 8, "picture", UPLOAD),
    Asked("other-info", "GET /follow/or/not/8", 7, bool),
    Asked("other-info", "PUT /follow/8/true", 7, None),
    Asked("other-info", "PUT /follow/8/true", 6, None),
    Asked("blog-edit", "POST /blog", 8, int, BLOG),
    Asked("blog-detail", "GET /shop/1", 7, SHOP),
    Asked("blog-detail", "GET /blog/likes/1", 7, [USER]),
    Asked("other-info", "GET /user/8", 7, USER),
    Asked("other-info", "GET /user/info/8", 7, INFO),
    Asked("other-info", "GET /blog/of/user?id=8&current=1", 7, [MINE]),
    Asked("other-info", "GET /follow/common/6", 7, [USER]),
    Asked("other-info", "PUT /follow/8/false", 6, None),
    Asked("info", "GET /user/me", 8, USER),
    Asked("info", "GET /user/info/8", 8, INFO),
    Asked("info", "GET /blog/of/me?current=1", 8, [MINE]),
    Asked("info", "GET /blog/of/follow?offset=0&lastId=9999999999999", 7, SCROLL),
    Asked("info", "POST /user/sign", 8, None),
    Asked("info", "GET /user/sign/count", 8, int),
    Asked("info", "POST /user/logout", 8, None),
]
WITHOUT_DATA = [
    # The pages take no data for nothing: an end, nobody, nothing told.
    Asked("info", "GET /blog/of/follow?offset=1&lastId=1", 7, None),
    Asked("other-info", "GET /user/99", 7, None),
    Asked("other-info", "GET /user/info/1", 6, None),
]


def check(data: Any, shape: Any, where: str) -> None:
    """That `data` has the fields of `shape`, and those of a list each; more may be there."""
    if isinstance(shape, list):
        assert data, where
        for one in data:
            check(one, shape[0], where)
    elif isinstance(shape, dict):
        for name, kind in shape.items():
            if not isinstance(kind, Maybe):
                assert name in data, f"{where}: {name}"
                check(data[name], kind, f"{where}: {name}")
    else:
        assert isinstance(data, shape), f"{where}: {data!r}"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("FLASHSALE_PICTURES_FOLDER", str(tmp_path / "pictures"))
    monkeypatch.setenv("FLASHSALE_PICTURES_FREE_BYTES_MIN", "0")
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def stored(pool: Engine, cache: Redis, ledger: Redis) -> ShopStores:
    stored = ShopStores(pool, cache, ledger)
    stored.sql("INSERT INTO tb_shop_type (id, name) VALUES (1, 'Food')")
    stored.add_shop(1)
    stored.sql("UPDATE tb_shop SET avg_price = 80, area = 'a', open_hours = '10:00-22:00'")
    for user in (1, 6, 7, 8):
        stored.sql(
            f"INSERT INTO tb_user (id, phone, nick_name) VALUES ({user}, '{user}', 'u{user}')"
        )
    stored.sql("INSERT INTO tb_user_info (user_id, introduce) VALUES (8, 'hello')")
    stored.add_blog(1, liked=3)
    stored.sql("INSERT INTO tb_voucher VALUES (1, 1, 't', '', '', 500, 1000, 1, 1, NOW(3), NOW(3))")
    stored.sql(
        "INSERT INTO tb_seckill_voucher (voucher_id, stock, initial_stock, begin_time, end_time)"
        " VALUES (1, 10, 10, '2020-01-01', '2090-01-01')"
    )
    open_sale(ledger)
    permit(ledger)
    sign_in(ledger, 6, 7, 8)
    return stored


@asynccontextmanager
async def served(stores: StoreSettings, **given: Any) -> AsyncIterator[Replica]:
    replica = Replica("r1", 1, stores, ReplicaSettings.load(**given))
    try:
        await replica._sync_clock()
        yield replica
        await replica._claims.drain()
    finally:
        await replica._close()


@pytest.fixture
def stores(stored: ShopStores, ledger_url: str, cache_url: str, mysql_url: str) -> StoreSettings:
    return StoreSettings(ledger_url=ledger_url, cache_url=cache_url, mysql_url=mysql_url)


async def answer(replica: Replica, asked: Asked, told: Mapping[str, str]) -> Reply:
    method, _, target = asked.call.partition(" ")
    for name, value in told.items():
        target = target.replace(f"{{{name}}}", value)
    path, _, query = target.partition("?")
    headers = {} if asked.user is None else {"authorization": f"token-{asked.user}"}
    body = asked.body or b""
    if isinstance(body, dict):
        values = {n: v.format(**told) if isinstance(v, str) else v for n, v in body.items()}
        body, headers = json.dumps(values).encode(), headers | {"content-type": "application/json"}
    elif body:
        headers |= FORM
    headers |= {"content-length": str(len(body))}
    return await ask(replica.app, method, path, headers, body=body, query=query)


@pytest.mark.parametrize("family", [False, True], ids=["ours", "family"])
async def test_each_call_of_the_pages_is_answered_with_the_shape_that_they_read(
    stores: StoreSettings, ledger: Redis, tmp_path: Path, family: bool
) -> None:
    told: dict[str, str] = {"picture": "", "code": ""}
    async with served(stores, family_answers=family) as replica:
        for asked in [*CALLS, *WITHOUT_DATA]:
            code = ledger.hget(keys.login_code(PHONE), "code")
            told["code"] = str(code)
            reply = await answer(replica, asked, told)
            where = f"{asked.page}: {asked.call}: {reply.body.decode()[:200]}"
            assert reply.status == 200, where
            assert reply.json["success"] is True, where
            data = reply.json.get("data")
            if asked.data is None:
                assert set(reply.json) == {"success"}, where
            elif asked.data == "picture":
                assert re.fullmatch(r"/blogs/8/[0-9a-f]{32}\.png", data), where
                assert (tmp_path / f"pictures{data}").read_bytes() == PNG
                told["picture"] = data
            elif asked.data == "order":
                assert isinstance(data, str if family else int), where
                assert str(data) == reply.headers["x-order-id"]
            else:
                check(data, asked.data, where)
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 1, "the other was removed"


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ("GET /blog/99", 404, "Blog does not exist"),
        ("GET /blog/x", 400, "Expected an id from 1 to 9223372036854775807"),
        ("GET /shop/99", 404, "Shop does not exist"),
        ("PUT /follow/99/true", 404, "User does not exist"),
        ("PUT /follow/7/true", 200, "Nobody follows themselves"),
        ("GET /upload/blog/delete?name=../../x.png", 200, "Expected the name of a picture of"),
        ("GET /blog/of/follow?lastId=-1", 400, "lastId: expected a time (Unix ms) from 1 to "),
        ("POST /voucher-order/seckill/99", 404, "Voucher does not exist"),
        ("POST /upload/blog", 415, "Expected multipart/form-data with a file"),
    ],
)
async def test_refusals_are_200_where_the_family_has_them_so(
    stores: StoreSettings, call: str, status: int, message: str
) -> None:
    for family in (False, True):
        async with served(stores, family_answers=family) as replica:
            reply = await answer(replica, Asked("", call, 7, None), {})
        expected = 200 if family and status in (400, 404) else status
        assert (reply.status, reply.json["success"]) == (expected, False)
        assert reply.json["errorMsg"].startswith(message)


async def test_what_is_for_users_is_for_nobody_else(stores: StoreSettings) -> None:
    async with served(stores) as replica:
        for asked in CALLS:
            if asked.user is None or not re.search(r"/(follow|upload|user/|of/)", asked.call):
                continue
            if asked.call.startswith("GET /shop/"):
                continue
            reply = await answer(replica, asked._replace(user=None), {"picture": "", "code": ""})
            assert (reply.status, reply.body) == (401, b""), asked.call
