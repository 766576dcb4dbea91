"""Seeding: the data set into MySQL, sessions into the ledger, their tokens into a file.

Only rows that are missing are written, many to a statement. The statements are put together
here rather than by the driver, which escapes value by value and takes two and a half times as
long. That is safe for generated rows alone, and checked: a statement holds exactly the quotes
that its template brings, and no backslash.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select

from flashsale import keys
from flashsale.errors import UsageError
from flashsale.seeding.dataset import Dataset, Portion, Row
from flashsale.seeding.ours import check_rows, owned, record
from flashsale.seeding.sessions import (
    SessionMaker,
    TokensFile,
    batches,
    check_tokens,
    paired,
    read_seeded_tokens,
)
from flashsale.seeding.settings import SeedSettings, StageProgress
from flashsale.seeding.stores import (
    OpenStores,
    StoreUrls,
    alone,
    check,
    dataset_id,
    opened,
    reset,
    unlink,
)
from flashsale.seeding.warm import StorefrontCache, storefront_cache
from flashsale.settings import SessionSettings
from flashsale.storage import tables
from flashsale.storage.mysql import Duplicate, transaction

CHUNK_ROWS = 10_000
"""Rows of one transaction: enough to make its fsync cheap, few enough to keep its undo small."""

STATEMENT_ROWS = 1_000
"""Rows of one INSERT: a few hundred kilobytes, far below any `max_allowed_packet`."""


def _add_missing(pool: Engine, portion: Portion, seed: int) -> Iterator[tuple[int, int]]:
    """Write the rows of `portion` that are not there yet; existing ones stay as they are.

    Yields (rows looked at, rows added) after each chunk's COMMIT, so that an interrupted run has
    whole chunks and the next one goes on from there. Raises UsageError where a row clashes with
    one that is not of this data set, Unavailable or Indeterminate for trouble with MySQL.
    """
    for start in range(0, portion.count, CHUNK_ROWS):
        ids = portion.ids[start : start + CHUNK_ROWS]
        try:
            with transaction(pool) as connection:
                missing = _missing(connection, portion, ids)
                if len(missing) < len(ids):  # somebody may have signed in since they were checked
                    check_rows(connection, owned(connection), portion, ids)
                if missing:
                    _insert(connection, portion, missing)
                    record(connection, seed, portion, ids[-1])
        except Duplicate as error:
            raise UsageError(
                f"{portion.table.name} holds rows that clash with the data set "
                f"({error}); use an empty database: --reset takes nothing of others away"
            ) from error
        yield len(ids), len(missing)


def _has_all(pool: Engine, portion: Portion) -> bool:
    """True where no row of `portion` is missing. Raises Unavailable or Indeterminate."""
    if not portion.count:
        return True
    with transaction(pool) as connection:
        return _present(connection, portion, portion.ids) == portion.count


def statement(portion: Portion, rows: Sequence[Row]) -> str:
    """One INSERT of `rows`. Raises ValueError for a value that could end its own quotes."""
    quoted = [isinstance(value, str) for value in rows[0]]
    template = "(" + ",".join("'%s'" if is_text else "%r" for is_text in quoted) + ")"
    values = ",".join([template % row for row in rows])
    if values.count("'") != 2 * sum(quoted) * len(rows) or "\\" in values:
        raise ValueError(f"a generated value of {portion.table.name} needs escaping")
    columns = ", ".join(portion.columns)
    return f"INSERT INTO {portion.table.name} ({columns}) VALUES {values}"  # noqa: S608 - checked above


def _missing(connection: Connection, portion: Portion, ids: range) -> Sequence[int]:
    present = _present(connection, portion, ids)
    if present == 0:
        return ids
    if present == len(ids):
        return ()
    key = portion.table.c[portion.columns[0]]
    found = set(connection.execute(select(key).where(key.between(ids[0], ids[-1]))).scalars())
    return [row_id for row_id in ids if row_id not in found]


def _present(connection: Connection, portion: Portion, ids: range) -> int:
    key = portion.table.c[portion.columns[0]]
    query = select(func.count()).where(key.between(ids[0], ids[-1]))
    return connection.execute(query).scalar_one()


def _insert(connection: Connection, portion: Portion, ids: Sequence[int]) -> None:
    for start in range(0, len(ids), STATEMENT_ROWS):
        rows = [portion.row(row_id) for row_id in ids[start : start + STATEMENT_ROWS]]
        connection.exec_driver_sql(
            statement(portion, rows), execution_options={"no_parameters": True}
        )


SESSIONS = "sessions"
CACHED = frozenset({"shop types", "shops", "blogs", "vouchers", "sales"})
"""The stages whose rows the pages in the cache are made from."""
_FOLLOWS = "follows"


@dataclass(frozen=True)
class StageReport:
    """One kind of thing: how many the data set has, and how many of them this run added."""

    name: str
    total: int
    added: int


@dataclass(frozen=True)
class SeedReport:
    """What a run did."""

    dataset_id: str
    stages: tuple[StageReport, ...]
    tokens_path: Path
    was_reset: bool
    seconds: float

    @property
    def added(self) -> int:
        """Rows and sessions that were not there before."""
        return sum(stage.added for stage in self.stages)

    @property
    def changed(self) -> bool:
        """False for a repetition, which leaves everything as it was."""
        return self.was_reset or self.added > 0


def seed(
    settings: SeedSettings, urls: StoreUrls, tokens_path: Path, progress: StageProgress
) -> SeedReport:
    """Bring the data set of `settings` about; what exists already stays as it is.

    A run that was interrupted is completed by the same call. Raises UsageError where the stores
    hold something else, or the tokens file cannot be used, and UnreachableError for a store.
    """
    started, now = time.monotonic(), datetime.now(UTC)
    dataset = Dataset(settings, settings.window(now))
    with opened(urls) as stores, alone(stores.pool):
        known, ended = check(stores, settings, dataset, now)
        check_tokens(tokens_path)
        with TokensFile(tokens_path) as tokens:
            tables.create_all(stores.pool)
            if settings.reset:
                reset(stores, known, progress)
            if ended:
                progress.note(f"{ended} of the sales have ended; --reset opens them anew")
            set_id = dataset_id(stores.pool, settings.seed)
            stages = _load_all(stores, urls, dataset, settings, progress)
            maker = SessionMaker(stores.ledgers, dataset, SessionSettings.load())
            stages.append(_load_sessions(maker, settings, tokens, progress))
    seconds = time.monotonic() - started
    return SeedReport(set_id, tuple(stages), tokens_path, settings.reset, seconds)


def _load_all(
    stores: OpenStores,
    urls: StoreUrls,
    dataset: Dataset,
    settings: SeedSettings,
    progress: StageProgress,
) -> list[StageReport]:
    with storefront_cache(urls) as cache:
        stages = [
            _load(stores, cache, portion, settings.seed, progress) for portion in dataset.portions()
        ]
        added = {stage.name for stage in stages if stage.added}
        if added & CACHED:
            cache.refresh(stores.cache)
        elif _FOLLOWS in added:
            unlink(stores.cache, keys.tells_follows)
    return stages


def _load(
    stores: OpenStores, cache: StorefrontCache, portion: Portion, seed: int, progress: StageProgress
) -> StageReport:
    progress.begin(portion.name, portion.count)
    if portion.name in CACHED and not _has_all(stores.pool, portion):
        cache.expect(portion)
    added = 0
    for looked_at, new in _add_missing(stores.pool, portion, seed):
        added += new
        progress.advance(looked_at)
    return StageReport(portion.name, portion.count, added)


def _load_sessions(
    maker: SessionMaker, settings: SeedSettings, tokens: TokensFile, progress: StageProgress
) -> StageReport:
    """Sessions last: a token whose user is not there yet would be a lie."""
    held: Iterable[tuple[int, str]] = () if settings.reset else read_seeded_tokens(tokens.path)
    progress.begin(SESSIONS, settings.users)
    added = dropped = 0
    for batch in batches(paired(settings.users, held)):
        valid, new = maker.ensure(batch)
        tokens.write(valid)
        added, dropped = added + new, dropped + len(batch) - len(valid)
        progress.advance(_within(settings.users, batch))
    if added or dropped or not tokens.is_current():
        tokens.put_in_place()
    return StageReport(SESSIONS, settings.users, added)


def _within(users: int, batch: Sequence[tuple[int, str | None]]) -> int:
    return sum(user_id <= users for user_id, _ in batch)
