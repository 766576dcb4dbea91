"""What clients may send: strict, in the family's names, with one complaint that names the field."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flashsale.catalog.json import BadForm, NewBlog, NewSale, NewShop, NewVoucher, ShopChange, read
from flashsale.model import ID_MAX

SHOP: dict[str, Any] = {"name": "Noodles", "typeId": 1, "x": 120.1, "y": 30}
VOUCHER: dict[str, Any] = {"shopId": 1, "title": "Half price", "payValue": 500, "actualValue": 1000}
SALE: dict[str, Any] = VOUCHER | {
    "stock": 10,
    "beginTime": "2030-01-01T00:00:00Z",
    "endTime": "2030-01-02T00:00:00Z",
}


def complaint(kind: Any, given: dict[str, Any]) -> str:
    with pytest.raises(BadForm) as malformed:
        read(kind, given)
    assert "\n" not in str(malformed.value)
    return str(malformed.value)


def test_a_shop_in_the_familys_names() -> None:
    given = SHOP | {"avgPrice": 80, "openHours": "10:00-22:00", "unknown": [1], "area": None}
    shop = read(NewShop, given)
    assert (shop.name, shop.type_id, shop.y, shop.avg_price) == ("Noodles", 1, 30.0, 80)
    assert (shop.open_hours, shop.area, shop.sold) == ("10:00-22:00", None, 0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": None}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": 5}, "name"),
        ({"typeId": "1"}, "typeId"),
        ({"typeId": True}, "typeId"),
        ({"typeId": 0}, "typeId"),
        ({"typeId": ID_MAX + 1}, "typeId"),
        ({"typeId": 1.5}, "typeId"),
        ({"typeId": 2.0**60}, "typeId"),
        ({"typeId": 1e300}, "typeId"),
        ({"x": "120"}, "x"),
        ({"x": 180.5}, "x"),
        ({"x": float("nan")}, "x"),
        ({"y": 86}, "y"),
        ({"avgPrice": -1}, "avgPrice"),
        ({"score": 51}, "score"),
        ({"sold": 2**31}, "sold"),
        ({"openHours": "x" * 33}, "openHours"),
        ({"images": ["a"]}, "images"),
    ],
)
def test_what_is_wrong_with_a_shop(change: dict[str, Any], field: str) -> None:
    assert complaint(NewShop, SHOP | change).startswith(f"{field}: ")
    if change != {"name": None}:
        assert complaint(ShopChange, {"id": 1} | change).startswith(f"{field}: ")


def test_a_number_may_be_written_as_any() -> None:
    """JSON has one kind of them; where a fraction could have been lost, none is taken."""
    shop = read(NewShop, SHOP | {"typeId": 5.0, "x": 120, "sold": 2e3})
    assert (shop.type_id, shop.x, shop.sold) == (5, 120.0, 2_000)


def test_a_change_is_what_is_there() -> None:
    change = read(ShopChange, {"id": 3, "avgPrice": 5, "name": None})
    assert change.model_dump(exclude_none=True) == {"id": 3, "avg_price": 5}
    assert complaint(ShopChange, {"name": "No id"}) == "id: Field required"


def test_python_names_are_unknown_fields() -> None:
    assert complaint(NewShop, {"name": "x", "type_id": 1, "x": 1, "y": 1}).startswith("typeId: ")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payValue": 0}, "payValue"),
        ({"payValue": 1.5}, "payValue"),
        ({"actualValue": None}, "actualValue"),
        ({"title": ""}, "title"),
        ({"subTitle": "x" * 256}, "subTitle"),
        ({"shopId": -1}, "shopId"),
    ],
)
def test_what_is_wrong_with_a_voucher(change: dict[str, Any], field: str) -> None:
    assert complaint(NewVoucher, VOUCHER | change).startswith(f"{field}: ")
    assert complaint(NewSale, SALE | change).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-31T10:00:00Z", datetime(2030, 1, 31, 10, tzinfo=UTC)),
        ("2030-01-31T10:00:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
        ("2030-01-31 10:00:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
        ("2030-01-31T18:00:00+08:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
        ("2030-01-31T10:00:00.123987", datetime(2030, 1, 31, 10, 0, 0, 123_000, tzinfo=UTC)),
    ],
)
def test_times(text: str, moment: datetime) -> None:
    assert read(NewSale, SALE | {"beginTime": "2029-01-01", "endTime": text}).end_time == moment


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beginTime": 1_900_000_000}, "beginTime: expected a time such as 2030-01-31T10:00:00Z"),
        ({"beginTime": "tomorrow"}, "beginTime: expected a time such as 2030-01-31T10:00:00Z"),
        ({"endTime": "9999-12-31T23:59:59-14:00"}, "endTime: expected a time such as"),
        ({"beginTime": "1970-01-01T00:00:00Z"}, "beginTime: expected a time from the year 2000 on"),
        ({"endTime": SALE["beginTime"]}, "endTime: expected a time after beginTime"),
        (
            {"beginTime": "2020-01-01", "endTime": "2020-01-02"},
            "endTime: expected a time to come",
        ),
        ({"stock": 0}, "stock: "),
        ({"stock": 2**31}, "stock: "),
        ({"stock": "10"}, "stock: "),
    ],
)
def test_what_is_wrong_with_a_sale(change: dict[str, Any], message: str) -> None:
    assert complaint(NewSale, SALE | change).startswith(message)


BLOG: dict[str, Any] = {"shopId": 1, "title": "Worth the queue", "content": "It was."}
PICTURE = "/imgs/blogs/7/0123456789abcdef0123456789abcdef.png"


def test_a_blog_shows_pictures_of_ours() -> None:
    assert read(NewBlog, BLOG).images == ""
    assert read(NewBlog, BLOG | {"images": PICTURE}).images == PICTURE
    assert read(NewBlog, BLOG | {"images": ",".join([PICTURE] * 9)})


@pytest.mark.parametrize(
    "images",
    [
        *("https://elsewhere/x.png", "//elsewhere/x.png", "javascript:alert(1)", "x.png", ","),
        *("/imgs/../x.png", "/imgs/x.svg", '/imgs/x.png"onerror=', f"{PICTURE},", f" {PICTURE}"),
        *(f"{PICTURE}\n", ",".join([PICTURE] * 10)),
    ],
)
def test_a_blog_shows_no_others(images: str) -> None:
    found = complaint(NewBlog, BLOG | {"images": images})
    assert found.startswith("images: expected up to 9 pictures by comma, such as /imgs/")
