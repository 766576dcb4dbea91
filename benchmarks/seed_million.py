"""`seed` for a million users: seconds, beside the driver's own way of inserting the same rows."""

import tempfile
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from sqlalchemy import insert

from benchmarks.table import Section, median, spread
from flashsale.seeding.dataset import Dataset
from flashsale.seeding.load import CHUNK_ROWS, seed
from flashsale.seeding.settings import SeedSettings
from flashsale.settings import StoreSettings
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.redis import RedisRole, RedisServer
from flashsale.storage import tables
from flashsale.storage.mysql import engine, transaction

USERS = 1_000_000
LIMIT_S = 60.0
RUNS_MAX = 3

_PEER_ROWS = 100_000
_SETTINGS = SeedSettings(users=USERS, reset=True)


class Stopwatch:
    """A Progress that takes the time of each stage."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, float]] = []

    def begin(self, stage: str, total: int) -> None:
        """Start a stage, and end the one before it."""
        self._begun.append((stage, time.monotonic()))

    def advance(self, steps: int) -> None:
        """Stages are timed whole."""

    def note(self, line: str) -> None:
        """Notes take no time."""

    def stages(self) -> dict[str, float]:
        """The seconds of each stage; whoever asks ends the last one."""
        self.begin("", 0)
        return {stage: end - start for (stage, start), (_, end) in pairwise(self._begun)}


def measure(runs: int) -> Section:
    """At most three runs of a million users, sessions and tokens file included."""
    section = Section(f"seed: {USERS:,} users, user infos and sessions")
    with (
        tempfile.TemporaryDirectory(prefix="flashsale-bench-") as folder,
        RedisServer(RedisRole.LEDGER, Path(folder, "ledger")) as ledger,
        RedisServer(RedisRole.CACHE, Path(folder, "cache")) as cache,
        MariaDBServer(Path(folder, "mariadb")) as mariadb,
    ):
        stores = StoreSettings(ledger_url=ledger.url, cache_url=cache.url, mysql_url=mariadb.url)
        tokens, seconds = Path(folder, "tokens.csv"), []
        for _ in range(min(runs, RUNS_MAX)):
            watch = Stopwatch()
            seconds.append(seed(_SETTINGS, stores, tokens, watch).seconds)
            stages = watch.stages()
        again = seed(SeedSettings(users=USERS), stores, tokens, Stopwatch()).seconds
        by_driver = _driver_seconds(stores)
    section.add("seed, s", spread(seconds, 1), f"≤ {LIMIT_S:.0f}", median(seconds) <= LIMIT_S)
    for stage in ("users", "user infos", "sessions"):
        section.add(f"  of that {stage}, s", f"{stages[stage]:.1f}")
    section.add("  users by the driver's executemany, s", f"{by_driver:.1f}")
    section.add("seed again, nothing to add, s", f"{again:.1f}")
    return section


def _driver_seconds(stores: StoreSettings) -> float:
    """What the users alone take where the driver escapes every value; from a tenth of them."""
    dataset = Dataset(_SETTINGS, _SETTINGS.window(datetime.now(UTC)))
    pool = engine(stores.mysql_url)
    with transaction(pool) as connection:
        connection.exec_driver_sql(f"TRUNCATE TABLE {tables.user.name}")
    columns = ("id", "phone", "nick_name", "icon")
    started = time.monotonic()
    for first in range(1, _PEER_ROWS, CHUNK_ROWS):
        ids = range(first, first + CHUNK_ROWS)
        rows = [dict(zip(columns, dataset.user(user_id), strict=True)) for user_id in ids]
        with transaction(pool) as connection:
            connection.execute(insert(tables.user), rows)
    pool.dispose()
    return (time.monotonic() - started) * USERS / _PEER_ROWS
