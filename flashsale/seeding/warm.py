"""Warming: every sale that MySQL knows into the ledger, once, and the catalogue into the cache; and
time passing for the cache, entries that are gone or logically expired at one stroke.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from redis import Redis
from sqlalchemy import Engine, inspect

from flashsale import keys
from flashsale.cache.entry import pack, unpack
from flashsale.catalog.warming import LOCK
from flashsale.errors import UnreachableError, UsageError, ViolationError
from flashsale.seckill.permit import Books, behind
from flashsale.seckill.sale import Terms, load_sale, read_terms
from flashsale.seeding.settings import Progress
from flashsale.seeding.storefront import storefront_cache
from flashsale.seeding.stores import StoreUrls, opened
from flashsale.settings import CatalogSettings
from flashsale.storage.mysql import translated
from flashsale.storage.tables import seckill_voucher

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


def warm(urls: StoreUrls, progress: Progress, catalog: CatalogSettings | None = None) -> WarmReport:
    """Load every sale that the ledger has not, fill the cache, and mark it as warm.

    The catalogue is the environment's where `catalog` does not say.

    Raises ViolationError where the ledger is behind MySQL, and after all other sales are loaded,
    where it lost a sale that has orders or holds another one in its place; UsageError where there
    is nothing to load; UnreachableError for a store.
    """
    with opened(urls) as stores:
        terms = _terms(stores.pool)
        _check_books(Books(stores.ledger, stores.pool))
        loaded, already = _load_all(stores.ledger, terms, progress)
        with storefront_cache(urls, catalog) as cache:
            return WarmReport(loaded, already, cache.warm(progress))


def _check_books(books: Books) -> None:
    reasons = behind(*books.compare())
    if reasons:
        raise ViolationError(
            f"the ledger is behind MySQL: {reasons[0].told}; run `flashsale rebuild`, which shows "
            "what it would restore, then `flashsale rebuild --apply`"
        )


def _terms(pool: Engine) -> list[Terms]:
    with translated():
        is_seeded = inspect(pool).has_table(seckill_voucher.name)
    if not is_seeded:
        raise UsageError(f"the database has no tables of ours; {_CURE}")
    terms = read_terms(pool)
    if not terms:
        raise UsageError(f"the database has no sale; {_CURE}")
    return terms


def _load_all(
    ledger: Redis, sales: Sequence[Terms], progress: Progress
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The vouchers loaded now, and those loaded before."""
    progress.begin("sales", len(sales))
    loaded: list[Terms] = []
    already: list[Terms] = []
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


def _strangers(ledger: Redis, sales: Sequence[Terms]) -> list[ViolationError]:
    """The sales in the ledger that are not the ones MySQL means: another data set's."""
    pipeline = ledger.pipeline(transaction=False)
    for terms in sales:
        pipeline.hmget(keys.seckill_sale(terms.voucher_id), "begin", "end")
    return [
        ViolationError(
            f"the ledger's sale of voucher {terms.voucher_id} has another begin or end than "
            "MySQL's; it is another data set's: clear both with `flashsale seed --reset`"
        )
        for terms, found in zip(sales, pipeline.execute(), strict=True)
        if found != [str(terms.begin_ms), str(terms.end_ms)]
    ]


def _ids(sales: Sequence[Terms]) -> tuple[int, ...]:
    return tuple(terms.voucher_id for terms in sales)
