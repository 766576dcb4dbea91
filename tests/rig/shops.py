"""A few shops, vouchers and blogs in real stores, and ways to look behind the storefront."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from redis import Redis
from sqlalchemy import Engine, text

from flashsale.catalog.json import Page
from flashsale.catalog.storefront import Storefront

Open = Callable[..., AbstractAsyncContextManager[Storefront]]
"""Opens a storefront: that of one more process."""


@dataclass
class ShopStores:
    """Three types, shops along a line to the north, two users, and clients of the stores."""

    pool: Engine
    cache: Redis
    ledger: Redis

    def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.pool.begin() as connection:
            result = connection.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def add_shop(
        self, shop_id: int, *, type_id: int = 1, x: float = 120.0, y: float = 30.0, name: str = ""
    ) -> None:
        self.sql(
            "INSERT INTO tb_shop (id, name, type_id, x, y, sold) "
            "VALUES (:id, :name, :type, :x, :y, :sold)",
            id=shop_id,
            name=name or f"Shop {shop_id}",
            type=type_id,
            x=x,
            y=y,
            sold=1000 - shop_id,
        )

    def add_blog(self, blog_id: int, liked: int) -> None:
        self.sql(
            "INSERT INTO tb_blog (id, shop_id, user_id, title, liked) "
            "VALUES (:id, 1, 1, 'b', :liked)",
            id=blog_id,
            liked=liked,
        )

    def selects(self, table: str) -> int:
        """Rows of `table` read so far, by MariaDB's own count."""
        found = self.sql(
            "SELECT rows_read FROM information_schema.table_statistics "
            "WHERE table_schema = DATABASE() AND table_name = :table",
            table=table,
        )
        return int(found[0][0]) if found else 0


def ids(page: Page) -> list[int]:
    """Who is on a page."""
    return [one["id"] for one in json.loads(page.body)]
