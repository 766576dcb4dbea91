"""The description of the routes: whole, valid, and made of what routes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from rig.asgi import ask

from flashsale.catalog.json import NewSale, NewShop, shape_of
from flashsale.server.app import Router
from flashsale.server.openapi import Caller, Guarded, described
from flashsale.server.replica import Replica
from flashsale.server.request import CURRENT, PLACE, Request
from flashsale.server.response import Response, rejected
from flashsale.settings import ReplicaSettings, StoreSettings
from flashsale.storage.tables import voucher

pytestmark = pytest.mark.anyio

NOWHERE = "redis://127.0.0.1:1"
OF_THE_PROCESS = {"/healthz", "/readyz", "/metrics", "/openapi.json"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def replica(anyio_backend: str) -> Any:
    """One whose stores are out of reach: none is asked."""
    mysql = "mysql+pymysql://u:p@127.0.0.1:1/flashsale"
    stores = StoreSettings(ledger_url=NOWHERE, cache_url=NOWHERE, mysql_url=mysql)
    replica = Replica("r1", 1, stores, ReplicaSettings())
    yield replica
    await replica._close()


@pytest.fixture(scope="module")
async def document(replica: Replica) -> dict[str, Any]:
    """As it is sent."""
    reply = await ask(replica.app, "GET", "/openapi.json", {})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    told: dict[str, Any] = json.loads(reply.body)
    return told


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


async def test_it_is_valid(document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()


async def test_a_broken_one_is_not_valid(document: dict[str, Any]) -> None:
    """So the test above can fail."""
    broken = {**document, "paths": {"/x": {"get": {"responses": {"200": {}}}}}}
    with pytest.raises(Exception, match="description"):
        schemathesis.openapi.from_dict(broken).validate()


async def test_every_route_is_described_and_no_other(
    replica: Replica, document: dict[str, Any]
) -> None:
    router = replica.app._router
    assert [route for route in router.routes if not (route.is_described and route.summary)] == []
    routed = {(route.method, route.pattern) for route in router.routes}
    routed |= {("HEAD", pattern) for method, pattern in routed if method == "GET"}
    assert {(method, path) for method, path, _ in operations(document)} == routed
    for method, path, operation in operations(document):
        name, handler, _ = router.find(method, path.replace("{", "").replace("}", ""))
        assert name == f"{'GET' if method == 'HEAD' else method} {path}"
        assert not isinstance(handler, Guarded | Response), "a request meets the handler itself"
        assert operation["operationId"]


async def test_names_are_unique(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names) > 40


async def test_who_may_call(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        callers = {scheme for option in operation["security"] for scheme in option}
        assert ("401" in operation["responses"]) == (
            bool(callers) and {} not in operation["security"]
        )
        if path in OF_THE_PROCESS:
            assert not callers
        elif method in ("POST", "PUT") and path.startswith(("/shop", "/voucher/", "/voucher")):
            is_sale = path.startswith("/voucher-order")
            assert callers == {"session" if is_sale else "operator"}, path


async def test_every_answer_of_a_claim_is_told(document: dict[str, Any]) -> None:
    claim = document["paths"]["/voucher-order/seckill/{voucherId}"]["post"]
    outcomes = {
        outcome
        for response in claim["responses"].values()
        for outcome in response.get("headers", {})
        .get("x-outcome", {})
        .get("schema", {})
        .get("enum", ())
    }
    assert outcomes == {
        *("sold", "sold_out", "duplicate", "not_open", "ended", "paused"),
        *("rate_limited", "not_loaded", "shed", "unknown"),
    }
    assert claim["responses"]["200"]["headers"]["x-outcome"]["required"]
    assert claim["responses"]["503"]["headers"]["retry-after"]["required"]
    assert [parameter["name"] for parameter in claim["parameters"]] == [
        "voucherId",
        "Idempotency-Key",
    ]


# One route ----------------------------------------------------------------------------------------


async def handler(request: Request, segment: str) -> Response:
    """What it does.

    More of it.
    """
    raise AssertionError("not called here")


def operation(router: Router) -> dict[str, Any]:
    (path,) = described(router.routes)["paths"].values()
    told: dict[str, Any] = next(iter(path.values()))
    return told


def test_what_follows_from_a_path() -> None:
    router = Router()
    router.add("PUT", "/x/{id}/y", handler).gives()
    told = operation(router)
    assert told["summary"] == "What it does."
    assert [(each["name"], each["in"]) for each in told["parameters"]] == [("id", "path")]
    assert {"200", "400", "404", "429", "503"} <= told["responses"].keys()
    assert "401" not in told["responses"]


def test_what_follows_from_a_guard() -> None:
    router = Router()
    guarded = Guarded(Caller.USER, "Its own.", handler)
    assert router.add("POST", "/x", guarded).gives().handler is handler
    assert "401" in operation(router)["responses"]
    assert operation(router)["summary"] == "Its own."


def test_what_follows_from_a_form() -> None:
    """Null is absent, so what may be absent may be null."""
    router = Router()
    router.add("POST", "/x", handler).takes(NewShop).gives()
    told = operation(router)
    assert {"400", "415"} <= told["responses"].keys()
    schema = told["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["name", "typeId", "x", "y"]
    assert {"type": "null"} in schema["properties"]["images"]["anyOf"]
    assert "anyOf" not in schema["properties"]["name"]


def test_a_time_is_described() -> None:
    router = Router()
    router.add("POST", "/x", handler).takes(NewSale).gives()
    content = operation(router)["requestBody"]["content"]["application/json"]
    assert content["schema"]["properties"]["beginTime"]["format"] == "date-time"


def test_parameters_are_those_that_are_read() -> None:
    router = Router()
    router.add("GET", "/x", handler).asks(CURRENT, PLACE).gives()
    told = operation(router)["parameters"]
    assert [each["name"] for each in told] == ["current", "x", "y"]
    number = {"type": "integer", "minimum": 1, "maximum": 100}
    assert told[0]["schema"] == {"anyOf": [number, {"const": ""}], "default": 1}


def test_rejections_are_listed_with_their_headers() -> None:
    router = Router()
    router.add("POST", "/x", handler).gives(
        {"type": "integer"}, rejected("No", 200, (b"x-why", b"a")), rejected("Never", 404)
    )
    responses = operation(router)["responses"]
    success, rejection = responses["200"]["content"]["application/json"]["schema"]["oneOf"]
    assert success["properties"]["data"] == {"type": "integer"}
    assert rejection["properties"]["errorMsg"] == {"enum": ["No"]}
    assert responses["200"]["headers"]["x-why"]["schema"] == {"enum": ["a"]}
    found = responses["404"]["content"]["application/json"]["schema"]
    assert found["properties"]["errorMsg"] == {"enum": ["Never"]}


def test_a_row_has_the_shape_of_its_columns() -> None:
    shape = shape_of(voucher.c, (voucher.c.id.label("otherId"),), more={"type": "boolean"})
    assert shape["properties"]["payValue"] == {"type": "integer"}
    assert shape["properties"]["createTime"] == {"type": "string", "format": "date-time"}
    always = set(shape["required"])
    assert {"id", "title", "payValue"} <= always
    assert always.isdisjoint({"subTitle", "rules", "otherId", "more"})
