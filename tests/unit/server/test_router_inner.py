"""Routes with an id before their last word, beside those that end in one."""

import pytest

from flashsale.server.app import Router
from flashsale.server.request import Request
from flashsale.server.response import NOT_FOUND, Response


async def handler(request: Request, segment: str) -> Response:
    raise AssertionError("not called here")


@pytest.fixture
def router() -> Router:
    router = Router()
    for route in (
        "GET /order/{id}",
        "POST /order/seckill/{voucherId}",
        "POST /order/{id}/pay",
        "POST /order/{id}/cancel",
        "GET /shop/{id}",
        "GET /shop/of/type",
        "PUT /blog/like/{id}",
    ):
        router.add(*route.split(), handler)
    return router


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
def test_found(router: Router, method: str, path: str, name: str, segment: str) -> None:
    assert router.find(method, path) == (name, handler, segment)


@pytest.mark.parametrize(
    "path", ["/order/12/paid", "/order/12/pay/", "/order/1/2/pay", "/12/pay", "/shop/of/type/1"]
)
def test_not_found(router: Router, path: str) -> None:
    assert router.find("POST", path)[:2] == ("unknown", NOT_FOUND)


def test_the_wrong_method_is_told(router: Router) -> None:
    name, answer, _ = router.find("GET", "/order/12/pay")
    assert name == "unknown"
    assert isinstance(answer, Response)
    assert (answer.status, dict(answer.headers)[b"allow"]) == (405, b"POST")


def test_a_look_up_costs_the_same_among_many_routes(router: Router) -> None:
    class Counted(dict):  # type: ignore[type-arg]
        looks = 0

        def get(self, *args: object) -> object:
            Counted.looks += 1
            return super().get(*args)

    for number in range(1_000):
        router.add("GET", f"/more/{number}/{{id}}/word", handler)
    for table in ("_exact", "_by_head", "_by_head_and_word"):
        setattr(router, table, Counted(getattr(router, table)))
    assert router.find("GET", "/more/999/12/word")[2] == "12"
    assert Counted.looks == 3
    assert "/order/{id}/pay" in repr(router)
