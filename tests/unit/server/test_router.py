"""Paths to handlers."""

import pytest

from flashsale.server.app import Router
from flashsale.server.request import Request
from flashsale.server.response import NOT_FOUND, Response


async def one(request: Request, tail: str) -> Response:
    raise AssertionError("not called here")


async def two(request: Request, tail: str) -> Response:
    raise AssertionError("not called here")


@pytest.fixture
def router() -> Router:
    router = Router()
    router.add("GET", "/healthz", one)
    router.add("GET", "/order/{id}", one)
    router.add("POST", "/order/seckill/{voucherId}", two)
    router.add("GET", "/order/seckill/{voucherId}", one)
    return router


@pytest.mark.parametrize(
    ("method", "path", "name", "tail"),
    [
        ("GET", "/healthz", "GET /healthz", ""),
        ("GET", "/order/12", "GET /order/{id}", "12"),
        ("GET", "/order/", "GET /order/{id}", ""),
        ("GET", "/order/seckill", "GET /order/{id}", "seckill"),
        ("POST", "/order/seckill/12", "POST /order/seckill/{voucherId}", "12"),
        ("GET", "/order/seckill/12", "GET /order/seckill/{voucherId}", "12"),
    ],
)
def test_found(router: Router, method: str, path: str, name: str, tail: str) -> None:
    found, handler, rest = router.find(method, path)
    assert (found, rest) == (name, tail)
    assert handler is (two if method == "POST" else one)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/nowhere", "/healthz/", "/healthz/1", "/order", "//order/1", "/order/seckill/1/2"],
)
def test_not_found(router: Router, path: str) -> None:
    name, handler, _ = router.find("GET", path)
    assert (name, handler) == ("unknown", NOT_FOUND)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/healthz", b"GET, HEAD"),
        ("DELETE", "/order/seckill/1", b"POST, GET, HEAD"),
        ("get", "/healthz", b"GET, HEAD"),
        ("", "/healthz", b"GET, HEAD"),
    ],
)
def test_method_not_allowed(router: Router, method: str, path: str, allowed: bytes) -> None:
    name, handler, _ = router.find(method, path)
    assert name == "unknown", "metrics must not grow with what strangers send"
    assert isinstance(handler, Response)
    assert handler.status == 405
    assert (b"allow", allowed) in handler.headers


# An id before the last word, beside routes that end in one ----------------------------------------


async def handler(request: Request, segment: str) -> Response:
    raise AssertionError("not called here")


@pytest.fixture
def nested() -> Router:
    nested = Router()
    for route in (
        "GET /order/{id}",
        "POST /order/seckill/{voucherId}",
        "POST /order/{id}/pay",
        "POST /order/{id}/cancel",
        "GET /shop/{id}",
        "GET /shop/of/type",
        "PUT /blog/like/{id}",
    ):
        nested.add(*route.split(), handler)
    return nested


@pytest.mark.parametrize(
    ("method", "path", "name", "segment"),
    [
        ("POST", "/order/12/pay", "POST /order/{id}/pay", "12"),
        ("POST", "/order/12/cancel", "POST /order/{id}/cancel", "12"),
        ("POST", "/order//pay", "POST /order/{id}/pay", ""),
        ("POST", "/order/seckill/12", "POST /order/seckill/{voucherId}", "12"),
        # What is spelled out wins over what is an id.
        ("POST", "/order/seckill/pay", "POST /order/seckill/{voucherId}", "pay"),
        ("GET", "/shop/of/type", "GET /shop/of/type", ""),
        ("GET", "/shop/12", "GET /shop/{id}", "12"),
        ("PUT", "/blog/like/3", "PUT /blog/like/{id}", "3"),
    ],
)
def test_found_inside(nested: Router, method: str, path: str, name: str, segment: str) -> None:
    assert nested.find(method, path) == (name, handler, segment)


@pytest.mark.parametrize(
    "path", ["/order/12/paid", "/order/12/pay/", "/order/1/2/pay", "/12/pay", "/shop/of/type/1"]
)
def test_not_found_inside(nested: Router, path: str) -> None:
    assert nested.find("POST", path)[:2] == ("unknown", NOT_FOUND)


def test_the_wrong_method_is_told(nested: Router) -> None:
    name, answer, _ = nested.find("GET", "/order/12/pay")
    assert name == "unknown"
    assert isinstance(answer, Response)
    assert (answer.status, dict(answer.headers)[b"allow"]) == (405, b"POST")


def test_a_look_up_costs_the_same_among_many_routes(nested: Router) -> None:
    class Counted(dict):  # type: ignore[type-arg]
        looks = 0

        def get(self, *args: object) -> object:
            Counted.looks += 1
            return super().get(*args)

    for number in range(1_000):
        nested.add("GET", f"/more/{number}/{{id}}/word", handler)
    for table in ("_exact", "_by_head", "_by_head_and_word"):
        setattr(nested, table, Counted(getattr(nested, table)))
    assert nested.find("GET", "/more/999/12/word")[2] == "12"
    assert Counted.looks == 3
    assert "/order/{id}/pay" in repr(nested)
