"""Warming: every sale that MySQL knows into the ledger, once."""

from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine, inspect, select

from flashsale import keys
from flashsale.errors import UsageError, ViolationError
from flashsale.seckill.sale import Terms, load_sale, read_terms
from flashsale.seeding.progress import Progress
from flashsale.seeding.stores import StoreUrls, opened
from flashsale.storage.mysql import transaction, translated
from flashsale.storage.tables import dataset, seckill_voucher

_CURE = "run `flashsale seed` first"


@dataclass(frozen=True)
class WarmReport:
    """The vouchers whose sale was loaded now, and those whose sale was there before."""

    loaded: tuple[int, ...]
    already_loaded: tuple[int, ...]


def warm(urls: StoreUrls, progress: Progress) -> WarmReport:
    """Load every sale that the ledger has not, and mark the cache as warm.

    Raises ViolationError after all other sales are loaded, where the ledger lost a sale that has
    orders or holds another one in its place; UsageError where there is nothing to load;
    UnreachableError for a store.
    """
    with opened(urls) as stores:
        terms = _terms(stores.pool)
        report = _load_all(stores.ledger, terms, progress)
        stores.cache.set(keys.CACHE_BOOT, _dataset_id(stores.pool))
    return report


def _terms(pool: Engine) -> list[Terms]:
    with translated():
        is_seeded = inspect(pool).has_table(seckill_voucher.name)
    if not is_seeded:
        raise UsageError(f"the database has no tables of ours; {_CURE}")
    terms = read_terms(pool)
    if not terms:
        raise UsageError(f"the database has no sale; {_CURE}")
    return terms


def _load_all(ledger: Redis, sales: Sequence[Terms], progress: Progress) -> WarmReport:
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
    return WarmReport(_ids(loaded), _ids(already))


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


def _dataset_id(pool: Engine) -> str:
    with transaction(pool) as connection:
        return str(connection.execute(select(dataset.c.id)).scalars().first() or "unknown")
