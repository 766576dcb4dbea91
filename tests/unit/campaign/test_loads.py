"""Which statements load one shop."""

import pytest

from flashsale.campaign.loads import is_load


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT `tb_shop` . `id` , `tb_shop` . `name` FROM `tb_shop` WHERE `tb_shop` . `id` = ? ",
        "SELECT * FROM `sale` . `tb_shop` WHERE `id` = ? LIMIT ?",
        "SELECT `s` . * FROM `tb_shop` AS `s` WHERE `s` . `id` = ?",
        "select name\nfrom tb_shop s\nwhere s.id=7",
        "SELECT * FROM tb_shop WHERE id IN (?)",
    ],
)
def test_a_shop_by_its_id_is_a_load(statement: str) -> None:
    assert is_load(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM `tb_shop_type` WHERE `id` = ?",
        "SELECT `id` FROM `tb_shop` WHERE `id` > ? ORDER BY `id` LIMIT ?",
        "SELECT * FROM `tb_shop` WHERE `tb_shop` . `type_id` = ?",
        "SELECT `x` FROM `tb_shop` WHERE `tb_shop` . `id` = ? FOR UPDATE",
        "SELECT COUNT ( * ) FROM `tb_shop`",
        "UPDATE `tb_shop` SET `name` = ? WHERE `id` = ?",
        "",
    ],
)
def test_whatever_else_is_none(statement: str) -> None:
    assert not is_load(statement)
