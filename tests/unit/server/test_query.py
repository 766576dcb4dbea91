"""Query parameters: numbers within bounds, and one line for what is none."""

import json
from typing import Any

import pytest

from flashsale.catalog.json import LATITUDE_MAX, NUMBER_MAX
from flashsale.server.request import CURRENT, PLACE, TYPE_ID, Refused, Request, TextParameter
from flashsale.settings import ReplicaSettings


async def receive() -> dict[str, Any]:
    raise AssertionError("there is no body")


def asking(text: str) -> Request:
    scope = {"method": "GET", "path": "/", "query_string": text.encode(), "headers": []}
    return Request(scope, receive, ReplicaSettings())


def complaint(refused: pytest.ExceptionInfo[Refused]) -> str:
    response = refused.value.response
    assert response.status == 400
    return str(json.loads(response.body)["errorMsg"])


@pytest.mark.parametrize(
    ("text", "number"), [("", 1), ("current=1", 1), (f"current={NUMBER_MAX}", NUMBER_MAX)]
)
def test_pages(text: str, number: int) -> None:
    assert CURRENT.of(asking(text)) == number


@pytest.mark.parametrize(
    "value", ["0", "-1", "1.0", "abc", "%D9%A1", str(NUMBER_MAX + 1), "9" * 30]
)
def test_no_pages(value: str) -> None:
    with pytest.raises(Refused) as refused:
        CURRENT.of(asking(f"current={value}"))
    assert complaint(refused).startswith("current: expected a page")


@pytest.mark.parametrize("text", ["", "typeId=", "typeId=0", "typeId=x", "typeId=1e3"])
def test_no_ids(text: str) -> None:
    with pytest.raises(Refused) as refused:
        TYPE_ID.of(asking(text))
    assert complaint(refused).startswith("typeId: expected an id")


def test_an_id_and_the_first_of_several() -> None:
    assert TYPE_ID.of(asking("typeId=7&typeId=8")) == 7


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", None),
        ("x=&y=", None),
        ("x=120.1&y=30", (120.1, 30.0)),
        ("x=-180&y=-85.05112878", (-180.0, -LATITUDE_MAX)),
        ("x=%2B180&y=85.05112878", (180.0, LATITUDE_MAX)),
    ],
)
def test_places(text: str, place: tuple[float, float] | None) -> None:
    assert PLACE.of(asking(text)) == place


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("x=1", "y"),
        ("y=1", "x"),
        ("x=180.1&y=0", "x"),
        ("x=0&y=85.06", "y"),
        ("x=nan&y=0", "x"),
        ("x=0&y=inf", "y"),
        ("x=1e2&y=0", "x"),
        ("x=1_0&y=0", "x"),
        ("x=0x1&y=0", "x"),
        ("x=" + "1" * 500 + "&y=0", "x"),
    ],
)
def test_no_places(text: str, field: str) -> None:
    with pytest.raises(Refused) as refused:
        PLACE.of(asking(text))
    assert complaint(refused).startswith(f"{field}: expected degrees")


def test_text_is_utf8_escaped_or_not_and_bounded() -> None:
    assert TextParameter("name", 2).of(asking("name=%E7%81%AB%E9%94%85")) == "火锅"
    assert TextParameter("name", 2).of(asking("name=火锅")) == "火锅"
    assert TextParameter("name", 9).of(asking("name=%ff")) == "\ufffd"
    assert TextParameter("name", 9).of(asking("")) == ""
    with pytest.raises(Refused) as refused:
        TextParameter("name", 2).of(asking("name=abc"))
    assert complaint(refused) == "name: expected at most 2 characters"
