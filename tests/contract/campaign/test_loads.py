"""Loads by the database's own count: each SELECT of one shop, found or not, and nothing else."""

from pathlib import Path

from sqlalchemy import select

from flashsale.campaign.loads import LoadCount
from flashsale.stack.mariadb import MariaDBServer
from flashsale.storage import mysql, tables


def test_each_load_counts_also_one_that_finds_nothing(tmp_path: Path) -> None:
    with MariaDBServer(tmp_path, buffer_pool_mb=32, redo_log_mb=16, statistics=True) as server:
        pool = mysql.engine(server.url)
        tables.create_all(pool)
        shop, types = tables.shop, tables.shop_type
        one = select(shop).where(shop.c.id == 5)
        with pool.connect() as connection:
            connection.execute(one)  # before: not counted
            count = LoadCount(server.url)
            for _ in range(3):
                connection.execute(one)
            connection.execute(select(shop).where(shop.c.type_id == 5))
            connection.execute(select(shop.c.id).where(shop.c.id > 5))
            connection.execute(select(types).where(types.c.id == 5))
        assert count.settled() == 3
        pool.dispose()


def test_a_database_without_statistics_says_so(mariadb: MariaDBServer) -> None:
    assert LoadCount(mariadb.url).settled() is None
