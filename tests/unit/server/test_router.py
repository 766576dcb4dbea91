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
        ("POST", "/healthz", b"GET"),
        ("DELETE", "/order/seckill/1", b"POST, GET"),
        ("get", "/healthz", b"GET"),
        ("", "/healthz", b"GET"),
    ],
)
def test_method_not_allowed(router: Router, method: str, path: str, allowed: bytes) -> None:
    name, handler, _ = router.find(method, path)
    assert name == "unknown", "metrics must not grow with what strangers send"
    assert isinstance(handler, Response)
    assert handler.status == 405
    assert (b"allow", allowed) in handler.headers
