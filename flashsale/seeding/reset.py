"""Taking a data set away: the rows of our tables and our ledger keys, and nothing else."""

from sqlalchemy import Engine

from flashsale import keys
from flashsale.seeding.keyspace import unlink
from flashsale.seeding.progress import Progress
from flashsale.seeding.stores import Stores
from flashsale.storage.mysql import translated
from flashsale.storage.tables import dataset, metadata


def reset(stores: Stores, progress: Progress) -> None:
    """Delete the data set; a second call completes one that was interrupted.

    The data set's id goes first, so that no run is ever judged against what is left of it. The
    ledger goes before MySQL's orders: a sale that is missing there sells nothing, while one that
    outlived its orders would.
    """
    _truncate(stores.pool, [dataset.name])
    unlink(stores.cache, keys.belongs_to_cache)
    deleted = unlink(stores.ledger, keys.belongs_to_data_set)
    names = [table.name for table in metadata.sorted_tables if table is not dataset]
    _truncate(stores.pool, names)
    unlink(stores.cache, keys.belongs_to_cache)  # what was read of the rows meanwhile
    progress.note(f"reset: {deleted:,} ledger keys and all rows of {len(names) + 1} tables deleted")


def _truncate(pool: Engine, names: list[str]) -> None:
    with translated(), pool.connect() as connection:
        for name in names:
            connection.exec_driver_sql(f"TRUNCATE TABLE {name}")
