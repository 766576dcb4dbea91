"""The hand-made INSERT, which must never carry a value out of its quotes."""

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table

from flashsale.seeding.dataset import Portion, Row
from flashsale.seeding.load import statement

THINGS = Table("tb_thing", MetaData(), Column("id", Integer), Column("name", String(9)))


def portion() -> Portion:
    return Portion("things", THINGS, ("id", "name", "x"), 1, 2, lambda i: (i, "a", 0.5))


def test_rows_become_one_statement() -> None:
    text = statement(portion(), [(1, "tea house", 120.15), (2, "50%", -0.5)])
    assert text == (
        "INSERT INTO tb_thing (id, name, x) VALUES (1,'tea house',120.15),(2,'50%',-0.5)"
    )


@pytest.mark.parametrize(
    "row",
    [
        (2, "it's", 0.5),
        (2, "x'),(3,'y", 0.5),
        (2, "back\\slash", 0.5),
        ("2", "text where a number stood", 0.5),
        (2, "text where a number stood", "0.5"),
    ],
)
def test_a_value_that_would_need_escaping_is_refused(row: Row) -> None:
    with pytest.raises(ValueError, match="tb_thing needs escaping"):
        statement(portion(), [(1, "plain", 0.5), row])
