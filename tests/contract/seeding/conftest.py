"""A system of real stores to seed, and ways to look into it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from flashsale.seeding.load import SeedReport, seed
from flashsale.seeding.settings import SeedSettings, Silent
from flashsale.seeding.warm import WarmReport, warm
from flashsale.settings import StoreSettings
from flashsale.storage import mysql, tables
from flashsale.storage.roles import sync_client

Fingerprint = dict[str, Any]


@dataclass
class Lab:
    """Empty stores, and clients that look at them beside the code under test."""

    urls: StoreSettings
    pool: Engine
    ledger: Redis
    cache: Redis
    bytes_of: Redis  # the ledger, not decoded
    tokens_path: Path

    def seed(self, **asked: Any) -> SeedReport:
        return seed(SeedSettings(**asked), self.urls, self.tokens_path, Silent())

    def warm(self) -> WarmReport:
        return warm(self.urls, Silent())

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with self.pool.begin() as connection:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []

    def count(self, table: str) -> int:
        return int(self.sql(f"SELECT COUNT(*) FROM {table}")[0][0])

    def tokens(self) -> dict[int, str]:
        lines = self.tokens_path.read_text().splitlines()
        assert lines[0] == "user_id,token"
        return {int(user): token for user, token in (line.split(",") for line in lines[1:])}

    def everything(self) -> Fingerprint:
        """All rows, all ledger keys with their values, and the tokens file to the byte."""
        rows = {
            table.name: self.sql(f"SELECT * FROM {table.name} ORDER BY 1")
            for table in tables.metadata.sorted_tables
        }
        return rows | {
            "keys": {key: self.bytes_of.dump(key) for key in sorted(self.bytes_of.scan_iter())},
            "tokens": (self.tokens_path.read_bytes(), self.tokens_path.stat().st_mtime_ns),
        }


@pytest.fixture
def lab(ledger_url: str, cache_url: str, mysql_url: str, tmp_path: Path) -> Iterator[Lab]:
    urls = StoreSettings(ledger_url=ledger_url, cache_url=cache_url, mysql_url=mysql_url)
    ledger, cache, bytes_of = (
        sync_client(ledger_url),
        sync_client(cache_url),
        Redis.from_url(ledger_url),
    )
    pool = mysql.engine(mysql_url)
    with ledger, cache, bytes_of:
        yield Lab(urls, pool, ledger, cache, bytes_of, tmp_path / "tokens.csv")
    pool.dispose()
