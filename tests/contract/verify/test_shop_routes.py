"""Books that a shop tells by a route, at once or in pages: all of them, or why not."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from rig.shop_server import Asked, Reply, ShopServer

from flashsale.books import Books, ShopBooks
from flashsale.errors import UnreachableError
from flashsale.verify import shop_routes
from flashsale.verify.shop_rows import UnfitError
from flashsale.verify.shop_tables import read_tables

ORDERS = [{"id": f"o{n}", "user": f"u{n}"} for n in range(7)]
Tells = Callable[[list[dict[str, str]], int, dict[str, str]], Any]


def told(tells: Tells, route: str = "/orders", **books: Any) -> list[str | None]:
    """The ids that are read of a shop that tells three a page."""

    def answer(asked: Asked) -> Reply:
        url = urlsplit(asked.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        at = int(
            query.get("offset") or 3 * (int(query.get("p", 1)) - 1) or 3 * int(query.get("z", 0))
        )
        reply = tells(ORDERS[at : at + 3], at, query)
        return reply if isinstance(reply, Reply) else Reply(200, reply)

    read = Books.model_validate({"route": route, "orders": "/list", **books})
    with ShopServer(answer).open() as server:
        found = read_tables(ShopBooks(read, base_url=server.base_url), [1])
    return [order.id for order in found.orders]


ALL = [order["id"] for order in ORDERS]


def after(at: int, url: str) -> str | None:
    return url.format(at + 3) if at + 3 < len(ORDERS) else None


def by_header(some: list[dict[str, str]], at: int, _: Any) -> Reply:
    more = after(at, '</orders?offset={}>; rel="next"')
    links = {"link": f'</orders>; rel="first"{f", {more}" if more else ""}'}
    return Reply(200, {"list": some}, links)


LINKS: dict[str, Tells] = {
    "url": lambda some, at, _: {"list": some, "next": after(at, "http://x:1/orders?offset={}")},
    "query": lambda some, at, _: {"list": some, "paging": {"next": after(at, "?offset={}")}},
    "hal": lambda some, at, _: {
        "list": some,
        "_links": {"next": {"href": after(at, "/orders?offset={}")}} if at < 6 else {},
    },
    "rels": lambda some, at, _: {
        "list": some,
        "links": [{"rel": "self", "href": "/"}, {"rel": "next", "href": after(at, "?offset={}")}],
    },
    "header": by_header,
}


@pytest.mark.parametrize("kind", LINKS)
def test_a_link_to_the_next_page_is_followed(kind: str) -> None:
    assert told(LINKS[kind]) == ALL


@pytest.mark.parametrize("asks", ["p={page}", "z={page0}", "offset={offset}"])
@pytest.mark.parametrize("end", [200, 404])
def test_pages_are_asked_for_until_one_is_empty(asks: str, end: int) -> None:
    def tells(some: list[dict[str, str]], at: int, _: Any) -> Any:
        return {"list": some, "totalElements": 7} if some else Reply(end, {"list": []})

    assert told(tells, f"/orders?{asks}") == ALL


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"totalElements": 7}, "tells of 3 at '/list', and says that there are 7; ask for all"),
        ({"total": 7, "size": 3}, "says that there are 7"),
        ({"page": {"total_count": 7}}, "says that there are 7"),
        ({"hasMore": True}, "says that there are more (hasmore: True)"),
        ({"next_cursor": "abc"}, "says that there are more (nextcursor: abc)"),
        ({"nextPage": 2}, "says that there are more (nextpage: 2)"),
    ],
)
def test_a_part_is_not_taken_for_all(beside: dict[str, Any], said: str) -> None:
    with pytest.raises(UnfitError) as error:
        told(lambda some, at, _: {"list": some, **beside})
    assert said in str(error.value)


@pytest.mark.parametrize(
    "beside",
    [
        {"total": 1_999},  # a sum of money
        {"totalElements": 3, "hasMore": False, "next": None, "nextPage": 0},
        {"log": [1, 2, 3, 4], "totalElements": 4},  # of the other list
    ],
)
def test_what_says_nothing_of_more_is_all(beside: dict[str, Any]) -> None:
    assert told(lambda some, at, _: {"list": some, **beside}) == ALL[:3]


def test_a_count_in_a_header_is_seen() -> None:
    with pytest.raises(UnfitError, match="says that there are 7"):
        told(lambda some, at, _: Reply(200, {"list": some}, {"x-total-count": "7"}))


def test_a_shop_that_tells_the_same_page_for_ever_is_told() -> None:
    with pytest.raises(UnfitError, match="answers as the page before it"):
        told(lambda some, at, _: {"list": ORDERS[:3]}, "/orders?p={page}")


def test_what_is_the_same_on_each_page_counts_once() -> None:
    def tells(some: list[dict[str, str]], at: int, _: Any) -> Any:
        return {"list": some, "skus": [{"stock": 5}], "next": after(at, "?offset={}")}

    def answer(asked: Asked) -> Reply:
        at = int(asked.path.partition("=")[2] or 0)
        return Reply(200, tells(ORDERS[at : at + 3], at, {}))

    books = Books(route="/all", orders="/list", stock="/skus")
    with ShopServer(answer).open() as server:
        found = read_tables(ShopBooks(books, base_url=server.base_url), [1])
    assert ([order.id for order in found.orders], [s.stock for s in found.stocks]) == (ALL, [5])


def test_what_is_no_json_and_who_does_not_answer() -> None:
    with pytest.raises(UnfitError, match=r"/orders answers with what is no JSON; .*books.headers"):
        told(lambda *_: Reply(200, b"<html>log in</html>"))
    with pytest.raises(UnreachableError, match=r"answers 403; check books\.route and its headers"):
        told(lambda *_: Reply(403))


def test_as_many_as_were_asked_for_may_be_a_part() -> None:
    with pytest.raises(UnfitError, match=r"was asked for no more \(size=3\); ask for all"):
        told(lambda some, at, _: {"list": some}, "/orders?size=3")
    assert told(lambda some, at, _: {"list": some}, "/orders?size=4") == ALL[:3]
    assert told(lambda some, at, _: {"list": some, "next": None}, "/orders?size=3") == ALL[:3]


@pytest.mark.parametrize("route", ["/orders", "/orders?p={page}"])
def test_pages_without_an_end_are_refused_and_no_part_is_taken_for_all(
    route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop_routes, "_PAGES_MAX", 2)
    tells = LINKS["query"] if "{" not in route else (lambda some, *_: {"list": some})
    with pytest.raises(UnfitError, match="no end after 2 pages; ask for larger ones"):
        told(tells, route)


def stranger(headers: dict[str, str] | None = None, **beside: Any) -> Tells:
    return lambda some, _at, _query: Reply(200, {"list": some, **beside}, headers or {})


@pytest.mark.parametrize("link", ["http://[x", "//[::1/", "http://[fe80::%]/"])
def test_a_link_that_is_no_url_is_told(link: str) -> None:
    with pytest.raises(UnfitError, match="which is no URL"):
        told(stranger(next=link))
    with pytest.raises(UnfitError, match="which is no URL"):
        told(stranger({"link": f'<{link}>; rel="next"'}))


@pytest.mark.parametrize("count", ["\xb2", "\xb9\xb2\xb3", "9" * 5_000, "-1", "1e3", ""])
def test_a_count_that_is_no_number_says_nothing(count: str) -> None:
    """A superscript is a digit to Unicode, and no number to anybody."""
    assert told(stranger({"x-total-count": count})) == ALL[:3]


@pytest.mark.parametrize("depth", [300, 1_010, 1_100])
def test_a_page_that_nests_too_deep_is_told(depth: int) -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    assert told(stranger(meta={"deep": deep})) == ALL[:3]
    text = '{"list":[],"next_cursor":' + "[" * depth + "]" * depth + "}"
    with pytest.raises(UnfitError, match="no JSON"):
        told(lambda *_: Reply(200, text.encode()))
