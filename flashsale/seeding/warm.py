"""Warming: every sale that MySQL knows into the ledger, once, and the catalogue into the cache; and
time passing for the cache, entries that are gone or logically expired at one stroke.

The cache speaks asyncio alone, so commands reach it through a loop of its own, for as long as a
block of `storefront_cache` runs; seeding adds to it in the same way.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from redis import Redis
from sqlalchemy import Engine, inspect

from flashsale import keys
from flashsale.cache.bloom import Bloom
from flashsale.cache.client import CacheClient
from flashsale.cache.entry import pack, unpack
from flashsale.catalog.storefront import LOCK, Storefront
from flashsale.errors import (
    Indeterminate,
    Unavailable,
    UnreachableError,
    UsageError,
    ViolationError,
)
from flashsale.locks.task import LockLost, TaskLocks
from flashsale.seckill.permit import BooksComparison, behind
from flashsale.seckill.sale import SaleTerms, load_sale, read_terms
from flashsale.seeding.dataset import Portion
from flashsale.seeding.settings import StageProgress
from flashsale.seeding.stores import StoreUrls, opened, unlink
from flashsale.settings import BloomSettings, CacheSettings, CatalogSettings, LockSettings
from flashsale.storage.lanes import ledger_channel
from flashsale.storage.mysql import Database, engine, translated
from flashsale.storage.roles import Ledgers
from flashsale.storage.tables import blog, seckill_voucher, shop
from flashsale.store_urls import lane_of

T = TypeVar("T")

_THREADS = 4
_PATIENCE_S = 120.0
"""For a replica that warms, or the lease of one that died at it."""


class StorefrontCache:
    """Made by `storefront_cache`. Its calls raise UnreachableError for a store."""

    def __init__(self, runner: asyncio.Runner, parts: Storefront, locks: TaskLocks) -> None:
        self._runner = runner
        self._parts = parts
        self._locks = locks

    def __repr__(self) -> str:
        return f"<StorefrontCache {self._parts!r}>"

    def expect(self, portion: Portion) -> None:
        """Let the filters know of rows that are about to be written, so that none is denied."""
        filters: dict[str, Bloom] = {
            shop.name: self._parts.shops.ids,
            blog.name: self._parts.blogs.ids,
        }
        ids = filters.get(portion.table.name)
        if ids is not None and self._run(ids.present):
            self._run(lambda: ids.add(portion.ids))

    def refresh(self, cache: Redis) -> None:
        """Forget what was cached of older rows, and make the filters anew, sized for the rows."""
        unlink(cache, keys.belongs_to_pages)
        self._run(lambda: self._alone(self._parts.warming.fill_filters))

    def warm(self, progress: StageProgress) -> dict[str, int]:
        """Fill the cache; how many things of each kind were put in place."""
        warming = self._parts.warming

        async def every_step() -> dict[str, int]:
            done: dict[str, int] = {}
            for name, step in warming.steps:
                done[name] = await step()
                progress.advance(1)
            await warming.mark()
            return done

        progress.begin("cache", len(warming.steps))
        return self._run(lambda: self._alone(every_step))

    async def _alone(self, work: Callable[[], Awaitable[T]]) -> T:
        """`work` under the lock of the replicas that warm: two rebuilds would end one another."""
        async with self._locks.lock(LOCK, wait_s=_PATIENCE_S):
            return await work()

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work()

        try:
            return self._runner.run(run())
        except (Unavailable, Indeterminate, LockLost) as trouble:
            raise UnreachableError(
                f"the cache cannot be filled: {trouble}; the same command goes on from here"
            ) from trouble


@contextmanager
def storefront_cache(
    urls: StoreUrls, catalog: CatalogSettings | None = None
) -> Iterator[StorefrontCache]:
    """The storefront over the stores at `urls`, which have answered before."""
    cache = CacheClient(urls.cache_url, CacheSettings.load(), BloomSettings.load())
    ledger = ledger_channel(urls.ledger_url, connections_max=1, timeout_s=2.0)
    database = Database(engine(urls.mysql_url), threads_max=_THREADS)
    parts = Storefront(database, cache, ledger, catalog or CatalogSettings.load())
    locks = TaskLocks(urls.cache_url, urls.ledger_url, LockSettings.load())

    async def close() -> None:
        for part in (locks, parts, ledger):
            await part.aclose()

    with asyncio.Runner() as runner:
        try:
            yield StorefrontCache(runner, parts, locks)
        finally:
            runner.run(close())
            database.close()


_AT_ONCE = 1_000
_LONG_AGO_MS = 1
_WARMED_WITHIN_S, _POLL_S = 60.0, 0.05


def await_warmed(cache: Redis) -> None:
    """Wait until no replica warms the cache; after `warm` has marked it, none begins.

    A replica that finds a cache without its marker warms it by itself, perhaps while `warm` does.
    Raises UnreachableError where that takes too long.
    """
    until_s = time.monotonic() + _WARMED_WITHIN_S
    while cache.exists(keys.lock(LOCK)):
        if time.monotonic() > until_s:
            raise UnreachableError(f"a replica warms the cache for over {_WARMED_WITHIN_S:g} s")
        time.sleep(_POLL_S)


def drop_shops(cache: Redis, shops: Iterable[int]) -> int:
    """Remove the entries of these shops, as the end of their lifetime does; how many there were."""
    found = 0
    for names in _batches(shops):
        found += int(cache.unlink(*names))
    return found


def expire_shops(cache: Redis, shops: Iterable[int]) -> int:
    """Make the warmed entries of these shops logically expired; how many there are."""
    expired = 0
    for names in _batches(shops):
        for name, raw in zip(names, cache.mget(names), strict=True):
            entry = unpack(raw if isinstance(raw, bytes) else None)
            if entry is not None and entry.expires_ms:
                cache.set(name, pack(entry.body, _LONG_AGO_MS))
                expired += 1
    return expired


def _batches(shops: Iterable[int]) -> Iterable[list[str]]:
    names = [keys.cache_entry("shop", shop) for shop in shops]
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


_CURE = "run `flashsale seed` first"


@dataclass(frozen=True)
class WarmReport:
    """The vouchers whose sale was loaded now, those whose sale was there before, and how many
    things of each kind were put into the cache."""

    loaded: tuple[int, ...]
    already_loaded: tuple[int, ...]
    cached: Mapping[str, int] = field(default_factory=dict, compare=False)


def warm(
    urls: StoreUrls, progress: StageProgress, catalog: CatalogSettings | None = None
) -> WarmReport:
    """Load every sale that the ledger has not, fill the cache, and mark it as warm.

    The catalogue is the environment's where `catalog` does not say.

    Raises ViolationError where the ledger is behind MySQL, and after all other sales are loaded,
    where it lost a sale that has orders or holds another one in its place; UsageError where there
    is nothing to load; UnreachableError for a store.
    """
    with opened(urls) as stores:
        terms = _terms(stores.pool)
        for ledger in stores.ledgers.clients:
            _check_books(BooksComparison(ledger, stores.pool))
        loaded, already = _load_all(stores.ledgers, terms, progress)
        with storefront_cache(urls, catalog) as cache:
            return WarmReport(loaded, already, cache.warm(progress))


def _check_books(books: BooksComparison) -> None:
    reasons = behind(*books.compare())
    if reasons:
        raise ViolationError(
            f"the ledger is behind MySQL: {reasons[0].told}; run `flashsale rebuild`, which shows "
            "what it would restore, then `flashsale rebuild --apply`"
        )


def _terms(pool: Engine) -> list[SaleTerms]:
    with translated():
        is_seeded = inspect(pool).has_table(seckill_voucher.name)
    if not is_seeded:
        raise UsageError(f"the database has no tables of ours; {_CURE}")
    terms = read_terms(pool)
    if not terms:
        raise UsageError(f"the database has no sale; {_CURE}")
    return terms


def _load_all(
    ledger: Ledgers, sales: Sequence[SaleTerms], progress: StageProgress
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The vouchers loaded now, and those loaded before."""
    progress.begin("sales", len(sales))
    loaded: list[SaleTerms] = []
    already: list[SaleTerms] = []
    refused: list[ViolationError] = []
    for terms in sales:
        try:
            (loaded if load_sale(ledger, terms) else already).append(terms)
        except ViolationError as violation:
            refused.append(violation)
        progress.advance(1)
    refused += _strangers(ledger, already)
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise ViolationError(f"{refused[0]}{more}")
    return _ids(loaded), _ids(already)


def _strangers(ledger: Ledgers, every: Sequence[SaleTerms]) -> list[ViolationError]:
    """The sales in the ledger that are not the ones MySQL means: another data set's."""
    found: list[ViolationError] = []
    for client, lane in zip(ledger.clients, ledger.layout.lanes, strict=True):
        found += _strangers_in(client, [one for one in every if lane.sells(one.voucher_id)])
    return found


def _strangers_in(ledger: Redis, sales: Sequence[SaleTerms]) -> list[ViolationError]:
    lane = lane_of(ledger)
    pipeline = ledger.pipeline(transaction=False)
    for terms in sales:
        pipeline.hmget(lane.seckill_sale(terms.voucher_id), "begin", "end")
    return [
        ViolationError(
            f"the ledger's sale of voucher {terms.voucher_id} has another begin or end than "
            "MySQL's; it is another data set's: clear both with `flashsale seed --reset`"
        )
        for terms, found in zip(sales, pipeline.execute(), strict=True)
        if found != [str(terms.begin_ms), str(terms.end_ms)]
    ]


def _ids(sales: Sequence[SaleTerms]) -> tuple[int, ...]:
    return tuple(terms.voucher_id for terms in sales)
