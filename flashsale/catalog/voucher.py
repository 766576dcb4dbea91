"""Vouchers: those of a shop, new ordinary ones, and new ones with a sale.

A voucher with a sale comes about in three steps, so that buyers see it whole or not at all:

1. both its rows in MySQL, committed, but not listed: an order could become a row from here on.
2. its sale in the ledger, stock and terms in one script: it could be bought from here on.
3. listed: buyers learn of it.

What stops halfway leaves a voucher that nobody was shown, whose id nobody was told.
"""

import asyncio
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from flashsale.cache.client import CacheClient
from flashsale.cache.entry import Cached
from flashsale.cache.strategies import Strategy
from flashsale.catalog.json import NewSale, NewVoucher, Record, record, shape_of
from flashsale.catalog.shop import Shops
from flashsale.errors import Unavailable
from flashsale.seckill.sale import SaleTerms, open_sale
from flashsale.settings import CatalogSettings
from flashsale.storage.lanes import LedgerChannel
from flashsale.storage.mysql import Database, unix_ms
from flashsale.storage.tables import seckill_voucher, shop, voucher

ORDINARY, SALE = 0, 1
LISTED, UNLISTED = 1, 2
_TERMS = (seckill_voucher.c.stock, seckill_voucher.c.begin_time, seckill_voucher.c.end_time)
VOUCHER = shape_of(voucher.c, _TERMS)


class Vouchers:
    """All vouchers. Calls may raise Unavailable or Indeterminate."""

    def __init__(
        self,
        database: Database,
        cache: CacheClient,
        ledger: LedgerChannel,
        shops: Shops,
        settings: CatalogSettings,
    ) -> None:
        self._database = database
        self._cache = cache
        self._ledger = ledger
        self._lists = cache.entries(
            "voucher-list",
            self._load,
            strategy=Strategy.PASS_THROUGH,
            ttl_s=settings.list_ttl_s,
            bloom=shops.ids,
        )

    def __repr__(self) -> str:
        return f"<Vouchers {self._lists!r}>"

    async def of_shop(self, shop_id: int) -> Cached[list[Record]]:
        """The listed vouchers of a shop, those on sale with their terms and MySQL's stock."""
        return await self._lists.read(shop_id)

    async def create(self, new: NewVoucher) -> int | None:
        """The id of a new ordinary voucher, None where its shop does not exist."""

        def work(connection: Connection) -> int | None:
            return _insert(connection, new, type=ORDINARY, status=LISTED)

        return await self._lists.update([new.shop_id], lambda: self._database.run(work))

    async def create_sale(self, new: NewSale) -> int | None:
        """The id of a new voucher whose sale is loaded, None where its shop does not exist.

        Runs to its end even if the caller goes away.
        """
        return await asyncio.shield(self._cache.start(self._create_sale(new)))

    async def _create_sale(self, new: NewSale) -> int | None:
        def write(connection: Connection) -> int | None:
            voucher_id = _insert(connection, new, type=SALE, status=UNLISTED)
            if voucher_id is not None:
                connection.execute(insert(seckill_voucher).values(_terms_row(voucher_id, new)))
            return voucher_id

        voucher_id = await self._database.run(write)
        if voucher_id is None:
            return None
        try:
            await open_sale(self._ledger, _terms(voucher_id, new))
        except Unavailable:  # certainly not loaded: nobody can have bought
            await self._database.run(lambda connection: _withdraw(connection, voucher_id))
            raise
        listing = update(voucher).where(voucher.c.id == voucher_id).values(status=LISTED)
        await self._lists.update(
            [new.shop_id],
            lambda: self._database.run(lambda connection: connection.execute(listing)),
        )
        return voucher_id

    async def _load(self, shop_id: int | str) -> list[Record] | None:
        return await self._database.run(lambda connection: _list(connection, int(shop_id)))


def _insert(connection: Connection, new: NewVoucher, **more: int) -> int | None:
    if connection.execute(select(shop.c.id).where(shop.c.id == new.shop_id)).first() is None:
        return None
    values = new.model_dump(include=set(NewVoucher.model_fields)) | more
    return connection.execute(insert(voucher).values(values)).lastrowid


def _terms_row(voucher_id: int, new: NewSale) -> dict[str, Any]:
    return {
        "voucher_id": voucher_id,
        "stock": new.stock,
        "initial_stock": new.stock,
        "begin_time": new.begin_time.replace(tzinfo=None),
        "end_time": new.end_time.replace(tzinfo=None),
    }


def _terms(voucher_id: int, new: NewSale) -> SaleTerms:
    begin_ms, end_ms = unix_ms(new.begin_time), unix_ms(new.end_time)
    return SaleTerms(voucher_id, new.stock, new.stock, begin_ms, end_ms, live_orders=0)


def _withdraw(connection: Connection, voucher_id: int) -> None:
    connection.execute(delete(seckill_voucher).where(seckill_voucher.c.voucher_id == voucher_id))
    connection.execute(delete(voucher).where(voucher.c.id == voucher_id))


def _list(connection: Connection, shop_id: int) -> list[Record] | None:
    """None where there is no such shop."""
    sale = seckill_voucher.c
    query = (
        select(voucher, *_TERMS)
        .select_from(voucher.outerjoin(seckill_voucher, sale.voucher_id == voucher.c.id))
        .where(voucher.c.shop_id == shop_id, voucher.c.status == LISTED)
        .order_by(voucher.c.id)
    )
    found = [record(row) for row in connection.execute(query)]
    if found or connection.execute(select(shop.c.id).where(shop.c.id == shop_id)).first():
        return found
    return None
