"""Shops on real stores: read by three strategies, listed, created, and changed for everybody."""

import asyncio
import json
import time

import pytest
from rig.shops import Open, ShopStores, ids
from sqlalchemy.dialects import mysql

from flashsale import keys
from flashsale.cache.entry import Source
from flashsale.catalog import names
from flashsale.catalog.json import NewShop, ShopChange, read
from flashsale.catalog.shop import ShopChanged, names_with
from flashsale.errors import Unavailable

pytestmark = pytest.mark.anyio

NEW = {"name": "New", "typeId": 1, "x": 120.0, "y": 30.0}


async def test_a_cold_shop_is_loaded_once_and_then_hit(
    stored: ShopStores, open_front: Open
) -> None:
    async with open_front() as front:
        answers = await asyncio.gather(*(front.shops.read(1) for _ in range(20)))
        assert {answer.source for answer in answers} <= {Source.LOAD, Source.WAIT}
        assert front.shops.entries.loading.loads == 1
        answer = await front.shops.read(1)
        assert answer.source is Source.HIT
        assert answer.value is not None
        assert (answer.value["id"], answer.value["typeId"], answer.value["x"]) == (1, 1, 120.0)
        assert 0 < stored.cache.ttl(keys.cache_entry("shop", 1)) <= 1_980


async def test_a_warm_shop_answers_stale_rather_than_late(
    stored: ShopStores, open_front: Open
) -> None:
    async with open_front() as front:
        await front.warming.run()
        assert (await front.shops.read(1)).source is Source.HIT
        assert stored.cache.ttl(keys.cache_entry("shop", 1)) == -1
        assert (
            await front.shops.change(read(ShopChange, {"id": 1, "name": "Newer"}))
            is ShopChanged.DONE
        )
        stale = await front.shops.read(1)
        assert (stale.source, stale.value and stale.value["name"]) == (Source.STALE, "Shop 1")
        for _ in range(100):
            fresh = await front.shops.read(1)
            if fresh.source is Source.HIT:
                break
            await asyncio.sleep(0.02)
        assert (fresh.source, fresh.value and fresh.value["name"]) == (Source.HIT, "Newer")


async def test_an_id_that_cannot_be_never_reaches_mysql(
    stored: ShopStores, open_front: Open
) -> None:
    async with open_front() as front:
        await front.warming.run()
        answers = [await front.shops.read(10_000 + n) for n in range(50)]
        denied = [answer for answer in answers if answer.source is Source.BLOOM]
        assert all(answer.body is None for answer in answers)
        assert len(denied) >= 45, "one in a hundred may pass"


async def test_without_a_filter_nothing_is_denied(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert (await front.shops.read(1)).source is Source.LOAD
        assert (await front.shops.read(99)).body is None
        assert (await front.shops.read(99)).source is Source.NULL


async def test_a_new_shop_is_there_at_once_for_everybody(
    stored: ShopStores, open_front: Open
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
    stored: ShopStores, open_front: Open
) -> None:
    async with open_front() as front:
        assert [(await front.shops.read(14)).source for _ in range(2)] == [Source.LOAD, Source.NULL]
        assert await front.shops.create(read(NewShop, NEW)) == 14
        assert (await front.shops.read(14)).body is not None


async def test_a_shop_that_the_filter_cannot_take_is_not_created(
    stored: ShopStores, open_front: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_front() as front:
        await front.warming.run()

        async def away(ids: object) -> None:
            raise Unavailable("the cache is away")

        monkeypatch.setattr(front.shops.ids, "add", away)
        with pytest.raises(Unavailable):
            await front.shops.create(read(NewShop, NEW))
    assert stored.sql("SELECT COUNT(*) FROM tb_shop WHERE id > 13") == [(0,)]


async def test_types_that_do_not_exist(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert await front.shops.create(read(NewShop, NEW | {"typeId": 9})) is None
        change = read(ShopChange, {"id": 1, "typeId": 9, "name": "No"})
        assert await front.shops.change(change) is ShopChanged.NO_TYPE
        change = read(ShopChange, {"id": 99, "name": "No"})
        assert await front.shops.change(change) is ShopChanged.NO_SHOP
    assert stored.sql("SELECT COUNT(*) FROM tb_shop WHERE name = 'No' OR id > 13") == [(0,)]


async def test_a_change_of_nothing_is_one(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert await front.shops.change(read(ShopChange, {"id": 1})) is ShopChanged.DONE


async def test_a_change_is_seen_by_every_process(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front, open_front() as other:
        for reader in (front, other):
            await reader.shops.read(3)
        for number in range(5):
            await front.shops.change(read(ShopChange, {"id": 3, "avgPrice": number}))
            for reader in (other, front):
                value = (await reader.shops.read(3)).value
                assert value is not None
                assert value["avgPrice"] == number


async def test_pages_of_a_type(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        pages = [ids(await front.shops.of_type(1, number)) for number in (1, 2, 3, 4)]
        assert pages == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12], []]
        assert (await front.shops.of_type(1, 1)).source is Source.HIT
        assert ids(await front.shops.of_type(3, 1)) == []
        assert ids(await front.shops.of_type(9, 1)) == []


async def test_a_list_may_lag_in_who_is_on_it_but_not_in_what_it_says(
    stored: ShopStores, open_front: Open
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
@pytest.mark.parametrize("names_max", [13, 12], ids=["in memory", "by MySQL"])
async def test_names_that_contain(
    stored: ShopStores, open_front: Open, name: str, found: list[int], names_max: int
) -> None:
    async with open_front(names_max=names_max) as front:
        assert ids(await front.shops.named(name, 1)) == found
        assert front.shops.names.too_many == (names_max == 12 and name != "")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Café Zoë", "CAFE ZOE"),
        ("CAFE", "é"),
        ("ＡＢＣ ｶﾞ", "abc"),
        ("老街茶馆", "街茶"),
        ("İstanbul", "istanbul"),
        ("Tea  House", "tea house"),
        ("x", "\0"),
        ("Ω", "ω"),
    ],
)
async def test_memory_and_mysql_agree_on_what_a_name_contains(
    stored: ShopStores, open_front: Open, name: str, part: str
) -> None:
    stored.add_shop(77, name=name)
    (by_mysql,) = stored.sql(
        "SELECT name LIKE CONCAT('%', :part, '%') FROM tb_shop WHERE id = 77", part=part
    )
    async with open_front() as front:
        assert ids(await front.shops.named(part, 1)) == ([77] if by_mysql[0] else [])


async def test_searches_ask_no_database(stored: ShopStores, open_front: Open) -> None:
    """However many, and whatever for, once the names are there."""
    async with open_front() as front:
        await front.shops.named("Shop 7", 1)
        before = stored.selects("tb_shop")
        for number in range(60):
            assert ids(await front.shops.named(f"absent {number}", 1)) == []
        assert stored.selects("tb_shop") - before <= 30, "one look for what has changed, perhaps"


async def test_a_search_sees_what_has_changed(
    stored: ShopStores, open_front: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_FRESH_S", 0.0)
    async with open_front(list_ttl_s=0.001) as front:

        async def found(part: str) -> list[int]:
            await asyncio.sleep(0.02)  # a page is kept for a moment, too
            return ids(await front.shops.named(part, 1))

        assert await found("shop 12") == [12]
        stored.sql("UPDATE tb_shop SET name = 'Other' WHERE id = 12")
        stored.add_shop(9_000, name="Far Shop 12")
        assert await found("shop 12") == [9_000]
        assert await found("other") == [12]
        stored.sql("DELETE FROM tb_shop WHERE id IN (12, 9000)")
        assert await found("gone") == []
        assert await found("gone, too") == []
        assert len(front.shops.names) == 12, "what is missing at two looks is not there"


async def test_names_go_on_being_read_where_their_search_is_cut_off(
    stored: ShopStores, open_front: Open
) -> None:
    async with open_front() as front:
        search = asyncio.ensure_future(front.shops.names.find("shop 1", range(10)))
        await asyncio.sleep(0)
        search.cancel()
        await asyncio.gather(search, return_exceptions=True)
        assert await front.shops.names.find("shop 1", range(2)) == [1, 10]


async def test_searches_rest(
    stored: ShopStores, open_front: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take a share of the replica's time, and the next one waits for as long as that asks."""
    monkeypatch.setattr(names, "_SHARE", 1e-4)
    async with open_front() as front:
        await front.shops.names.find("shop 1", range(10))
        rest_s = front.shops.names._free_s - time.monotonic()
        assert rest_s > 0.01
        began_s = time.monotonic()
        await front.shops.names.find("shop 1", range(10))
        assert time.monotonic() - began_s >= rest_s * 0.9


async def test_names_that_cannot_be_read_are_no_empty_page(
    stored: ShopStores, open_front: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_front() as front:
        with monkeypatch.context() as broken:

            async def fails(work: object) -> None:
                raise Unavailable("MySQL is away")

            broken.setattr(front.shops.names._database, "run", fails)
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await front.shops.named("Shop 7", 1)
        assert ids(await front.shops.named("Shop 7", 1)) == [7]


async def test_pages_of_names(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        assert ids(await front.shops.named("", 2)) == [11, 12, 13]
        for shop_id in range(5_000, 5_030):
            stored.add_shop(shop_id, name="Many")
        front.shops.names._look_s = 0.0
        assert ids(await front.shops.named("many", 1)) == list(range(5_000, 5_010))
        assert ids(await front.shops.named("MANY", 3)) == list(range(5_020, 5_030))
        assert ids(await front.shops.named("many", 4)) == []


async def test_types_are_in_their_order(stored: ShopStores, open_front: Open) -> None:
    async with open_front() as front:
        answer = await front.types.everything()
        assert [one["id"] for one in answer.value or []] == [2, 1, 3]
        assert answer.source is Source.LOAD
        await front.types.warm()
        assert (await front.types.everything()).source is Source.HIT


async def test_with_the_cache_away_reads_go_to_mysql(stored: ShopStores, open_front: Open) -> None:
    async with open_front(cache_url="redis://127.0.0.1:1/0") as front:
        assert (await front.shops.read(1)).body is not None
        assert ids(await front.shops.of_type(1, 2)) == [6, 7, 8, 9, 10]
        assert ids(await front.shops.near(1, 1, 120.0, 30.0)) == [1, 2, 3, 4, 5]
        assert ids(await front.shops.named("Shop 1", 1)) == [1, 10, 11, 12]
        with pytest.raises(Unavailable):
            await front.shops.create(read(NewShop, NEW))
    assert stored.sql("SELECT COUNT(*) FROM tb_shop WHERE id > 13") == [(0,)]


def test_a_search_looks_at_the_index_of_names_alone(stored: ShopStores) -> None:
    query = names_with("a").compile(dialect=mysql.dialect(), compile_kwargs={"literal_binds": True})
    with stored.pool.connect() as connection:
        plan = (
            connection.exec_driver_sql(
                f"EXPLAIN {query}", execution_options={"no_parameters": True}
            )
            .mappings()
            .one()
        )
    assert plan["key"] == "ix_shop_name"
    assert "Using index" in plan["Extra"]
