"""The servers that other tests stand on are empty when a test gets them."""

import redis
from sqlalchemy import create_engine, text


def test_ledger_is_flushed_before_every_test(ledger_url: str) -> None:
    with redis.Redis.from_url(ledger_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


test_ledger_is_flushed_again = test_ledger_is_flushed_before_every_test


def test_mysql_tables_are_empty(mysql_url: str) -> None:
    engine = create_engine(mysql_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM tb_shop_type")).scalar() == 0
        connection.execute(text("INSERT INTO tb_shop_type (name) VALUES ('left behind')"))
    engine.dispose()


test_mysql_tables_are_empty_again = test_mysql_tables_are_empty


def test_blank_database_has_no_table(blank_mysql_url: str) -> None:
    engine = create_engine(blank_mysql_url)
    with engine.connect() as connection:
        assert connection.execute(text("SHOW TABLES")).all() == []
    engine.dispose()
