"""Shops on real stores: read by three strategies, listed, created, and changed for everybody."""

import asyncio
import json

import pytest
from rig.shops import Open, ShopStores, ids
from sqlalchemy.dialects import mysql

from flashsale import keys
from flashsale.cache.entry import Source
from flashsale.catalog.form import NewShop, ShopChange, read
from flashsale.catalog.shop import Changed, names_with
from flashsale.errors import Unavailable

pytestmark = pytest.mark.anyio

NEW = {"name": "New", "typeId": 1, "x": 120.0, "y": 30.0}


async def test_a_cold_shop_is_loaded_once_and_then_hit(town: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        answers = await asyncio.gather(*(front.shops.read(1) for _ in range(20)))
        assert {answer.source for answer in answers} <= {Source.LOAD, Source.WAIT}
        assert front.shops.entries.loading.loads == 1
        answer = await front.shops.read(1)
        assert answer.source is Source.HIT
        assert answer.value is not None
        assert (answer.value["id"], answer.value["typeId"], answer.value["x"]) == (1, 1, 120.0)
        assert 0 < town.cache.ttl(keys.cache_entry("shop", 1)) <= 1_980


async def test_a_warm_shop_answers_stale_rather_than_late(
    town: ShopStores, open_front: Open
) -> None:
    async with open_front() as front:
        await front.warming.run()
        assert (await front.shops.read(1)).source is Source.HIT
        assert town.cache.ttl(keys.cache_entry("shop", 1)) == -1
        assert (
            await front.shops.change(read(ShopChange, {"id": 1, "name": "Newer"})) is Changed.DONE
        )
        stale = await front.shops.read(1)
        assert (stale.source, stale.value and stale.value["name"]) == (Source.STALE, "Shop 1")
        for _ in range(100):
            fresh = await front.shops.read(1)
            if fresh.source is Source.HIT:
                break
            await asyncio.sleep(0.02)
        assert (fresh.source, fresh.value and fresh.value["name"]) == (Source.HIT, "Newer")


async def test_an_id_that_cannot_be_never_reaches_mysql(town: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        await front.warming.run()
        answers = [await front.shops.read(10_000 + n) for n in range(50)]
        denied = [answer for answer in answers if answer.source is Source.BLOOM]
        assert all(answer.body is None for answer in answers)
        assert len(denied) >= 45, "one in a hundred may pass"


async def test_without_a_filter_nothing_is_denied(town: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert (await front.shops.read(1)).source is Source.LOAD
        assert (await front.shops.read(99)).body is None
        assert (await front.shops.read(99)).source is Source.NULL


async def test_a_new_shop_is_there_at_once_for_everybody(
    town: ShopStores, open_front: Open
) -> None:
    async with open_front() as front, open_front() as other:
        await front.warming.run()
        before = ids(await front.shops.near(1, 1, 120.0, 30.0))
        assert (await other.shops.read(14)).source is Source.BLOOM
        shop_id = await front.shops.create(read(NewShop, NEW))
        assert shop_id == 14
        answer = await other.shops.read(shop_id)
        assert (answer.source, answer.value and answer.value["name"]) == (Source.LOAD, "New")
        near = ids(await other.shops.near(1, 1, 120.0, 30.0))
        assert near == [14, *before[:4]], "the nearest of all"


async def test_a_null_that_was_remembered_goes_with_the_creation(
    town: ShopStores, open_front: Open
) -> None:
    async with open_front() as front:
        assert [(await front.shops.read(14)).source for _ in range(2)] == [Source.LOAD, Source.NULL]
        assert await front.shops.create(read(NewShop, NEW)) == 14
        assert (await front.shops.read(14)).body is not None


async def test_a_shop_that_the_filter_cannot_take_is_not_created(
    town: ShopStores, open_front: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_front() as front:
        await front.warming.run()

        async def away(ids: object) -> None:
            raise Unavailable("the cache is away")

        monkeypatch.setattr(front.shops.ids, "add", away)
        with pytest.raises(Unavailable):
            await front.shops.create(read(NewShop, NEW))
    assert town.sql("SELECT COUNT(*) FROM tb_shop WHERE id > 13") == [(0,)]


async def test_types_that_do_not_exist(town: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert await front.shops.create(read(NewShop, NEW | {"typeId": 9})) is None
        change = read(ShopChange, {"id": 1, "typeId": 9, "name": "No"})
        assert await front.shops.change(change) is Changed.NO_TYPE
        change = read(ShopChange, {"id": 99, "name": "No"})
        assert await front.shops.change(change) is Changed.NO_SHOP
    assert town.sql("SELECT COUNT(*) FROM tb_shop WHERE name = 'No' OR id > 13") == [(0,)]


async def test_a_change_of_nothing_is_one(town: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert await front.shops.change(read(ShopChange, {"id": 1})) is Changed.DONE


async def test_a_change_is_seen_by_every_process(town: ShopStores, open_front: Open) -> None:
    async with open_front() as front, open_front() as other:
        for reader in (front, other):
            await reader.shops.read(3)
        for number in range(5):
            await front.shops.change(read(ShopChange, {"id": 3, "avgPrice": number}))
            for reader in (other, front):
                value = (await reader.shops.read(3)).value
                assert value is not None
                assert value["avgPrice"] == number


async def test_pages_of_a_type(town: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        pages = [ids(await front.shops.of_type(1, number)) for number in (1, 2, 3, 4)]
        assert pages == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12], []]
        assert (await front.shops.of_type(1, 1)).source is Source.HIT
        assert ids(await front.shops.of_type(3, 1)) == []
        assert ids(await front.shops.of_type(9, 1)) == []


async def test_a_list_may_lag_in_who_is_on_it_but_not_in_what_it_says(
    town: ShopStores, open_front: Open
) -> None:
    async with open_front() as front:
        await front.shops.of_type(1, 1)
        await front.shops.change(read(ShopChange, {"id": 2, "name": "Renamed", "avgPrice": 7}))
        page = json.loads((await front.shops.of_type(1, 1)).body)
        assert (page[1]["name"], page[1]["avgPrice"]) == ("Renamed", 7)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Shop 1", [1, 10, 11, 12]),
        ("hop 3", [3]),
        ("", list(range(1, 11))),
        ("50%", [13]),
        ("%", [13]),
        ("_", [13]),
        ("\\", [13]),
        ("0%_o", [13]),
        ("'; DROP TABLE tb_shop; --", []),
        ("No such", []),
    ],
)
async def test_names_that_contain(
    town: ShopStores, open_front: Open, name: str, found: list[int]
) -> None:
    async with open_front() as front:
        assert ids(await front.shops.named(name, 1)) == found


async def test_pages_of_names(town: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert ids(await front.shops.named("", 2)) == [11, 12, 13]


async def test_types_are_in_their_order(town: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        answer = await front.types.everything()
        assert [one["id"] for one in answer.value or []] == [2, 1, 3]
        assert answer.source is Source.LOAD
        await front.types.warm()
        assert (await front.types.everything()).source is Source.HIT


async def test_with_the_cache_away_reads_go_to_mysql(town: ShopStores, open_front: Open) -> None:
    async with open_front(cache_url="redis://127.0.0.1:1/0") as front:
        assert (await front.shops.read(1)).body is not None
        assert ids(await front.shops.of_type(1, 2)) == [6, 7, 8, 9, 10]
        assert ids(await front.shops.near(1, 1, 120.0, 30.0)) == [1, 2, 3, 4, 5]
        assert ids(await front.shops.named("Shop 1", 1)) == [1, 10, 11, 12]
        with pytest.raises(Unavailable):
            await front.shops.create(read(NewShop, NEW))
    assert town.sql("SELECT COUNT(*) FROM tb_shop WHERE id > 13") == [(0,)]


def test_a_search_looks_at_the_index_of_names_alone(town: ShopStores) -> None:
    query = names_with("a").compile(dialect=mysql.dialect(), compile_kwargs={"literal_binds": True})
    with town.pool.connect() as connection:
        plan = (
            connection.exec_driver_sql(
                f"EXPLAIN {query}", execution_options={"no_parameters": True}
            )
            .mappings()
            .one()
        )
    assert plan["key"] == "ix_shop_name"
    assert "Using index" in plan["Extra"]
