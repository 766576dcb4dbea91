"""Seeding: the data set into MySQL, sessions into the ledger, their tokens into a file."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flashsale.seeding.dataset import Dataset, Portion
from flashsale.seeding.existing import alone, check_same, dataset_id
from flashsale.seeding.insert import add_missing, has_all
from flashsale.seeding.progress import Progress
from flashsale.seeding.reset import reset
from flashsale.seeding.sessions import SessionMaker, batches
from flashsale.seeding.settings import SeedSettings
from flashsale.seeding.storefront import StorefrontCache, storefront_cache
from flashsale.seeding.stores import Stores, StoreUrls, opened
from flashsale.seeding.tokens import TokensFile, paired, read_tokens
from flashsale.settings import SessionSettings
from flashsale.storage import tables
from flashsale.storage.mysql import transaction

SESSIONS = "sessions"
CACHED = frozenset({"shop types", "shops", "blogs", "vouchers", "sales"})
"""The stages whose rows the cache may have read."""


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
    settings: SeedSettings, urls: StoreUrls, tokens_path: Path, progress: Progress
) -> SeedReport:
    """Bring the data set of `settings` about; what exists already stays as it is.

    A run that was interrupted is completed by the same call. Raises UsageError where the stores
    hold something else, or the tokens file cannot be used, and UnreachableError for a store.
    """
    started, now = time.monotonic(), datetime.now(UTC)
    dataset = Dataset(settings, settings.window(now))
    with opened(urls) as stores, alone(stores.pool), TokensFile(tokens_path) as tokens:
        tables.create_all(stores.pool)
        if settings.reset:
            reset(stores, progress)
        set_id = _claim(stores, settings, now, progress)
        with storefront_cache(urls) as cache:
            stages = [_load(stores, cache, portion, progress) for portion in dataset.portions()]
            if any(stage.added for stage in stages if stage.name in CACHED):
                cache.refresh(stores.cache)
        maker = SessionMaker(stores.ledger, dataset, SessionSettings.load())
        stages.append(_load_sessions(maker, settings, tokens, progress))
    seconds = time.monotonic() - started
    return SeedReport(set_id, tuple(stages), tokens_path, settings.reset, seconds)


def _claim(stores: Stores, settings: SeedSettings, now: datetime, progress: Progress) -> str:
    """Make sure that this is the data set asked for, before the first row of it is written."""
    with transaction(stores.pool) as connection:
        ended = check_same(connection, stores.ledger, settings, now)
    if ended:
        progress.note(f"{ended} of the sales have ended; --reset opens them anew")
    return dataset_id(stores.pool, settings.seed)


def _load(
    stores: Stores, cache: StorefrontCache, portion: Portion, progress: Progress
) -> StageReport:
    progress.begin(portion.name, portion.count)
    if portion.name in CACHED and not has_all(stores.pool, portion):
        cache.expect(portion)
    added = 0
    for looked_at, new in add_missing(stores.pool, portion):
        added += new
        progress.advance(looked_at)
    return StageReport(portion.name, portion.count, added)


def _load_sessions(
    maker: SessionMaker, settings: SeedSettings, tokens: TokensFile, progress: Progress
) -> StageReport:
    """Sessions last: a token whose user is not there yet would be a lie."""
    held: Iterable[tuple[int, str]] = () if settings.reset else read_tokens(tokens.path)
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
