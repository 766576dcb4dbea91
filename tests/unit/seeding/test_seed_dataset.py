"""The data set: the same in every run, extendable, and fit for its columns."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import String

from flashsale.accounts.login import is_phone
from flashsale.seeding.dataset import Dataset, Portion
from flashsale.seeding.settings import SeedSettings, Window

WINDOW = Window(datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 8, 1, 2, 3, 4_000, tzinfo=UTC))
FAMILY_PHONE = re.compile(r"1[38]\d{9}")
USERS_MAX = 10_000_000

seeds = st.integers(0, 2**63 - 1)
user_ids = st.integers(1, USERS_MAX)


def made(**asked: Any) -> Dataset:
    return Dataset(SeedSettings(**asked), WINDOW)


def rows(portion: Portion) -> list[tuple[object, ...]]:
    return [portion.row(row_id) for row_id in portion.ids]


def portion_named(dataset: Dataset, name: str) -> Portion:
    return next(portion for portion in dataset.portions() if portion.name == name)


def test_the_same_seed_makes_the_same_rows_and_another_one_others() -> None:
    every = [[rows(p) for p in made(seed=seed).portions()] for seed in (1, 1, 2)]
    assert every[0] == every[1]
    for name in ("users", "user infos", "shops", "blogs", "vouchers"):
        assert rows(portion_named(made(seed=1), name)) != rows(portion_named(made(seed=2), name))


def test_a_known_seed_makes_known_rows() -> None:
    """A change of the generator would tear apart data sets that are to be extended."""
    dataset = made(seed=1)
    assert dataset.user(1) == (1, "13165110691", "user_2b472be94e", "/imgs/icons/user7.jpg")
    assert dataset.shop(3)[:3] == (3, "Green Pavilion 3", 3)


@given(seeds, user_ids)
def test_a_user_is_the_same_in_a_larger_data_set(seed: int, user_id: int) -> None:
    small, large = made(seed=seed, users=user_id), made(seed=seed, users=USERS_MAX)
    assert small.user(user_id) == large.user(user_id)
    assert small.user_info(user_id) == large.user_info(user_id)


@given(seeds, user_ids, user_ids)
def test_phones_are_valid_and_unique(seed: int, one: int, other: int) -> None:
    dataset = made(seed=seed)
    phones = [dataset.user(user_id)[1] for user_id in (one, other, 1, USERS_MAX)]
    assert all(FAMILY_PHONE.fullmatch(phone) and is_phone(phone) for phone in phones)
    assert (phones[0] == phones[1]) == (one == other)


@given(seeds)
def test_neighbours_have_different_phones(seed: int) -> None:
    dataset = made(seed=seed)
    assert len({dataset.user(user_id)[1] for user_id in range(1, 101)}) == 100


@given(seeds, st.integers(1, 1_000_000))
def test_every_text_fits_its_column(seed: int, number: int) -> None:
    dataset = made(seed=seed, users=number, shops=number, first_voucher=number)
    for portion in dataset.portions():
        row = portion.row(portion.ids[-1])
        assert len(row) == len(portion.columns)
        for name, value in zip(portion.columns, row, strict=True):
            kind = portion.table.c[name].type
            if isinstance(kind, String):
                assert isinstance(value, str)
                assert len(value) <= (kind.length or 0)


@given(seeds, st.integers(1, 50), st.integers(1, 50))
def test_references_point_at_rows_of_the_data_set(seed: int, users: int, shops: int) -> None:
    dataset = made(seed=seed, users=users, shops=shops, vouchers=60)
    for _, shop_id, author, *_ in rows(portion_named(dataset, "blogs")):
        assert 1 <= int(str(shop_id)) <= shops
        assert 1 <= int(str(author)) <= users
    follows = [rows(portion) for portion in dataset.portions() if portion.name == "follows"]
    for _, follower, followed in follows[0] if follows else ():
        assert follower != followed
        assert {follower, followed} <= set(range(1, users + 1))
    assert all(1 <= int(str(row[1])) <= shops for row in rows(portion_named(dataset, "vouchers")))
    assert all(1 <= int(str(row[2])) <= 10 for row in rows(portion_named(dataset, "shops")))


def test_the_default_is_the_familys_size() -> None:
    sizes = {portion.name: portion.count for portion in made().portions()}
    assert sizes == {
        "shop types": 10,
        "shops": 14,
        "users": 1_005,
        "user infos": 1_005,
        "blogs": 4,
        "follows": 7,
        "vouchers": 1,
        "sales": 1,
    }


def test_sales_carry_their_units_and_hours() -> None:
    sales = portion_named(made(vouchers=3, units=100, first_voucher=5), "sales")
    hours = ("2030-01-01 00:00:00.000", "2030-01-08 01:02:03.004")
    assert rows(sales) == [(5, 34, 34, *hours), (6, 33, 33, *hours), (7, 33, 33, *hours)]


@pytest.mark.parametrize("name", ["vouchers", "sales"])
def test_vouchers_begin_where_asked(name: str) -> None:
    portion = portion_named(made(vouchers=2, first_voucher=40), name)
    assert [row[0] for row in rows(portion)] == [40, 41]
