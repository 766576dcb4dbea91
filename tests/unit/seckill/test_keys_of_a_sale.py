"""Whole numbers as Redis counts with them, and the types of keys."""

import pytest

from flashsale import keys
from flashsale.seckill.sale import KINDS, kinds_of, whole


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("17", 17),
        ("-3", -3),
        *((text, None) for text in ("", "-0", "007", "1e3", " 5", "5\n", "²", "٣", "9" * 30, "x")),
        (None, None),
    ],
)
def test_a_number_is_written_in_one_way(text: str | None, number: int | None) -> None:
    assert whole(text) == number


def test_every_key_that_sales_rest_on_has_a_type() -> None:
    of_sales = kinds_of([1, 2])
    assert len(of_sales) == 10
    assert keys.seckill_receipt(2) in of_sales
    assert set(KINDS.values()) | set(of_sales.values()) == {
        "stream",
        "hash",
        "set",
        "string",
        "number",
    }
