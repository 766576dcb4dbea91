"""Taking a data set away: the rows of our tables and our ledger keys, and nothing else."""

from collections.abc import Iterator
from itertools import islice

from redis import Redis
from sqlalchemy import Engine

from flashsale import keys
from flashsale.seeding.progress import Progress
from flashsale.seeding.stores import Stores
from flashsale.storage.mysql import translated
from flashsale.storage.tables import dataset, metadata

_SCAN_COUNT = 2_000
_UNLINK_KEYS = 1_000


def reset(stores: Stores, progress: Progress) -> None:
    """Delete the data set; a second call completes one that was interrupted.

    The data set's id goes first, so that no run is ever judged against what is left of it. The
    ledger goes before MySQL's orders: a sale that is missing there sells nothing, while one that
    outlived its orders would.
    """
    _truncate(stores.pool, [dataset.name])
    stores.cache.delete(keys.CACHE_BOOT)
    deleted = _delete_keys(stores.ledger)
    names = [table.name for table in metadata.sorted_tables if table is not dataset]
    _truncate(stores.pool, names)
    progress.note(f"reset: {deleted:,} ledger keys and all rows of {len(names) + 1} tables deleted")


def _truncate(pool: Engine, names: list[str]) -> None:
    with translated(), pool.connect() as connection:
        for name in names:
            connection.exec_driver_sql(f"TRUNCATE TABLE {name}")


def _delete_keys(ledger: Redis) -> int:
    found = filter(keys.belongs_to_data_set, _scan(ledger))
    deleted = 0
    while batch := list(islice(found, _UNLINK_KEYS)):
        deleted += len(batch)
        ledger.unlink(*batch)
    return deleted


def _scan(ledger: Redis) -> Iterator[str]:
    yield from ledger.scan_iter(count=_SCAN_COUNT)
